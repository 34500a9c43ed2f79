//! The command line against a real datapath: text for people, JSON for programs, exit codes, with and without
//! the daemon.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lbx_tests::lab::client::{http, socket};
use lbx_tests::lab::vm::Family;
use lbx_tests::scenario::host::{FAMILIES, Host, config, ip, narrow};

/// Verbs that look, with the field that their JSON has to have.
const LOOKING: [(&[&str], &str); 12] = [
    (&["status"], "ports"),
    (&["services"], "services"),
    (&["targets"], "targets"),
    (&["targets", "--service", "web"], "targets"),
    (&["weights"], "weights"),
    (&["weights", "--verbose"], "tables"),
    (&["flows"], "flows"),
    (&["flows", "--count"], "count"),
    (&["stats"], "reasons"),
    (&["stats", "--drops"], "reasons"),
    (&["why", "weight", "web/vif0"], "share"),
    (&["why", "flow", "tcp", "10.77.0.1:1024", "10.77.0.100:80"], "verdict"),
];

fn some_traffic(host: &Host) {
    for _ in 0..10 {
        for (vip, port) in [(0, 80), (1, 8080)] {
            for family in FAMILIES {
                host.get(vip, port, family).unwrap();
            }
        }
    }
}

#[test]
fn every_verb_that_looks_works_with_and_without_the_daemon() {
    let mut host = Host::running(3);
    some_traffic(&host);
    for daemon in [true, false] {
        if !daemon {
            host.lbx.kill().unwrap();
        }
        for (words, field) in LOOKING {
            let (code, text, error) = host.verb(words);
            assert_eq!(code, 0, "{words:?}: {error}");
            narrow(words, &text);
            assert!(!text.trim().is_empty(), "{words:?}");
            let told = error.matches("the daemon is not running: read from the pinned maps").count();
            assert_eq!(told, usize::from(!daemon), "{words:?}: {error:?}");
            let answer = host.json(words);
            assert!(!answer[field].is_null(), "{words:?}: {answer}");
        }
        let status = host.json(&["status"]);
        assert_eq!(status["source"], if daemon { "daemon" } else { "maps" });
        assert_eq!((&status["targets"], &status["services_active"]), (&6.into(), &2.into()));
        let attached = |port: &serde_json::Value| !port["attached"].as_array().unwrap().is_empty();
        assert!(status["ports"].as_array().unwrap().iter().all(attached), "{status}");
        let services = host.json(&["services"]);
        let web = services["services"].as_array().unwrap().iter().find(|s| s["name"] == "web").unwrap();
        assert_eq!(web["answered"].as_array().unwrap().len(), 2, "{web}");
        assert!(web["counters"]["flows_recorded"].as_u64().unwrap() >= 20, "{web}");
    }
    // What was steered goes on being steered.
    some_traffic(&host);
}

#[test]
fn exit_codes_mean_what_the_help_says() {
    let mut host = Host::idle(2);
    let code = |host: &Host, words: &[&str]| host.verb(words).0;
    assert_eq!(code(&host, &["status"]), 3, "nothing runs and nothing is attached");
    assert_eq!(code(&host, &["check", "--offline"]), 0);
    for usage in [&["bypass"] as &[&str], &["set", "weight", "vif0", "70000"], &["flows", "--client", "web"]]
    {
        assert_eq!(code(&host, usage), 2, "{usage:?}");
    }
    host.lbx.run().unwrap();
    host.wait_served();
    for (words, text) in [
        (&["drain", "web/vif9"] as &[&str], "there is no target \"web/vif9\""),
        (&["why", "weight", "vif9"], "there is no target \"vif9\""),
        (&["flows", "--service", "wbe"], "did you mean \"web\"?"),
        (&["why", "flow", "tcp", "10.77.0.1:1", "[fd77::100]:80"], "different families"),
        (&["detach"], "the daemon is running"),
    ] {
        let (code, _, error) = host.verb(words);
        assert_eq!(code, 1, "{words:?}: {error}");
        assert!(error.contains(text), "{words:?}: {error}");
        let (code, out, _) = host.verb(&[words, &["--json"]].concat());
        let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, &answer["code"], &answer["schema"]), (1, &1.into(), &1.into()), "{words:?}: {out}");
    }
    host.lbx.kill().unwrap();
    for words in [
        &["drain", "web/vif0"] as &[&str],
        &["undrain", "web/vif0"],
        &["set", "weight", "web/vif0", "5"],
        &["set", "state", "web/vif0", "down"],
        &["reload"],
    ] {
        let (code, _, error) = host.verb(words);
        assert_eq!(code, 3, "{words:?}: {error}");
        assert!(error.contains("the daemon is not running"), "{words:?}: {error}");
    }
}

