//! Live migration of a QEMU guest between two hosts, and what a client sees of it.

use std::time::Duration;

use lbx_tests::guest::announce::mac_text;
use lbx_tests::guest::echo;
use lbx_tests::lab::client::load::Load;
use lbx_tests::lab::client::long::Long;
use lbx_tests::lab::config::{File, Service, guests};
use lbx_tests::lab::migrate::{Options, Outcome};
use lbx_tests::lab::vm::Family;
use lbx_tests::lab::{Lab, LabSpec, Lbx, VmKind, addr};
use lbx_tests::scenario::{FAMILIES, Scenario, eventually, need_root, vip};

/// Where the upstream switch thinks the guest is.
fn is_behind(lab: &Lab, port: &str) -> bool {
    let mac = lab.vms[0].mac_text();
    let there = || Ok(lab.upstream_port_of(&mac)?.as_deref() == Some(port));
    eventually(Duration::from_secs(20), there).unwrap()
}

#[test]
fn connections_survive_on_plain_bridges() {
    need_root();
    let mut lab = Lab::start(LabSpec::hosts(&[1, 0], VmKind::Guest)).unwrap();
    let client = lab.client().ns.clone();
    let long = Long {
        limit: Duration::from_secs(30),
        ..Long::new((lab.vms[0].ip(Family::V4), echo::PORT).into(), 4)
    };
    let running = long.start(&client).unwrap();

    // A migration that is called off leaves everything as it was.
    let slow = Options { bandwidth: 1 << 20, ..Options::default() };
    let mut migration = lab.prepare_migration("vm1", 1, slow).unwrap();
    migration.start().unwrap();
    migration.cancel().unwrap();
    assert_eq!(migration.wait(Duration::from_secs(20)).unwrap(), Outcome::Cancelled);
    drop(migration);
    assert!(is_behind(&lab, "h0"));

    for (host, uplink) in [(1, "h1"), (0, "h0")] {
        let before = running.so_far().frames;
        let times = lab.migrate("vm1", host).unwrap();
        eprintln!("to host {host}: {times:?}, paused {:?}", times.pause());
        assert!(times.begun <= times.active && times.active <= times.stopped, "{times:?}");
        assert!(times.stopped < times.resumed && times.stopped < times.completed, "{times:?}");
        assert_eq!(lab.vms[0].host, host);
        // The destination announced the guest.
        assert!(is_behind(&lab, uplink));
        let goes_on = || Ok(running.so_far().frames > before + 40);
        assert!(eventually(Duration::from_secs(20), goes_on).unwrap(), "{:?}", running.so_far());
    }
    assert_eq!(lab.vms[0].port, "tap0", "back on the tap it was made with");

    // Between two taps of one host.
    lab.migrate_with("vm1", 0, Options { unix: true, ..Options::default() }).unwrap();
    assert_eq!(lab.vms[0].port, "tap-vm1");
    running.stop().unwrap().check(4).unwrap();
}

/// Targets by name, so that a host uses a guest that comes to it.
fn services(lab: &Lab) -> Vec<Service> {
    let targets = guests(lab, &[1, 1]);
    vec![
        Service::dsr("web", addr::vip(0), "tcp", 80, targets.clone()),
        Service::dsr("echo", addr::vip(0), "tcp", echo::PORT, targets),
    ]
}

#[test]
fn connections_through_a_vip_follow_the_guest() {
    need_root();
    let lab = Lab::start(LabSpec::hosts(&[2, 0], VmKind::Guest)).unwrap();
    let file = File::of_guests(services(&lab));
    let lbx = vec![Lbx::start(&lab, 0, &file.text()).unwrap()];
    let mut scenario = Scenario { lbx, lab };
    for family in FAMILIES {
        scenario.wait_for((vip(0, family), 80).into()).unwrap();
    }
    let both = || {
        let load = Load { sources: scenario.sources(), ..Load::new((vip(0, Family::V4), 80).into(), 20) };
        Ok(load.run(scenario.client())?.connections.len() == 2)
    };
    assert!(eventually(Duration::from_secs(20), both).unwrap(), "{}", scenario.story());
    let long = FAMILIES.map(|family| {
        let long = Long::new((vip(0, family), echo::PORT).into(), 8);
        let long = Long { sources: scenario.sources(), limit: Duration::from_mins(1), ..long };
        long.start(scenario.client()).unwrap()
    });
    for running in &long {
        assert!(running.so_far().opened.contains_key("vm1"), "{:?}", running.so_far());
    }
    let wish = |scenario: &Scenario, words: &[&str]| {
        for target in ["web/vm1", "echo/vm1"] {
            scenario.lbx().cli(&[&["set", "state", target], words].concat()).unwrap();
        }
    };
    wish(&scenario, &["draining"]);
    let times = scenario.lab.migrate("vm1", 1).unwrap();
    wish(&scenario, &["moved"]);
    eprintln!("paused {:?}", times.pause());
    assert!(is_behind(&scenario.lab, "h1"));
    let before: Vec<u64> = long.iter().map(|running| running.so_far().frames).collect();
    for (running, before) in long.iter().zip(before) {
        let goes_on = || Ok(running.so_far().frames > before + 100);
        assert!(eventually(Duration::from_mins(1), goes_on).unwrap(), "{}", scenario.story());
    }
    assert!(scenario.count(0, "moved_followed").unwrap() > 0, "{}", scenario.story());
    let report = Load::new((vip(0, Family::V4), 80).into(), 20).run(scenario.client()).unwrap();
    assert_eq!((report.failed, report.connections.get("vm2")), (0, Some(&20)), "{report:?}");
    // Nothing that was forwarded moved the client.
    let client = mac_text(addr::mac(0x0c, 0, 0));
    assert_eq!(scenario.lab.upstream_port_of(&client).unwrap().as_deref(), Some("c0"));

    scenario.lab.migrate("vm1", 0).unwrap();
    wish(&scenario, &["--clear"]);
    let both = || {
        let load = Load { sources: scenario.sources(), ..Load::new((vip(0, Family::V4), 80).into(), 20) };
        Ok(load.run(scenario.client())?.connections.len() == 2)
    };
    assert!(eventually(Duration::from_secs(20), both).unwrap(), "{}", scenario.story());
    for running in long {
        running.stop().unwrap().check(8).unwrap();
    }
}
