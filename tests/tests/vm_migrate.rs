//! Live migration of a QEMU guest between two hosts, and what a client sees of it.

use std::time::Duration;

use lbx_tests::guest::echo;
use lbx_tests::lab::client::long::Long;
use lbx_tests::lab::migrate::{Options, Outcome};
use lbx_tests::lab::vm::Family;
use lbx_tests::lab::{Lab, LabSpec, VmKind};
use lbx_tests::scenario::{eventually, need_root};

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