#[test]
fn why_flow_names_the_target_that_the_kernel_selects() {
    let host = Host::running(3);
    let client = &host.lab.client().ns;
    for (vip, port) in [(0, 80), (1, 8080)] {
        for family in FAMILIES {
            for source in 0..12u16 {
                let own = match family {
                    Family::V4 => host.lab.client().addr.v4.into(),
                    Family::V6 => host.lab.client().addr.v6.into(),
                };
                let (from, to) =
                    (SocketAddr::new(own, 20_000 + source), SocketAddr::new(ip(vip, family), port));
                let (from_text, to_text) = (from.to_string(), to.to_string());
                let words = ["why", "flow", "tcp", &from_text, &to_text];
                let predicted = host.json(&words);
                assert_eq!(
                    (&predicted["recorded"], &predicted["verdict"]),
                    (&false.into(), &"steered".into())
                );
                let answered = client
                    .run(|| {
                        let stream = socket::tcp_from(to, Some(from), Duration::from_secs(2)).unwrap();
                        let mut connection = http::Connection::over(stream).unwrap();
                        let answer = connection.request("GET", "/", b"", None).unwrap();
                        // While the connection is open its flow is recorded.
                        (answer.vm, host.json(&words))
                    })
                    .unwrap();
                let (vm, known) = answered;
                let number: usize = vm.trim_start_matches("vm").parse().unwrap();
                let target = predicted["target"].as_str().unwrap();
                assert!(target.contains(&format!("/vif{}", number - 1)), "{vm}: {predicted}");
                assert_eq!(
                    (&known["recorded"], &known["target"]),
                    (&true.into(), &predicted["target"]),
                    "{known}"
                );
                assert_eq!(known["slot"], predicted["slot"]);
            }
        }
    }
    let nobody = host.json(&["why", "flow", "udp", "10.77.0.1:1", "10.77.0.100:80"]);
    assert_eq!((&nobody["verdict"], &nobody["reason"]), (&"passed".into(), &"not_a_service".into()));
    // With every target down the answer is a reset, and why says so before it happens.
    for n in 0..3 {
        host.lbx.cli(&["set", "state", &format!("web/vif{n}"), "down"]).unwrap();
    }
    let rejected = host.json(&["why", "flow", "tcp", "10.77.0.1:9", "10.77.0.100:80"]);
    assert_eq!((&rejected["verdict"], &rejected["reason"]), (&"rejected".into(), &"no_target".into()));
    assert_eq!(host.get(0, 80, Family::V4), None);
    assert!(host.count("rejected_reset") > 0);
}

#[test]
fn overrides_are_shown_survive_a_restart_and_end() {
    let mut host = Host::running(2);
    host.lbx.cli(&["set", "weight", "web/vif0", "300"]).unwrap();
    host.lbx.cli(&["set", "state", "web/vif1", "draining"]).unwrap();
    for _ in 0..2 {
        let targets = host.json(&["targets", "--service", "web"]);
        let [first, second] = &targets["targets"].as_array().unwrap()[..] else { panic!("{targets}") };
        assert_eq!((&first["weight"], &first["weight_configured"]), (&300.into(), &100.into()));
        assert_eq!((&first["weight_override"], &second["state_override"]), (&true.into(), &true.into()));
        assert_eq!((&second["effective"], &second["by"]), (&"draining".into(), &"operator".into()));
        assert!(host.verb(&["targets"]).1.contains("300* of 100"));
        let weights = host.json(&["weights", "--service", "web"]);
        assert_eq!(
            (&weights["weights"][0]["share"], &weights["weights"][0]["overridden"]),
            (&1.0.into(), &true.into())
        );
        host.lbx.kill().unwrap();
        host.lbx.run().unwrap();
    }
    host.lbx.cli(&["set", "weight", "web/vif0", "--clear"]).unwrap();
    host.lbx.cli(&["undrain", "web/vif1"]).unwrap();
    let weights = host.json(&["weights", "--service", "web"]);
    let rows = weights["weights"].as_array().unwrap();
    assert!(rows.iter().all(|row| row["share"] == 0.5 && row["weight"] == 100), "{weights}");
    let slots: u64 = rows.iter().map(|row| row["slots"].as_u64().unwrap()).sum();
    assert_eq!(slots, weights["tables"][0]["size"].as_u64().unwrap());
    assert!(weights["tables"][0]["repair"]["moved"].as_u64().unwrap() > 0, "{weights}");
}

