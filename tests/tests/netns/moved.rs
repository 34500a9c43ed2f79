//! A VM that leaves for another host while clients talk to it through lbx: its connections follow it.
//!
//! The VM is a stand-in, and moves by taking its end of a cable out of one host and putting it into the other.

use std::net::UdpSocket;
use std::time::Duration;

use lbx_tests::guest::announce::mac_text;
use lbx_tests::guest::echo;
use lbx_tests::lab::client::load::Load;
use lbx_tests::lab::client::long::Long;
use lbx_tests::lab::config::{File, Service, stand_ins};
use lbx_tests::lab::vm::Family;
use lbx_tests::lab::{LabSpec, VmKind, addr, tools};
use lbx_tests::scenario::sniff::Sniffer;
use lbx_tests::scenario::{FAMILIES, Scenario, eventually, need_root, vip};

const WEB: u16 = 80;

/// Takes the cable of `vif0` out of one host's bridge and puts it into another's; the VM says something there.
fn carry(scenario: &Scenario, from: usize, to: usize) {
    let (here, there) = (&scenario.lab.hosts[from].ns, &scenario.lab.hosts[to].ns);
    tools::ip(here, &[format!("link set vif0 nomaster netns {}", there.name())]).unwrap();
    tools::ip(there, &["link set vif0 master br0 up".into()]).unwrap();
    speak(scenario);
}

/// Lets the segment learn where VM 1 is, as the announcements of a hypervisor do.
fn speak(scenario: &Scenario) {
    let (vm, client) = (scenario.lab.vm("vm1").unwrap(), scenario.lab.client().addr.v4);
    let said = vm.ns.as_ref().unwrap().run(|| UdpSocket::bind("0.0.0.0:0")?.send_to(b"here", (client, 9)));
    said.unwrap().unwrap();
}

fn behind(scenario: &Scenario, mac: &str) -> Option<String> {
    scenario.lab.upstream_port_of(mac).unwrap()
}

fn connections_follow(xdp: &'static str) {
    need_root();
    let targets = stand_ins(2);
    let services = vec![
        Service::dsr("web", addr::vip(0), "tcp", WEB, targets.clone()),
        Service::dsr("echo", addr::vip(0), "tcp", echo::PORT, targets),
    ];
    let scenario =
        Scenario::start(LabSpec::hosts(&[2, 0], VmKind::StandIn), &[File::new(services).xdp(xdp)]).unwrap();
    for family in FAMILIES {
        scenario.wait_for((vip(0, family), WEB).into()).unwrap();
    }
    let long = FAMILIES.map(|family| {
        let long = Long::new((vip(0, family), echo::PORT).into(), 20);
        let long = Long { sources: scenario.sources(), limit: Duration::from_secs(30), ..long };
        long.start(scenario.client()).unwrap()
    });
    let opened = |n: usize| long[n].so_far().opened.get("vm1").copied().unwrap_or(0);
    assert!(opened(0) > 0 && opened(1) > 0, "each has some of the connections");
    let vm_mac = scenario.lab.vm("vm1").unwrap().mac_text();
    let client_mac = mac_text(addr::mac(0x0c, 0, 0));
    assert_eq!(behind(&scenario, &client_mac).as_deref(), Some("c0"));

    let sniffer = Sniffer::start(&scenario.lab.net, "h0").unwrap();
    for service in ["web", "echo"] {
        scenario.lbx().cli(&["set", "state", &format!("{service}/vif0"), "moved"]).unwrap();
    }
    carry(&scenario, 0, 1);
    // A frame that was still on its way out of the old port teaches the segment wrong: announcements are repeated.
    let heard = || {
        speak(&scenario);
        Ok(behind(&scenario, &vm_mac).as_deref() == Some("h1"))
    };
    assert!(eventually(Duration::from_secs(30), heard).unwrap(), "it was heard there");
    // Every connection goes on, those of the VM that moved too.
    let before: Vec<u64> = long.iter().map(|running| running.so_far().frames).collect();
    for (running, before) in long.iter().zip(before) {
        let goes_on = || Ok(running.so_far().frames > before + 200);
        assert!(eventually(Duration::from_secs(30), goes_on).unwrap(), "{}", scenario.story());
    }
    assert!(scenario.count(0, "moved_followed").unwrap() > 0, "{}", scenario.story());
    // New ones go to the other.
    for family in FAMILIES {
        let report = Load::new((vip(0, family), WEB).into(), 50).run(scenario.client()).unwrap();
        assert_eq!((report.failed, report.connections.len()), (0, 1), "{report:?}");
        assert_eq!(report.connections.get("vm2"), Some(&50), "{report:?}");
    }
    // What was forwarded left with the uplink's own MAC: the segment knows the client where it is.
    assert_eq!(behind(&scenario, &client_mac).as_deref(), Some("c0"));
    let frames = sniffer.stop().unwrap();
    let forwarded = frames.iter().filter(|f| !f.outgoing && f.to() == addr::mac(0x01, 0, 1));
    let forwarded: Vec<_> = forwarded.map(|f| f.from()).collect();
    assert!(!forwarded.is_empty());
    assert!(forwarded.iter().all(|from| *from == addr::mac(0x0a, 0, 0)), "{forwarded:02x?}");
    let client = addr::mac(0x0c, 0, 0);
    assert!(!frames.iter().any(|f| !f.outgoing && f.from() == client), "the client's MAC behind our port");

    // Back again: the same connections, and new ones for both.
    carry(&scenario, 1, 0);
    for service in ["web", "echo"] {
        scenario.lbx().cli(&["set", "state", &format!("{service}/vif0"), "--clear"]).unwrap();
    }
    let serves = || {
        let load = Load { sources: scenario.sources(), ..Load::new((vip(0, Family::V4), WEB).into(), 40) };
        Ok(load.run(scenario.client())?.connections.contains_key("vm1"))
    };
    assert!(eventually(Duration::from_secs(20), serves).unwrap(), "{}", scenario.story());
    for running in long {
        running.stop().unwrap().check(20).unwrap();
    }
}

#[test]
fn connections_follow_by_tc() {
    connections_follow("auto");
}

#[test]
fn connections_follow_by_xdp() {
    connections_follow("native");
}
