//! Migrations driven from the command line: what happens to the traffic of the VM in each phase.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use lbx_tests::guest::announce::mac_text;
use lbx_tests::guest::echo;
use lbx_tests::guest::net::device_index;
use lbx_tests::lab::client::load::Load;
use lbx_tests::lab::client::udp;
use lbx_tests::lab::config::{File, Service, stand_ins};
use lbx_tests::lab::vm::Family;
use lbx_tests::lab::{Lab, LabSpec, VmKind, addr, tools};
use lbx_tests::scenario::{Scenario, eventually, need_root, vip};
use lbx_user::migration::arrival::{Arrival, Herald};

const PATIENCE: Duration = Duration::from_secs(30);

fn start(n: usize, top: &str) -> Scenario {
    need_root();
    let services = vec![
        Service::dsr("web", addr::vip(0), "tcp", 80, stand_ins(n)),
        Service::dsr("udp", addr::vip(0), "udp", echo::PORT, stand_ins(n)),
    ];
    let file = File { top: top.into(), ..File::new(services) };
    let scenario = Scenario::start(LabSpec::one_host(n, VmKind::StandIn), &[file]).unwrap();
    scenario.wait_for(web()).unwrap();
    scenario
}

fn web() -> SocketAddr {
    (vip(0, Family::V4), 80).into()
}

fn flow(scenario: &Scenario) -> UdpSocket {
    let at = (vip(0, Family::V4), echo::PORT).into();
    scenario.client().run(|| udp::socket(at, None, Duration::from_millis(300))).unwrap().unwrap()
}

/// A UDP flow that a VM has, among as many as it takes to get one.
fn flow_of(scenario: &Scenario, vm: &str) -> UdpSocket {
    for _ in 0..100 {
        let flow = flow(scenario);
        if udp::ask(&flow, b"who").is_ok_and(|name| name == vm) {
            return flow;
        }
    }
    panic!("no flow came to {vm}; {}", scenario.story());
}

/// The VMs that answered new connections, none of which may fail.
fn served_by(scenario: &Scenario) -> BTreeSet<String> {
    let report = Load::new(web(), 100).run(scenario.client()).unwrap();
    assert_eq!(report.failed, 0, "{:?}\n{}", report.errors, scenario.story());
    report.connections.keys().cloned().collect()
}

fn tell(scenario: &Scenario, phase: &str, vm: &str) -> String {
    scenario.lbx().cli(&["migration", phase, vm]).unwrap_or_else(|e| panic!("{e:#}\n{}", scenario.story()))
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(ToOwned::to_owned).into()
}

fn state(scenario: &Scenario, target: &str) -> (String, String) {
    let row = scenario.target(0, target).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    (text(&row["effective"]), text(&row["by"]))
}

fn wait_state(scenario: &Scenario, target: &str, wanted: &str) {
    let ok = eventually(PATIENCE, || Ok(state(scenario, target).0 == wanted)).unwrap();
    assert!(ok, "{target} is {:?}, not {wanted}\n{}", state(scenario, target), scenario.story());
}

