//! Whole files in, configs or problems out.

use proptest::prelude::*;

use super::*;

const TOP: &str = "[[switch]]\nname = \"br0\"\n";

/// A service that is right, with `key = value` lines replaced or added and targets appended.
fn service(changes: &[(&str, &str)], rest: &str) -> String {
    let mut keys = vec![
        ("name", "\"web\""),
        ("switch", "\"br0\""),
        ("vip", "\"192.0.2.10\""),
        ("protocol", "\"tcp\""),
        ("port", "80"),
    ];
    for (key, value) in changes {
        match keys.iter_mut().find(|(known, _)| known == key) {
            Some(entry) => entry.1 = value,
            None => keys.push((key, value)),
        }
    }
    let lines: String = keys
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .flat_map(|(key, value)| [key, " = ", value, "\n"])
        .collect();
    format!("[[service]]\n{lines}{rest}\n")
}

const VM: &str = "[[service.target]]\nvm = \"a\"\n";

fn good(text: &str) -> Config {
    Config::parse("lbx.toml", text).unwrap_or_else(|problems| panic!("{problems}\n---\n{text}"))
}

fn bad(text: &str) -> Vec<Problem> {
    Config::parse("lbx.toml", text).expect_err(text).0
}

/// One expected problem: its key and a part of what it says.
fn only(text: &str, key: &str, says: &str) {
    let problems = bad(text);
    let errors: Vec<_> = problems.iter().filter(|p| p.severity == Severity::Error).collect();
    assert_eq!(errors.len(), 1, "{problems:#?}\n---\n{text}");
    assert_eq!(errors[0].key, key, "{text}");
    let whole = errors[0].to_string();
    assert!(whole.contains(says), "{whole:?} does not say {says:?}");
}

#[test]
fn the_example_is_right_and_complete() {
    let config = good(Config::example());
    assert_eq!(config.warnings, []);
    let web = config.service("web").unwrap();
    assert_eq!(web.vips.len(), 2);
    assert_eq!(web.targets[1].weight, 200);
    assert_eq!(web.health.checks[0].fall, 3);
    let api = config.service("api").unwrap();
    assert_eq!((api.forward, api.targets[0].port), (Forward::Nat, Some(8443)));
    assert_eq!(api.targets[0].name(), "api-1:8443");
    assert_eq!(config.switch("br0").unwrap().uplinks.as_deref(), Some(&["eth0".to_owned()][..]));
}

#[test]
fn the_example_writes_the_defaults() {
    let example = good(Config::example());
    let empty = good("");
    assert_eq!(
        (example.daemon, example.limits, example.timeouts, example.measure, example.weights),
        (empty.daemon, empty.limits, empty.timeouts, empty.measure, empty.weights)
    );
}

