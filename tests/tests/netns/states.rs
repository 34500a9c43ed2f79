//! Target states, weights and the daemon's life under real traffic.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use lbx_tests::guest::echo;
use lbx_tests::lab::client::load::Load;
use lbx_tests::lab::client::long::Long;
use lbx_tests::lab::client::{PerVm, http, udp, worst_deviation};
use lbx_tests::lab::config::{File, Service, Target, stand_ins};
use lbx_tests::lab::vm::Family;
use lbx_tests::lab::{LabSpec, VmKind, addr, bpffs, tools};
use lbx_tests::scenario::{FAMILIES, Scenario, need_root, vip};

/// How long the kernel keeps a blackhole that nobody renews.
const DEADLINE: Duration = Duration::from_secs(5);

fn services(targets: &[Target], no_target: &'static str) -> Vec<Service> {
    [
        Service::dsr("web", addr::vip(0), "tcp", 80, targets.to_vec()),
        Service::dsr("echo", addr::vip(0), "tcp", echo::PORT, targets.to_vec()),
        Service::dsr("udp", addr::vip(0), "udp", echo::PORT, targets.to_vec()),
        Service::nat("nat-web", addr::vip(1), "tcp", 8080, 80, targets.to_vec()),
        Service::nat("nat-echo", addr::vip(1), "tcp", 7007, echo::PORT, targets.to_vec()),
    ]
    .map(|service| Service { no_target, ..service })
    .to_vec()
}

fn start(n: usize, file: &File) -> Scenario {
    need_root();
    let scenario =
        Scenario::start(LabSpec::one_host(n, VmKind::StandIn), std::slice::from_ref(file)).unwrap();
    for (k, port) in [(0, 80), (1, 8080)] {
        for family in FAMILIES {
            scenario.wait_for((vip(k, family), port).into()).unwrap();
        }
    }
    scenario
}

/// The names of those VMs that a count knows.
fn names(counts: &PerVm) -> BTreeSet<&str> {
    counts.keys().map(String::as_str).collect()
}

/// The full names of a stand-in as a target of every service.
fn everywhere(nic: &str) -> Vec<String> {
    let plain = ["web", "echo", "udp"].map(|service| format!("{service}/{nic}"));
    plain.into_iter().chain([format!("nat-web/{nic}:80"), format!("nat-echo/{nic}:7")]).collect()
}

fn set_state(scenario: &Scenario, nic: &str, state: &str) {
    for target in everywhere(nic) {
        scenario.lbx().cli(&["set", "state", &target, state]).unwrap();
    }
}

#[test]
fn weights_are_shares_of_new_connections() {
    let targets: Vec<_> = stand_ins(3).into_iter().zip([1, 2, 3]).map(|(t, w)| t.weight(w)).collect();
    let scenario = start(3, &File::new(services(&targets, "reject")));
    let weights = BTreeMap::from([("vm1".to_owned(), 1), ("vm2".to_owned(), 2), ("vm3".to_owned(), 3)]);
    // By chance alone a share of 6000 connections is off by 2 points once in 300 times, one of 14,000 never: each service
    // is held to five standard deviations, all of a family together to 2 points.
    for family in FAMILIES {
        let mut all = PerVm::new();
        for (k, port, n, most) in [(0, 80, 8000, 2.8), (1, 8080, 6000, 3.2)] {
            let load = Load { sources: scenario.sources(), ..Load::new((vip(k, family), port).into(), n) };
            let report = load.run(scenario.client()).unwrap();
            assert_eq!(report.failed, 0, "{:?}\n{}", report.errors, scenario.story());
            let off = worst_deviation(&report.connections, &weights);
            eprintln!(
                "{family:?} port {port}: {:?} in {:?}, {off:.2} points",
                report.connections, report.took
            );
            assert!(off < most, "{family:?} port {port}: {:?}", report.connections);
            for (vm, count) in report.connections {
                *all.entry(vm).or_default() += count;
            }
        }
        let off = worst_deviation(&all, &weights);
        assert!(off < 2.0, "{family:?}: {all:?}, {off:.2} points");
    }
}

