//! Somebody else owns a VIP: found also when it only answers those who ask, and forgotten when it goes.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use lbx_tests::lab::tools;
use lbx_tests::lab::vm::Family;
use lbx_tests::scenario::host::{FAMILIES, Host, ip};

/// Checks come every 20 to 25 s; whoever has the higher MAC is defended against once.
const FOUND: Duration = Duration::from_secs(45);

/// Whether lbx answers for a VIP: nothing in its notes says that it does not.
fn silent_about(host: &Host, vip: IpAddr) -> Option<String> {
    let status = host.json(&["status"]);
    let notes = status["notes"].as_array().unwrap().iter().filter_map(|note| note.as_str());
    let text = format!("not answering for {vip}");
    notes.into_iter().find(|note| note.contains(&text)).map(ToOwned::to_owned)
}

fn until(host: &Host, what: &str, limit: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "{what}: {}", host.lbx.log());
        std::thread::sleep(Duration::from_millis(200));
    }
    start.elapsed()
}

#[test]
fn an_owner_that_only_answers_is_found_and_taken_over_from_when_it_goes() {
    let host = Host::running(2);
    let owner = host.lab.vm("vm2").unwrap();
    let ns = owner.ns.as_ref().unwrap();
    let addresses = FAMILIES.map(|family| ip(0, family));
    // It says nothing by itself: no announcement, no duplicate address detection; and answers whoever asks.
    let line = |verb: &str, addr: IpAddr| match addr {
        IpAddr::V4(_) => format!("addr {verb} {addr}/32 dev eth0"),
        IpAddr::V6(_) => format!("addr {verb} {addr}/128 dev eth0 nodad"),
    };
    tools::ip(ns, &addresses.map(|addr| line("add", addr))).unwrap();
    for addr in addresses {
        let took = until(&host, "not found", FOUND, || silent_about(&host, addr).is_some());
        let note = silent_about(&host, addr).unwrap();
        assert!(note.contains(&owner.mac_text()), "{note}");
        eprintln!("{addr}: another owner was found after {took:?}");
    }
    // Only the answering stops: the service, and the other VIPs, go on.
    for family in FAMILIES {
        assert_eq!(silent_about(&host, ip(1, family)), None);
        assert!(host.get(1, 8080, family).is_some());
    }
    for addr in addresses {
        tools::ip(ns, &[line("del", addr).replace(" nodad", "")]).unwrap();
    }
    for addr in addresses {
        let took = until(&host, "not answered again", Duration::from_secs(20), || {
            silent_about(&host, addr).is_none()
        });
        eprintln!("{addr}: answered for again after {took:?}");
    }
    for family in [Family::V4, Family::V6] {
        assert!(host.get(0, 80, family).is_some(), "{}", host.lbx.log());
    }
}
