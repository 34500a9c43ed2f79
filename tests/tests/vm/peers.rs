//! A guest migrates from one host to another; a third host, which all traffic comes through, knows of it from them.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use lbx_tests::guest::announce::mac_text;
use lbx_tests::guest::echo;
use lbx_tests::lab::client::load::Load;
use lbx_tests::lab::client::udp;
use lbx_tests::lab::config::{File, Service, Target};
use lbx_tests::lab::migrate::{Options, Outcome};
use lbx_tests::lab::vm::Family;
use lbx_tests::lab::{HostSpec, Lab, LabSpec, Lbx, VmKind, VmSpec, addr};
use lbx_tests::scenario::peers::{certificates, name, top, until};
use lbx_tests::scenario::{eventually, need_root, vip};
use serde_json::Value;

/// What the bystander calls the guest.
fn remote(lab: &Lab, service: &str) -> String {
    format!("{service}/{}", mac_text(lab.vms[0].mac))
}

/// Every host has the same services and both VMs; the guest is known by its name where it may be, else by its MAC.
fn config(lab: &Lab, host: usize, dir: &std::path::Path) -> String {
    let (guest, other) = (&lab.vms[0], &lab.vms[1]);
    let targets = || {
        let guest = if host == 2 { Target::remote(guest) } else { Target::guest(guest) };
        let other = if host == 0 { Target::local(&other.port, other.addr) } else { Target::remote(other) };
        vec![guest, other]
    };
    let services = vec![
        Service::dsr("web", addr::vip(0), "tcp", 80, targets()),
        Service::dsr("udp", addr::vip(0), "udp", echo::PORT, targets()),
    ];
    File { top: top(lab, host, &name(host), dir), ..File::new(services) }.text()
}

fn state(lbx: &Lbx, target: &str) -> String {
    let all = lbx.json(&["targets"]).unwrap();
    let row = all["targets"].as_array().unwrap().iter().find(|row| row["name"] == target).cloned();
    row.and_then(|row| row["effective"].as_str().map(str::to_owned)).unwrap_or_default()
}

fn record(lbx: &Lbx) -> Value {
    let all = lbx.json(&["migrations"]).unwrap();
    all["migrations"].as_array().unwrap().last().cloned().unwrap_or_default()
}

/// The peers of a host that say they have the guest.
fn who_has(lbx: &Lbx, vm: &str) -> BTreeSet<String> {
    let peers = lbx.json(&["peers"]).unwrap();
    let has = |peer: &&Value| peer["vms"].as_array().unwrap().iter().any(|one| one["name"] == vm);
    let rows = peers["peers"].as_array().unwrap();
    rows.iter().filter(has).map(|peer| peer["name"].as_str().unwrap().to_owned()).collect()
}

/// Who answers new connections, none of which may fail.
fn served_by(lab: &Lab) -> BTreeSet<String> {
    let report = Load::new((vip(0, Family::V4), 80).into(), 60).run(&lab.client().ns).unwrap();
    assert_eq!(report.failed, 0, "{:?}", report.errors);
    report.connections.keys().cloned().collect()
}

/// A UDP flow that the guest has.
fn flow_of(lab: &Lab, vm: &str) -> UdpSocket {
    let at = (vip(0, Family::V4), echo::PORT).into();
    for _ in 0..100 {
        let flow =
            lab.client().ns.run(|| udp::socket(at, None, Duration::from_millis(500))).unwrap().unwrap();
        if udp::ask(&flow, b"who").is_ok_and(|name| name == vm) {
            return flow;
        }
    }
    panic!("no flow came to {vm}");
}

#[test]
fn a_bystander_follows_a_guest_from_host_to_host() {
    need_root();
    let hosts = vec![
        HostSpec { vms: vec![VmSpec::guest("vm1"), VmSpec::stand_in("vm2")], ..HostSpec::default() },
        HostSpec::default(),
        HostSpec::default(),
    ];
    let mut lab = Lab::start(LabSpec { hosts, ..LabSpec::hosts(&[], VmKind::Guest) }).unwrap();
    let dir = lab.record.dir().join("ca");
    let mut lbx: Vec<Lbx> =
        (0..3).map(|host| Lbx::new(&lab, host, &config(&lab, host, &dir)).unwrap()).collect();
    certificates(&lbx[0], &dir, &["kvm1", "kvm2", "kvm3"]).unwrap();
    // The bystander is first, so it is the one that answers for the VIP.
    lbx[2].run().unwrap();
    let served = || Ok(Load::new((vip(0, Family::V4), 80).into(), 1).run(&lab.client().ns)?.failed == 0);
    assert!(eventually(Duration::from_secs(30), served).unwrap(), "{}", lbx[2].log());
    lbx[0].run().unwrap();
    lbx[1].run().unwrap();
    let up = |lbx: &Lbx| {
        let peers = lbx.json(&["peers"]).unwrap();
        peers["peers"].as_array().unwrap().iter().all(|peer| peer["state"] == "up")
    };
    until(&lbx, "all know each other", || lbx.iter().all(up));
    until(&lbx, "who has it", || who_has(&lbx[2], "vm1") == ["kvm1".to_owned()].into());
    let (web, vms) = (remote(&lab, "web"), ["vm1".to_owned(), "vm2".to_owned()]);
    assert_eq!(served_by(&lab), vms.clone().into());
    let known = flow_of(&lab, "vm1");

    lbx[0].cli(&["migration", "announce", "vm1", "--to", "kvm2"]).unwrap();
    until(&lbx, "drained", || state(&lbx[2], &web) == "draining");
    assert_eq!(served_by(&lab), [vms[1].clone()].into(), "new connections, through the bystander");
    assert_eq!(udp::ask(&known, b"still").unwrap(), "vm1");

    let mut migration = lab.prepare_migration("vm1", 1, Options::default()).unwrap();
    migration.start().unwrap();
    lbx[0].cli(&["migration", "transferring", "vm1"]).unwrap();
    assert_eq!(migration.wait(Duration::from_mins(1)).unwrap(), Outcome::Completed);
    for verb in ["resumed", "done"] {
        let words = ["migration", verb, "vm1", "--where", "there", "--host", "kvm2"];
        lbx[0].cli(&words).unwrap();
    }
    drop(migration.finish(&mut lab).unwrap());
    until(&lbx, "active again", || state(&lbx[2], &web) == "active");
    until(&lbx, "here", || state(&lbx[1], "web/vm1") == "active");
    until(&lbx, "who has it now", || who_has(&lbx[2], "vm1") == ["kvm2".to_owned()].into());
    assert_ne!(state(&lbx[0], "web/vm1"), "active", "it is not on the first host any more");

    let (source, destination, bystander) = (record(&lbx[0]), record(&lbx[1]), record(&lbx[2]));
    for (record, role, host) in [
        (&source, "source", "kvm2"),
        (&destination, "destination", "kvm1"),
        (&bystander, "bystander", "kvm2"),
    ] {
        let said = ["role", "phase", "host"].map(|key| record[key].as_str().unwrap_or_default());
        assert_eq!(said, [role, "done", host], "{record}");
    }
    // The flow has followed its VM, and new ones come to it again.
    let asked = Instant::now();
    while udp::ask(&known, b"moved").ok().as_deref() != Some("vm1") {
        assert!(asked.elapsed() < Duration::from_secs(20), "{}", lbx[2].log());
    }
    until(&lbx, "its share", || served_by(&lab) == vms.clone().into());
}