#[test]
fn a_drained_target_keeps_what_it_has_and_gets_nothing_new() {
    let scenario = start(2, &File::new(services(&stand_ins(2), "reject")));
    let servers = [(0, echo::PORT), (1, 7007)];
    let long: Vec<_> = servers
        .iter()
        .flat_map(|&(k, port)| FAMILIES.map(|family| (vip(k, family), port).into()))
        .map(|at| Long::new(at, 12).start(scenario.client()).unwrap())
        .collect();
    for target in everywhere("vif0") {
        scenario.lbx().cli(&["drain", &target]).unwrap();
    }
    for (k, port) in [(0, 80), (1, 8080)] {
        for family in FAMILIES {
            let report = Load::new((vip(k, family), port).into(), 200).run(scenario.client()).unwrap();
            assert_eq!(
                (report.failed, names(&report.connections)),
                (0, BTreeSet::from(["vm2"])),
                "{report:?}"
            );
        }
    }
    std::thread::sleep(Duration::from_secs(1));
    for running in long {
        let open = running.so_far().open;
        assert!(open.get("vm1").is_some_and(|n| *n > 0), "none was left on the drained one: {open:?}");
        running.stop().unwrap().check(12).unwrap_or_else(|e| panic!("{e:#}\n{}", scenario.story()));
    }
    for target in everywhere("vif0") {
        scenario.lbx().cli(&["undrain", &target]).unwrap();
    }
    let report = Load::new((vip(0, Family::V4), 80).into(), 200).run(scenario.client()).unwrap();
    assert_eq!(
        (report.failed, names(&report.connections)),
        (0, BTreeSet::from(["vm1", "vm2"])),
        "{report:?}"
    );
}

#[test]
fn a_blackhole_ends_by_itself_when_the_daemon_was_killed() {
    let mut scenario = start(1, &File::new(services(&stand_ins(1), "reject")));
    let at = (vip(0, Family::V4), echo::PORT).into();
    let flow = scenario.client().run(|| udp::socket(at, None, Duration::from_millis(200))).unwrap().unwrap();
    assert_eq!(udp::ask(&flow, b"before").unwrap(), "vm1");
    set_state(&scenario, "vif0", "blackholed");
    let begin = Instant::now();
    // The daemon renews it for as long as it lives: longer than one deadline.
    while begin.elapsed() < DEADLINE + Duration::from_millis(1500) {
        assert!(udp::ask(&flow, b"hello").is_err(), "a blackholed target answered; {}", scenario.story());
    }
    assert!(scenario.count(0, "blackholed").unwrap() > 20, "{}", scenario.story());
    assert_eq!(scenario.count(0, "blackhole_expired").unwrap(), 0);

    // New connections of both ways of forwarding: nobody refuses them, their SYNs come again.
    let opening: Vec<_> = [(0, 80), (1, 8080)]
        .iter()
        .flat_map(|&(k, port)| FAMILIES.map(|family| (vip(k, family), port).into()))
        .map(|at| Load { threads: 1, limit: DEADLINE * 3, ..Load::new(at, 1) }.start(scenario.client()))
        .collect();
    std::thread::sleep(Duration::from_secs(1));
    scenario.lbx[0].kill().unwrap();
    let killed = Instant::now();
    let resumed = loop {
        if udp::ask(&flow, b"hello").is_ok() {
            break killed.elapsed();
        }
        assert!(killed.elapsed() < DEADLINE * 2, "traffic did not resume; {}", scenario.story());
    };
    eprintln!("traffic resumed {resumed:?} after the kill");
    // The last renewal was at most a second or so before the kill.
    assert!(resumed > DEADLINE / 2, "the deadline was not kept: {resumed:?}");
    assert!(resumed < DEADLINE + Duration::from_secs(2), "{resumed:?}");
    assert!(scenario.count(0, "blackhole_expired").unwrap() > 0, "{}", scenario.story());
    for load in opening {
        let report = load.finish().unwrap();
        assert_eq!((report.failed, report.total()), (0, 1), "{:?}\n{}", report.errors, scenario.story());
        assert!(report.took > Duration::from_secs(1), "it was served while blackholed: {report:?}");
    }
    assert_eq!(scenario.count(0, "rejected_reset").unwrap(), 0);
}

