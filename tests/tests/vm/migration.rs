//! What QEMU's monitor says of a guest is followed at once: stopped and resumed by hand, and migrated.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use lbx_tests::guest::echo;
use lbx_tests::lab::client::udp;
use lbx_tests::lab::config::{File, Service, Target};
use lbx_tests::lab::offload::Offloads;
use lbx_tests::lab::vm::Family;
use lbx_tests::lab::{Lab, LabSpec, Lbx, VmKind, VmSpec, addr};
use lbx_tests::scenario::{need_root, vip};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_mins(1);

fn row(lbx: &Lbx, target: &str) -> Value {
    let all = lbx.json(&["targets"]).unwrap();
    let rows = all["targets"].as_array().unwrap();
    rows.iter().find(|row| row["name"] == target).cloned().unwrap_or_default()
}

fn until(lbx: &Lbx, what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        let migrations = lbx.cli(&["migrations", "-v"]);
        assert!(start.elapsed() < PATIENCE, "{what}\n{migrations:?}\n{}", lbx.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn flow(lab: &Lab) -> UdpSocket {
    let at: SocketAddr = (vip(0, Family::V4), echo::PORT).into();
    let ask = || udp::socket(at, None, Duration::from_millis(500)).unwrap();
    lab.client().ns.run(ask).unwrap()
}

/// A UDP flow that vm1 has.
fn flow_of_vm1(lab: &Lab, lbx: &Lbx) -> UdpSocket {
    let start = Instant::now();
    loop {
        let flow = flow(lab);
        if udp::ask(&flow, b"who").is_ok_and(|name| name == "vm1") {
            return flow;
        }
        assert!(start.elapsed() < PATIENCE, "no flow came to vm1\n{}", lbx.log());
    }
}

fn last_events(lbx: &Lbx) -> Vec<Value> {
    let all = lbx.json(&["migrations"]).unwrap();
    let last = all["migrations"].as_array().unwrap().last().cloned().unwrap_or_default();
    last["events"].as_array().cloned().unwrap_or_default()
}

#[test]
fn a_guest_that_is_stopped_is_blackholed_at_once_and_back_when_it_resumes() {
    need_root();
    let mut spec = LabSpec::one_host(1, VmKind::Guest);
    spec.hosts[0].vms.push(VmSpec::stand_in("vm2"));
    spec.clients[0].offloads = Offloads::sender(false);
    let lab = Lab::start(spec).unwrap();
    let qmp = lab.vms[0].qmp_path_for_lbx().display().to_string().replace("vm1", "{vm}");
    let targets = vec![Target::guest(&lab.vms[0]), Target::stand_in(0, 1)];
    let service = Service::dsr("udp", addr::vip(0), "udp", echo::PORT, targets);
    let file = File {
        top: format!("[measure]\nqmp = \"{qmp}\"\n[migration]\nwatchdog = {{ stopped = \"2s\" }}\n"),
        ..File::of_guests(vec![service])
    };
    let mut lbx = Lbx::start(&lab, 0, &file.text()).unwrap();
    let known = flow_of_vm1(&lab, &lbx);
    let mut monitor = lab.vms[0].qmp().unwrap();
    let heard = || row(&lbx, "udp/vm1")["effective"] == "active";
    until(&lbx, "vm1 is active", heard);
    // Its monitor is heard from the moment lbx has asked what the VM is doing.
    until(&lbx, "its monitor is heard", || {
        let load = lbx.json(&["load", "--vm", "vm1"]).unwrap();
        let metrics = load["vms"][0]["metrics"].as_array().cloned().unwrap_or_default();
        metrics.iter().any(|metric| metric["name"] == "vm_qmp" && !metric["value"].is_null())
    });

    monitor.execute("stop", &json!({})).unwrap();
    until(&lbx, "blackholed", || row(&lbx, "udp/vm1")["state"] == "blackholed");
    assert!(udp::ask(&known, b"stopped").is_err());
    assert!(row(&lbx, "udp/vm1")["counters"]["drops"].as_u64().unwrap() > 0, "{}", row(&lbx, "udp/vm1"));
    monitor.execute("cont", &json!({})).unwrap();
    until(&lbx, "active again", || row(&lbx, "udp/vm1")["effective"] == "active");
    assert_eq!(udp::ask(&known, b"back").unwrap(), "vm1", "{}", lbx.log());
    let events = last_events(&lbx);
    let told: Vec<_> =
        events.iter().map(|e| (e["event"].as_str().unwrap(), e["source"].as_str().unwrap())).collect();
    assert_eq!(told, [("stopped", "qmp"), ("resumed", "qmp")], "{events:?}");
    for event in &events {
        let micros = |key: &str| event[key].as_u64().unwrap();
        eprintln!(
            "{}: heard after {} us, written after {} us",
            event["event"],
            micros("lag_us"),
            micros("written_us")
        );
    }

    // A long pause: whoever waits is better served elsewhere. And a daemon that starts meanwhile finds out.
    monitor.execute("stop", &json!({})).unwrap();
    until(&lbx, "down", || row(&lbx, "udp/vm1")["effective"] == "down");
    assert_eq!(udp::ask(&known, b"else").unwrap(), "vm2", "{}", lbx.log());
    lbx.kill().unwrap();
    monitor.execute("cont", &json!({})).unwrap();
    lbx.run().unwrap();
    until(&lbx, "active after all", || row(&lbx, "udp/vm1")["effective"] == "active");
    assert!(!lbx.log().contains("panicked"), "{}", lbx.log());
}

/// The last migration of vm1 on a host, if there is one.
fn migration(lbx: &Lbx) -> Value {
    let all = lbx.json(&["migrations"]).unwrap();
    all["migrations"].as_array().unwrap().last().cloned().unwrap_or_default()
}

#[test]
fn a_live_migration_is_followed_by_its_source() {
    need_root();
    let mut spec = LabSpec::hosts(&[1, 0], VmKind::Guest);
    spec.hosts[0].vms.push(VmSpec::stand_in("vm2"));
    spec.clients[0].offloads = Offloads::sender(false);
    let mut lab = Lab::start(spec).unwrap();
    let qmp = lab.vms[0].qmp_path_for_lbx().display().to_string().replace("vm1", "{vm}");
    let top = format!("[measure]\nqmp = \"{qmp}\"\n[migration]\nslow_start = \"2s\"\n");
    let file = |targets: Vec<Target>| {
        let service = Service::dsr("udp", addr::vip(0), "udp", echo::PORT, targets);
        File { top: top.clone(), ..File::of_guests(vec![service]) }.text()
    };
    let source =
        Lbx::start(&lab, 0, &file(vec![Target::guest(&lab.vms[0]), Target::stand_in(0, 1)])).unwrap();
    until(&source, "vm1 is active", || row(&source, "udp/vm1")["effective"] == "active");
    let timeline = lab.migrate("vm1", 1).unwrap();
    until(&source, "moved", || row(&source, "udp/vm1")["effective"] == "moved");
    let record = migration(&source);
    let events: Vec<_> =
        record["events"].as_array().unwrap().iter().map(|e| e["event"].as_str().unwrap()).collect();
    assert_eq!(record["role"], "source", "{record}");
    for phase in ["transferring", "stopped", "handed_over"] {
        assert!(events.contains(&phase), "{record}\n{timeline:?}");
    }
}