#[test]
fn every_phase_has_its_effect_and_a_cancelled_migration_none() {
    let rules = "[migration]\nslow_start = \"4s\"\nwatchdog = { stopped = \"10m\", resumed = \"10m\" }\n";
    let scenario = start(2, rules);
    let (known, other) = (flow_of(&scenario, "vm1"), flow_of(&scenario, "vm2"));

    tell(&scenario, "announce", "vif0");
    assert_eq!(state(&scenario, "web/vif0"), ("draining".into(), "migration".into()));
    assert_eq!(served_by(&scenario), set(["vm2"]));
    assert_eq!(udp::ask(&known, b"still").unwrap(), "vm1", "{}", scenario.story());
    let again = tell(&scenario, "announce", "vif0");
    assert!(again.contains("nothing changed"), "{again}");

    tell(&scenario, "transferring", "vif0");
    assert_eq!(udp::ask(&known, b"still").unwrap(), "vm1");
    tell(&scenario, "stopped", "vif0");
    for _ in 0..3 {
        assert!(udp::ask(&known, b"stopped").is_err(), "a stopped VM got a packet; {}", scenario.story());
    }
    assert_eq!(udp::ask(&other, b"else").unwrap(), "vm2");
    assert_eq!(served_by(&scenario), set(["vm2"]), "while it is stopped");
    let row = scenario.target(0, "udp/vif0").unwrap();
    assert_eq!(row["fallback"], "draining", "what it was before: {row}");
    assert!(row["counters"]["drops"].as_u64().unwrap() >= 3, "{row}");
    assert!(scenario.count(0, "blackholed").unwrap() >= 3);

    tell(&scenario, "cancelled", "vif0");
    assert_eq!(udp::ask(&known, b"back").unwrap(), "vm1", "restored at once; {}", scenario.story());
    assert_eq!(state(&scenario, "web/vif0").0, "active");
    assert_eq!(served_by(&scenario), set(["vm1", "vm2"]));
    let late = tell(&scenario, "failed", "vif0");
    assert!(late.contains("nothing changed"), "{late}");

    // Once more, to its end: the share grows back.
    for phase in ["announce", "stopped", "resumed"] {
        tell(&scenario, phase, "vif0");
    }
    assert_eq!(udp::ask(&known, b"resumed").unwrap(), "vm1");
    tell(&scenario, "done", "vif0");
    let weight = || {
        let row = scenario.target(0, "web/vif0").unwrap();
        (row["weight"].as_u64().unwrap(), row["weight_configured"].as_u64().unwrap())
    };
    let (first, configured) = weight();
    assert!(first < configured && first > 0, "{first} of {configured}\n{}", scenario.story());
    let grown = eventually(PATIENCE, || {
        let (weight, configured) = weight();
        Ok(weight == configured)
    });
    assert!(grown.unwrap(), "{:?}\n{}", weight(), scenario.story());

    let all = scenario.lbx().json(&["migrations"]).unwrap();
    let records = all["migrations"].as_array().unwrap();
    let phases: Vec<_> = records.iter().map(|one| one["phase"].as_str().unwrap()).collect();
    assert_eq!(phases, ["cancelled", "done"], "{all}");
    let events: Vec<_> =
        records[0]["events"].as_array().unwrap().iter().map(|e| e["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["announced", "transferring", "stopped", "cancelled", "failed"], "{all}");
    assert!(records[0]["stopped_ms"].as_f64().unwrap() > 0.0, "{all}");
    let text = scenario.lbx().cli(&["migrations", "-v"]).unwrap();
    assert!(text.contains("cancelled") && text.contains("in the maps after"), "{text}");
    let none = scenario.lbx().output(&["migration", "announce", "nobody"]).unwrap();
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("no target"), "{none:?}");
}

#[test]
fn udp_flows_of_a_drained_vm_have_a_deadline() {
    let scenario = start(2, "[migration]\nudp = \"2s\"\n");
    let (known, other) = (flow_of(&scenario, "vm1"), flow_of(&scenario, "vm2"));
    // Confirmed: before its second packet a flow is none of datagrams yet.
    assert_eq!(udp::ask(&known, b"again").unwrap(), "vm1");
    let announced = Instant::now();
    tell(&scenario, "announce", "vif0");
    // Busy all the time: it is not idleness that ends it.
    let gone = eventually(PATIENCE, || Ok(udp::ask(&known, b"still").is_ok_and(|vm| vm == "vm2"))).unwrap();
    assert!(gone, "{}", scenario.story());
    assert!(announced.elapsed() >= Duration::from_secs(2), "before its time: {:?}", announced.elapsed());
    assert_eq!(udp::ask(&other, b"else").unwrap(), "vm2");
    // What is cancelled afterwards moves no flow back.
    tell(&scenario, "cancelled", "vif0");
    assert_eq!(udp::ask(&known, b"stays").unwrap(), "vm2");

    // The last one keeps its flows.
    scenario.lbx().cli(&["drain", "udp/vif0"]).unwrap();
    tell(&scenario, "announce", "vif1");
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        assert_eq!(udp::ask(&known, b"mine").unwrap(), "vm2", "{}", scenario.story());
    }
    let told = scenario.lbx().log().matches("chosen anew").count();
    assert_eq!(told, 1, "{}", scenario.lbx().log());
}

#[test]
fn waiting_for_quiet_names_the_stragglers() {
    let scenario = start(2, "[timeouts]\nudp = \"2s\"\n");
    let known = flow_of(&scenario, "vm1");
    let wait = |timeout: &str| {
        scenario.lbx().output(&["migration", "announce", "vif0", "--wait", "--timeout", timeout]).unwrap()
    };
    udp::ask(&known, b"busy").unwrap();
    let out = wait("0");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(4), "{said}");
    assert!(said.contains("udp/vif0") && said.contains("open flows"), "{said}");
    // Nothing more is sent: quiet as soon as the last of its flows is forgotten.
    let out = wait("60");
    assert_eq!(out.status.code(), Some(0), "{out:?}\n{}", scenario.story());
    assert!(String::from_utf8_lossy(&out.stdout).contains("quiet"), "{out:?}");
}