#[test]
fn drain_waits_for_the_last_flow_and_says_how_many_are_left() {
    let host = Host::running(1);
    let to = (ip(0, Family::V4), 80).into();
    let mut open =
        host.lab.client().ns.run(|| http::Connection::open(to, None, http::LIMIT).unwrap()).unwrap();
    assert_eq!(open.request("GET", "/", b"", None).unwrap().vm, "vm1");
    let (code, _, error) = host.verb(&["drain", "web/vif0", "--wait", "--timeout", "3s"]);
    assert_eq!(code, 4, "{error}");
    assert!(error.contains("web/vif0 still has 1 open flows"), "{error}");
    assert_eq!(open.request("GET", "/", b"", None).unwrap().vm, "vm1", "what is open goes on");
    let fitting =
        host.json(&["flows", "--target", "web/vif0", "--state", "established", "--client", "10.77.0.0/24"]);
    assert_eq!(fitting["flows"].as_array().unwrap().len(), 1, "{fitting}");
    for none in
        [["--client", "203.0.113.0/24"], ["--older", "1h"], ["--service", "api"], ["--state", "datagram"]]
    {
        let flows = host.json(&[&["flows", "--target", "web/vif0"], &none[..]].concat());
        assert_eq!(
            (&flows["flows"], &flows["more"]),
            (&serde_json::json!([]), &false.into()),
            "{none:?}: {flows}"
        );
    }
    drop(open);
    let begin = Instant::now();
    let (code, text, error) = host.verb(&["drain", "web/vif0", "--wait", "--timeout", "30s"]);
    assert_eq!(code, 0, "{error}");
    // The closed connection is recorded for ten seconds more, for its last packets.
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    let closed = host.json(&["flows", "--target", "web/vif0", "--state", "closed"]);
    assert!(!closed["flows"].as_array().unwrap().is_empty(), "{closed}");
    assert!(text.contains("has no open flows any more"), "{text}");
    host.lbx.cli(&["undrain", "web/vif0"]).unwrap();
    assert_eq!(host.get(0, 80, Family::V4).as_deref(), Some("vm1"));
}

#[test]
fn a_bad_config_is_told_in_full_and_never_replaces_a_good_one() {
    let host = Host::running(2);
    let bad =
        config(2).replace("port = 8080", "prot = 8080").replace("forward = \"dsr\"", "forward = \"drs\"");
    host.lbx.write_config(&bad).unwrap();
    for words in [&["check", "--offline"] as &[&str], &["check"], &["reload"]] {
        let (code, text, error) = host.verb(words);
        let all = text + &error;
        assert_eq!(code, 1, "{words:?}: {all}");
        for part in ["prot", "drs", "lbx-0.toml:", "hint: "] {
            assert!(all.contains(part), "{words:?} without {part}: {all}");
        }
    }
    let out = host.lbx.output(&["check", "--offline", "--json"]).unwrap();
    let checked: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(checked["ok"], false);
    let problems = checked["problems"].as_array().unwrap();
    assert!(problems.len() >= 2 && problems.iter().all(|p| p["line"].as_u64() > Some(0)), "{checked}");
    assert!(host.get(0, 80, Family::V4).is_some() && host.get(1, 8080, Family::V6).is_some());

    host.lbx.write_config(&config(1)).unwrap();
    let reload = host.json(&["reload"]);
    assert_eq!(reload["changes"].as_array().unwrap().len(), 2, "{reload}");
    assert_eq!(host.json(&["targets"])["targets"].as_array().unwrap().len(), 2);
    assert_eq!(host.json(&["reload"])["changes"], serde_json::json!([]));
}

#[test]
fn doctor_finds_a_lab_sound_and_says_what_is_not() {
    let host = Host::running(2);
    let (code, text, error) = host.verb(&["doctor"]);
    assert_eq!(code, 0, "{text}{error}");
    narrow(&["doctor"], &text);
    for check in [
        "attachment",
        "offloads",
        "rxvlan",
        "mtu",
        "fdb",
        "arp_ignore",
        "ip_forward",
        "btf",
        "bpffs",
        "delivery",
    ] {
        assert!(text.contains(check), "no {check} in {text}");
    }
    // A guest that answers for the VIP, and an interface that takes less than the uplink brings.
    let own = host.lab.vm("vm1").unwrap().ns.as_ref().unwrap();
    for conf in ["all", "eth0"] {
        own.sysctls(&[(&format!("net/ipv4/conf/{conf}/arp_ignore"), "0")]).unwrap();
    }
    host.tool("ip link set vif1 mtu 1400");
    let (code, out, _) = host.verb(&["doctor", "--json"]);
    assert_eq!(code, 1, "{out}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let of = |check: &str, subject: &str| {
        let all = report["checks"].as_array().unwrap().clone();
        all.into_iter().find(|one| one["check"] == check && one["subject"] == subject).unwrap()
    };
    let vip = of("arp_ignore", "10.77.0.100");
    assert_eq!(vip["level"], "fail", "{vip}");
    assert!(vip["text"].as_str().unwrap().contains("vif0") && !vip["hint"].is_null(), "{vip}");
    assert_eq!(of("mtu", "vif1")["level"], "warn");
    assert_eq!(of("mtu", "vif0")["level"], "ok");
}

#[test]
fn completions_and_version_need_nothing() {
    let host = Host::idle(1);
    for shell in ["bash", "zsh", "fish"] {
        assert!(host.lbx.cli(&["completions", shell]).unwrap().contains("undrain"));
    }
    assert_eq!(host.json(&["version"])["abi"], 1);
    assert!(host.lbx.cli(&["check", "--example"]).unwrap().contains("[[service]]"));
    assert!(host.lbx.cli(&["--help"]).unwrap().contains("Exit codes"));
}