#[test]
fn flows_of_a_target_that_is_down_are_selected_anew() {
    let scenario = start(2, &File::new(services(&stand_ins(2), "reject")));
    for family in FAMILIES {
        let at = (vip(0, family), echo::PORT).into();
        let limit = Duration::from_secs(1);
        let sockets: Vec<_> = scenario
            .client()
            .run(|| (0..10).map(|_| udp::socket(at, None, limit).unwrap()).collect())
            .unwrap();
        let before: Vec<_> = sockets.iter().map(|socket| udp::ask(socket, b"before").unwrap()).collect();
        assert_eq!(before.iter().collect::<BTreeSet<_>>().len(), 2, "{before:?}");
        set_state(&scenario, "vif0", "down");
        for socket in &sockets {
            assert_eq!(udp::ask(socket, b"after").unwrap(), "vm2", "{}", scenario.story());
        }
        assert!(scenario.count(0, "flow_reselected").unwrap() > 0, "{}", scenario.story());
        let report = Load::new((vip(1, family), 8080).into(), 100).run(scenario.client()).unwrap();
        assert_eq!((report.failed, names(&report.connections)), (0, BTreeSet::from(["vm2"])), "{report:?}");
        for target in everywhere("vif0") {
            scenario.lbx().cli(&["set", "state", &target, "--clear"]).unwrap();
        }
    }
}

#[test]
fn without_a_target_it_is_rejected_at_once_or_dropped() {
    let scenario = start(1, &File::new(services(&stand_ins(1), "reject")));
    let all = || {
        let tcp = [(0, 80), (1, 8080)].map(|(k, port)| FAMILIES.map(|family| (vip(k, family), port).into()));
        tcp.into_iter().flatten().collect::<Vec<std::net::SocketAddr>>()
    };
    set_state(&scenario, "vif0", "down");
    for at in all() {
        let begin = Instant::now();
        let error = scenario.get(at, Duration::from_secs(3)).unwrap_err();
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        assert_eq!(
            kind,
            Some(std::io::ErrorKind::ConnectionRefused),
            "{at}: {error:#}\n{}",
            scenario.story()
        );
        // A SYN that nobody answers is sent again after a second.
        assert!(begin.elapsed() < Duration::from_millis(900), "{at}: {:?}", begin.elapsed());
    }
    for family in FAMILIES {
        let at = (vip(0, family), echo::PORT).into();
        let error = scenario.client().run(|| {
            let socket = udp::socket(at, None, Duration::from_secs(2)).unwrap();
            udp::ask(&socket, b"anybody").unwrap_err()
        });
        let error = format!("{:#}", error.unwrap());
        assert!(error.contains("refused") || error.contains("nreachable"), "{error}\n{}", scenario.story());
    }

    scenario.lbx().write_config(&File::new(services(&stand_ins(1), "drop")).text()).unwrap();
    scenario.lbx().cli(&["reload"]).unwrap();
    for at in all() {
        let begin = Instant::now();
        let error = scenario.get(at, Duration::from_millis(700)).unwrap_err();
        assert!(begin.elapsed() >= Duration::from_millis(700), "{at}: {error:#}");
    }
    assert!(scenario.count(0, "no_target").unwrap() > 0);
    // Which packets that were, the daemon can tell.
    let stats = scenario.lbx().json(&["stats", "--drops"]).unwrap();
    let recent = stats["recent"].as_array().unwrap();
    let at = |event: &&serde_json::Value| event["vip"] == vip(1, Family::V6).to_string();
    let one = recent.iter().rfind(at).unwrap_or_else(|| panic!("{stats}"));
    let seen = ["reason", "kind", "service", "protocol", "port"].map(|field| one[field].as_str().unwrap());
    assert_eq!(seen, ["no_target", "drop", "nat-web", "tcp", "up0"]);
    assert_eq!((&one["vip_port"], &one["tcp_flags"]), (&8080.into(), &2.into()), "{one}");
    let text = scenario.lbx().cli(&["stats", "--drops"]).unwrap();
    assert!(text.contains("some of the last packets") && text.contains("up0"), "{text}");
}