#[test]
fn everything_wrong_is_said_at_once_in_order_with_lines() {
    let text = "\
[limits]
flows = 10
table_size = 65536

[[switch]]
name = \"br0\"
xdp = \"nativ\"

[[service]]
name = \"web\"
swich = \"br0\"
switch = \"br1\"
vip = [\"224.0.0.1\", \"192.0.2.10/24\"]
protocol = \"sctp\"
port = \"90-80\"
algorithm = \"wrr\"

[[service.target]]
vm = \"a\"
nic = \"tap0\"
wieght = 3
";
    let found: Vec<_> =
        bad(text).into_iter().map(|p| (p.line, p.column, p.key, p.hint.unwrap_or_default())).collect();
    let expected = [
        (2, 9, "limits.flows", ""),
        (3, 14, "limits.table_size", "the next prime is 65537"),
        (7, 7, "switch[br0].xdp", "did you mean \"native\"?"),
        (11, 1, "service[web].swich", "did you mean `switch`?"),
        (12, 10, "service[web].switch", "did you mean \"br0\"?"),
        (13, 8, "service[web].vip", ""),
        (13, 21, "service[web].vip", "a VIP is one address, without a prefix length"),
        (14, 12, "service[web].protocol", "this version balances \"tcp\" and \"udp\""),
        (15, 8, "service[web].port", "one port (80), a range (\"8000-8100\"), or 0 for every port"),
        (16, 13, "service[web].algorithm", "use \"maglev\" or \"p2c\""),
        (20, 7, "service[web].target[1].nic", ""),
        (21, 1, "service[web].target[1].wieght", "did you mean `weight`?"),
    ];
    let expected: Vec<_> =
        expected.iter().map(|(l, c, k, h)| (*l, *c, (*k).to_owned(), (*h).to_owned())).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_problem_reads_as_one_line_and_a_hint() {
    let text = format!("{TOP}{}", service(&[("port", "\"http\"")], VM));
    assert_eq!(
        bad(&text)[0].to_string(),
        "lbx.toml:8:8: error: service[web].port: \"http\" is not a port (1 to 65535)\n    \
         hint: one port (80), a range (\"8000-8100\"), or 0 for every port"
    );
}

#[test]
fn syntax_errors_point_at_the_place() {
    let problems = bad("[[switch]]\nname = \"br0\"\nxdp = = 1\n");
    assert_eq!(problems[0].line, 3);
    assert!(problems[0].message.starts_with("not TOML"), "{problems:?}");
}

#[test]
fn one_mistake_one_error() {
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str, &'a str);
    let cases: &[Case<'_>] = &[
        (&[("name", "")], VM, "service[1].name", "missing"),
        (&[("name", "\"-x\"")], VM, "service[-x].name", "cannot be a service's name"),
        (&[("vip", "\"127.0.0.1\"")], VM, "service[web].vip", "loopback"),
        (&[("vip", "\"fe80::1\"")], VM, "service[web].vip", "link-local"),
        (&[("vip", "\"0.0.0.0\"")], VM, "service[web].vip", "this network"),
        (&[("vip", "\"255.255.255.255\"")], VM, "service[web].vip", "broadcast"),
        (&[("vip", "\"::ffff:192.0.2.1\"")], VM, "service[web].vip", "mapped into IPv6"),
        (&[("vip", "[\"192.0.2.1\", \"192.0.2.1\"]")], VM, "service[web].vip", "named twice"),
        (&[("vip", "[]")], VM, "service[web].vip", "empty"),
        (&[("vlan", "0")], VM, "service[web].vlan", "outside 1 to 4094"),
        (&[("vlan", "\"10\"")], VM, "service[web].vlan", "expected a whole number, found a string"),
        (&[("port", "80.5")], VM, "service[web].port", "expected a number or a string"),
        (&[("forward", "\"encap\"")], VM, "service[web].forward", "not in this version"),
        (&[("forward", "\"snat\"")], VM, "service[web].forward", "did you mean \"nat\"?"),
        (&[("forward", "7")], VM, "service[web].forward", "expected a string"),
        (&[("algorithm", "\"maglv\"")], VM, "service[web].algorithm", "did you mean \"maglev\"?"),
        (&[("answer", "\"link:a/b\"")], VM, "service[web].answer", "does not allow"),
        (&[], "[[service.target]]\n", "service[web].target[1]", "needs one of"),
        (&[("exclusive", "true"), ("forward", "\"dsr\"")], VM, "service[web].exclusive", "nat"),
        (
            &[],
            "[[service.target]]\nvm = \"a\"\nport = 8080\n",
            "service[web].target[1].port",
            "does not change",
        ),
        (
            &[("forward", "\"nat\""), ("port", "\"80-90\"")],
            "[[service.target]]\nvm = \"a\"\nport = 8080\n",
            "service[web].target[1].port",
            "keeps the port",
        ),
        (
            &[],
            "[[service.target]]\nvm = \"a\"\n[[service.target]]\nvm = \"a\"\n",
            "service[web].target[2]",
            "line 9",
        ),
        (
            &[("forward", "\"nat\"")],
            "[[service.target]]\nmac = \"52:54:00:00:00:01\"\n",
            "service[web].target[1].mac",
            "add `address`",
        ),
        (
            &[],
            "[[service.target]]\nvm = \"a\"\nweight = 1000001\n",
            "service[web].target[1].weight",
            "outside",
        ),
        (
            &[],
            "[[service.target]]\nvm = \"a\"\nqueues = [0, 0]\n",
            "service[web].target[1].queues",
            "weight 0",
        ),
        (
            &[],
            "[[service.target]]\nvm = \"a\"\naddress = \"::1:2\"\n",
            "service[web].target[1].address",
            "`address6`",
        ),
        (&[("health", "{ tcp = { interval = \"2\" } }")], VM, "service[web].health.tcp.interval", "no unit"),
        (&[("health", "{ tcp = { timeout = \"3s\" } }")], VM, "service[web].health.tcp.timeout", "longer"),
        (&[("protocol", "\"udp\""), ("health", "{ tcp = {} }")], VM, "service[web].health.tcp.port", "UDP"),
        (
            &[("port", "0"), ("health", "{ tcp = {} }")],
            VM,
            "service[web].health.tcp.port",
            "more than one port",
        ),
    ];
    for (changes, rest, key, says) in cases {
        only(&format!("{TOP}{}", service(changes, rest)), key, says);
    }
}

#[test]
fn mistakes_above_the_services() {
    only("[daemon]\nmetrics_listen = \"0.0.0.0:9\"\n", "daemon.metrics_listen", "not a loopback address");
    only("[daemon]\nsocket = \"lbx.sock\"\n", "daemon.socket", "absolute");
    only("[timeouts]\nudp = 15\n", "timeouts.udp", "no unit");
    only("[timeouts]\nudp = \"0s\"\n", "timeouts.udp", "outside 1s to 7d");
    only("[timeouts]\nlearn = \"5m\"\n", "timeouts.learn", "outside 1s to 4m");
    only("[[switch]]\nname = \"br0\"\n[[switch]]\nname = \"br0\"\n", "switch[br0].name", "line 2");
    only("[[switch]]\nname = \"a-very-long-interface\"\n", "switch[a-very-long-interface].name", "15 bytes");
    only("[[switch]]\nname = \"br0\"\nuplinks = []\n", "switch[br0].uplinks", "empty");
    only("[switch]\nname = \"br0\"\n", "switch", "[[switch]]");
    only("[demon]\n", "demon", "did you mean `daemon`?");
}

#[test]
fn services_must_not_overlap() {
    let pair = |a: &[(&str, &str)], b: &[(&str, &str)]| {
        let with = |name, changes: &[(&'static str, &'static str)]| {
            let mut all = vec![("name", name)];
            all.extend_from_slice(changes);
            service(&all, VM)
        };
        let fixed = |changes: &[(&str, &str)]| -> Vec<(&'static str, &'static str)> {
            changes.iter().map(|(k, v)| (leak(k), leak(v))).collect()
        };
        format!("{TOP}{}{}", with("\"a\"", &fixed(a)), with("\"b\"", &fixed(b)))
    };
    for (a, b) in [
        (&[("port", "80")], &[("port", "\"79-81\"")]),
        (&[("port", "0")], &[("port", "9")]),
        (&[("vip", "[\"192.0.2.9\", \"192.0.2.10\"]")], &[("port", "80")]),
    ] {
        only(&pair(a, b), "service[b].vip", "already belongs to service \"a\"");
    }
    for (a, b) in [
        (&[("port", "80")], &[("port", "81")]),
        (&[("vlan", "7")], &[("port", "80")]),
        (&[("protocol", "\"udp\"")], &[("port", "80")]),
        (&[("vip", "\"192.0.2.9\"")], &[("port", "80")]),
    ] {
        good(&pair(a, b));
    }
}

fn leak(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

#[test]
fn a_vip_is_nobodys_own_address() {
    let target = "[[service.target]]\nvm = \"a\"\naddress = \"192.0.2.10\"\n";
    only(&format!("{TOP}{}", service(&[], target)), "service[web].vip", "a target's own address");
}

#[test]
fn warnings_do_not_refuse() {
    let config = good(&format!("{TOP}{}", service(&[], "")));
    assert_eq!(config.warnings.len(), 1);
    assert_eq!((config.warnings[0].line, config.warnings[0].severity), (3, Severity::Warning));
    let zero = good(&format!("{TOP}{}", service(&[], "[[service.target]]\nvm = \"a\"\nweight = 0\n")));
    assert!(zero.warnings[0].message.contains("weight 0"));
}

#[test]
fn flows_become_a_power_of_two() {
    assert_eq!(good("[limits]\nflows = 100_000\n").limits.flows, 131_072);
    assert_eq!(good("[limits]\nflows = 65536\n").limits.flows, 65_536);
}

#[test]
fn several_ports_of_one_vm_are_several_targets() {
    let targets = "[[service.target]]\nvm = \"a\"\nport = 1\n[[service.target]]\nvm = \"a\"\nport = 2\n";
    let config = good(&format!("{TOP}{}", service(&[("forward", "\"nat\"")], targets)));
    assert_eq!(config.services[0].targets.len(), 2);
}

#[test]
fn a_file_that_is_not_there_is_a_problem_without_a_line() {
    let problems = Config::load("/nonexistent/lbx.toml").unwrap_err();
    assert!(problems.to_string().starts_with("/nonexistent/lbx.toml: error: the file cannot be read"));
}

#[test]
fn diff_names_what_changed_and_nothing_else() {
    let old = good(Config::example());
    assert_eq!(Config::diff(&old, &old), []);
    let text = Config::example()
        .replace("weight = 200", "weight = 300")
        .replace("vm = \"api-1\"", "vm = \"api-2\"")
        .replace("udp = \"1m\"", "udp = \"90s\"")
        .replace("port = 80 ", "port = \"80-81\" ")
        .replace("interval = \"2s\", timeout = \"1s\"", "interval = \"5s\", port = 80");
    let changes: Vec<_> = Config::diff(&old, &good(&text)).iter().map(ToString::to_string).collect();
    assert_eq!(
        changes,
        [
            "timeouts: udp 1m -> 1m30s",
            "service web: port 80 -> 80-81",
            "service web: health tcp every 2s within 1s rise 2 fall 3 -> \
             tcp every 5s within 1s rise 2 fall 3 port 80",
            "target web/web-2: weight 200 -> 300",
            "target api/api-1:8443: removed",
            "target api/api-2:8443: added",
        ]
    );
    let gone = Config::diff(&old, &good(TOP));
    assert_eq!(gone.iter().filter(|change| change.kind == ChangeKind::Removed).count(), 5);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn mutated_text_is_an_answer_never_a_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), "\\PC{0,3}|\\[|\\]|=|\"|\n"), 1..8)
    ) {
        let mut text = Config::example().to_owned();
        for (at, insert) in edits {
            let chars: Vec<_> = text.char_indices().map(|(n, _)| n).collect();
            let at = at.index(chars.len());
            let end = chars.get(at + insert.len() % 3).copied().unwrap_or(text.len());
            text.replace_range(chars[at]..end, &insert);
        }
        if let Err(problems) = Config::parse("f", &text) {
            prop_assert!(problems.iter().any(|problem| problem.severity == Severity::Error));
            let lines = text.split('\n').count();
            for problem in &problems {
                prop_assert!((1..=lines).contains(&problem.line), "{} of {}", problem.line, lines);
            }
        }
    }

    #[test]
    fn an_unknown_key_is_reported_on_its_own_line(at in any::<prop::sample::Index>()) {
        let lines: Vec<_> = Config::example().lines().collect();
        let at = at.index(lines.len() + 1);
        let mut with: Vec<_> = lines[..at].to_vec();
        with.push("qqqqqqqq = 1");
        with.extend_from_slice(&lines[at..]);
        let problems = bad(&with.join("\n"));
        prop_assert_eq!(problems.len(), 1);
        prop_assert_eq!(problems[0].line, at + 1);
        prop_assert_eq!(problems[0].column, 1);
    }
}