#[test]
fn the_last_target_keeps_its_flows_and_a_dead_daemon_blackholes_nobody_for_long() {
    let mut scenario = start(1, "[migration]\nwatchdog = { stopped = \"3s\" }\n");
    let known = flow_of(&scenario, "vm1");
    let said = tell(&scenario, "announce", "vif0");
    assert!(said.contains("last one"), "{said}");
    assert_eq!(served_by(&scenario), set(["vm1"]));
    let notes = scenario.lbx().json(&["status"]).unwrap()["notes"].to_string();
    assert!(notes.contains("although its VM migrates"), "{notes}");

    tell(&scenario, "stopped", "vif0");
    assert!(udp::ask(&known, b"stopped").is_err());
    let stopped = Instant::now();
    scenario.lbx[0].kill().unwrap();
    // The kernel's own deadline: nobody renews it.
    while udp::ask(&known, b"hello").is_err() {
        assert!(stopped.elapsed() < PATIENCE, "traffic did not resume; {}", scenario.story());
    }
    assert!(stopped.elapsed() > Duration::from_secs(2), "the deadline was not kept: {:?}", stopped.elapsed());
    assert!(scenario.count(0, "blackhole_expired").unwrap() > 0);

    // The next daemon knows of it, and nobody says how it ended: here is a port, and nothing else is known.
    scenario.lbx[0].run().unwrap();
    wait_state(&scenario, "udp/vif0", "active");
    assert_eq!(udp::ask(&known, b"hello").unwrap(), "vm1");
    let all = scenario.lbx().json(&["migrations"]).unwrap();
    assert_eq!(all["migrations"][0]["phase"], "failed", "{all}");
    assert_eq!(served_by(&scenario), set(["vm1"]));
}

#[test]
fn a_restarted_daemon_goes_on_with_the_migration() {
    // However long a start takes here: nothing is looked into meanwhile.
    let mut scenario = start(2, "[migration]\nwatchdog = { stopped = \"10m\" }\n");
    let known = flow_of(&scenario, "vm1");
    tell(&scenario, "announce", "vif0");
    scenario.lbx[0].restart().unwrap();
    assert_eq!(state(&scenario, "web/vif0"), ("draining".into(), "migration".into()));
    assert_eq!(served_by(&scenario), set(["vm2"]));
    tell(&scenario, "stopped", "vif0");
    scenario.lbx[0].kill().unwrap();
    scenario.lbx[0].run().unwrap();
    wait_state(&scenario, "udp/vif0", "blackholed");
    assert!(udp::ask(&known, b"stopped").is_err());
    // Others' wishes stand beside migration's.
    scenario.lbx().cli(&["drain", "web/vif0"]).unwrap();
    tell(&scenario, "failed", "vif0");
    assert_eq!(udp::ask(&known, b"back").unwrap(), "vm1");
    assert_eq!(state(&scenario, "web/vif0"), ("draining".into(), "operator".into()));
    assert_eq!(state(&scenario, "udp/vif0").0, "active");
}

#[test]
fn bridge_and_segment_are_led_to_a_vm_that_arrives() {
    need_root();
    let lab = Lab::start(LabSpec::hosts(&[1, 0], VmKind::StandIn)).unwrap();
    let host = &lab.hosts[0].ns;
    let mac = [2, 0x77, 9, 0, 0, 1];
    let text = mac_text(mac);
    // Both have heard it elsewhere: the bridge behind its uplink, the upstream switch behind the other host.
    tools::bridge(host, &[format!("fdb replace {text} dev up0 master dynamic")]).unwrap();
    tools::bridge(&lab.net, &[format!("fdb replace {text} dev h1 master dynamic")]).unwrap();
    let announced = host.run(|| {
        let index = |dev| device_index(dev).unwrap();
        let arrival = Arrival { mac, port: index("vif0"), uplink: (index("up0"), 0) };
        Herald::open().map(|herald| herald.announce(&arrival))
    });
    announced.unwrap().unwrap();
    let known = tools::run(host.command("bridge").args(["fdb", "show", "br", "br0"])).unwrap();
    let of_vm: Vec<_> = known.lines().filter(|line| line.starts_with(&text)).collect();
    assert!(matches!(&of_vm[..], [one] if one.contains("dev vif0")), "{known}");
    let led = || Ok(lab.upstream_port_of(&text)?.as_deref() == Some("h0"));
    assert!(eventually(Duration::from_secs(10), led).unwrap(), "{:?}", lab.upstream_fdb());
}