/// Open connections and new ones go on while the daemon is killed, started, stopped, reloaded and restarted.
#[test]
fn the_daemons_life_is_no_concern_of_the_traffic() {
    let file = |weight: u32| {
        let targets: Vec<_> = stand_ins(2).into_iter().zip([100, weight]).map(|(t, w)| t.weight(w)).collect();
        File::new(services(&targets, "reject"))
    };
    let mut scenario = start(2, &file(100));
    let servers = [(0, echo::PORT), (1, 7007)];
    let long: Vec<_> = servers
        .iter()
        .zip(FAMILIES)
        .map(|(&(k, port), family)| (vip(k, family), port).into())
        .map(|at| Long::new(at, 25).start(scenario.client()).unwrap())
        .collect();
    let loads: Vec<_> = [(0, 80), (1, 8080)]
        .iter()
        .flat_map(|&(k, port)| FAMILIES.map(|family| (vip(k, family), port).into()))
        .map(|at| Load {
            threads: 2,
            sources: scenario.sources(),
            pause: Duration::from_millis(5),
            requests_per_connection: 3,
            ..Load::endless(at)
        })
        .map(|load| load.start(scenario.client()))
        .collect();
    let moment = || std::thread::sleep(Duration::from_millis(500));

    moment();
    scenario.lbx[0].write_config(&file(50).text()).unwrap();
    scenario.lbx[0].cli(&["reload"]).unwrap();
    moment();
    scenario.lbx[0].write_config("nonsense = true\n").unwrap();
    assert!(scenario.lbx[0].cli(&["reload"]).is_err(), "a bad file was taken");
    scenario.lbx[0].write_config(&file(200).text()).unwrap();
    scenario.lbx[0].kill().unwrap();
    moment();
    scenario.lbx[0].run().unwrap();
    moment();
    assert!(scenario.lbx[0].stop().unwrap().success());
    moment();
    scenario.lbx[0].run().unwrap();
    scenario.lbx[0].restart().unwrap();
    moment();

    for load in loads {
        let report = load.stop().unwrap();
        assert_eq!((report.failed, report.moved), (0, 0), "{:?}\n{}", report.errors, scenario.story());
        assert!(report.total() > 500, "{} requests in {:?}", report.total(), report.took);
    }
    for running in long {
        running.stop().unwrap().check(25).unwrap_or_else(|e| panic!("{e:#}\n{}", scenario.story()));
    }

    assert!(scenario.lbx[0].stop().unwrap().success());
    scenario.lbx[0].cli(&["detach"]).unwrap();
    let host = &scenario.lab.host().ns;
    assert!(!scenario.lbx[0].pin_dir().exists(), "{} is still there", scenario.lbx[0].pin_dir().display());
    let links = tools::run(host.command("ip").args(["-d", "link"])).unwrap();
    assert!(!links.contains("xdp"), "{links}");
    let qdiscs = tools::run(host.command("tc").args(["qdisc"])).unwrap();
    assert!(!qdiscs.contains("clsact"), "{qdiscs}");
    let net = tools::run(host.command("bpftool").args(["net"])).unwrap();
    assert!(!net.contains("tcx/") && !net.contains("lbx"), "{net}");
    // As a plain bridge again: nobody answers for the VIP, and the VMs themselves are reached.
    tools::ip(scenario.client(), &["neigh flush all".into()]).unwrap();
    assert!(scenario.get((vip(0, Family::V4), 80).into(), Duration::from_millis(500)).is_err());
    let at = scenario.lab.vms[0].http(Family::V4);
    let answer = scenario.client().run(|| http::request(at, "GET", "/", b"")).unwrap().unwrap();
    assert_eq!(answer.vm, "vm1");
    let (id, run) = (scenario.lab.id().to_owned(), scenario.lbx[0].run_dir());
    drop(scenario);
    let pins = std::fs::read_dir(bpffs::PATH).into_iter().flatten().flatten();
    let mut pins = pins.map(|entry| entry.file_name().to_string_lossy().into_owned());
    assert_eq!(pins.find(|name| name.contains(&id)), None);
    assert!(!run.exists(), "{} is still there", run.display());
}
