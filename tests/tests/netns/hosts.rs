//! Two hosts with one VIP: exactly one answers for it, the other takes over, and no frame goes round in circles.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use lbx_tests::guest::announce::mac_text;
use lbx_tests::lab::client::load::Load;
use lbx_tests::lab::config::{File, Service, Target};
use lbx_tests::lab::vm::Family;
use lbx_tests::lab::{LabSpec, VmKind, addr, tools};
use lbx_tests::scenario::sniff::{Frame, Sniffer};
use lbx_tests::scenario::{FAMILIES, Scenario, eventually, need_root, vip};

const PORT: u16 = 80;

/// Two hosts with two stand-ins each; every host balances over all four, two of them across the uplink.
fn start() -> Scenario {
    need_root();
    let lab = lbx_tests::lab::Lab::start(LabSpec::hosts(&[2, 2], VmKind::StandIn)).unwrap();
    let file = |host: usize| {
        let targets =
            lab.vms.iter().enumerate().map(|(n, vm)| {
                if vm.host == host { Target::stand_in(host, n % 2) } else { Target::remote(vm) }
            });
        let service = Service::dsr("web", addr::vip(0), "tcp", PORT, targets.collect());
        File::new(vec![Service { health: true, ..service }])
    };
    let texts = [file(0).text(), file(1).text()];
    let lbx = (0..2).map(|host| lbx_tests::lab::Lbx::start(&lab, host, &texts[host]).unwrap()).collect();
    let scenario = Scenario { lbx, lab };
    for family in FAMILIES {
        scenario.wait_for((vip(0, family), PORT).into()).unwrap();
    }
    scenario
}

/// Who claimed the VIPs in frames that reached the client: answers and announcements, both families.
fn claims(frames: &[Frame]) -> BTreeSet<[u8; 6]> {
    let (v4, v6) = (addr::vip(0).v4.octets(), addr::vip(0).v6.octets());
    let incoming = frames.iter().filter(|frame| !frame.outgoing);
    incoming.filter_map(|f| f.arp_claim(v4).map(|(mac, _)| mac).or_else(|| f.nd_claim(v6))).collect()
}

/// Makes the client ask again.
fn forget_neighbours(scenario: &Scenario) {
    tools::ip(scenario.client(), &["neigh flush all".into()]).unwrap();
}

fn bridge_mac(host: usize) -> [u8; 6] {
    addr::mac(0x0b, host, 0)
}

#[test]
fn exactly_one_host_answers_and_the_other_takes_over() {
    let scenario = start();
    // Probing and the first announcements are over.
    std::thread::sleep(Duration::from_secs(4));
    let sniffer = Sniffer::start(scenario.client(), "eth0").unwrap();
    for _ in 0..10 {
        forget_neighbours(&scenario);
        for family in FAMILIES {
            scenario.get((vip(0, family), PORT).into(), Duration::from_secs(2)).unwrap();
        }
    }
    let frames = sniffer.stop().unwrap();
    let answering = claims(&frames);
    assert_eq!(answering.len(), 1, "{answering:?} answer; {}", scenario.story());
    let replies = frames.iter().filter(|frame| !frame.outgoing);
    let replies = replies.filter(|f| f.arp_claim(addr::vip(0).v4.octets()).is_some_and(|(_, reply)| reply));
    assert_eq!(replies.count(), 10, "one reply to each question");
    let owner = (0..2).find(|&host| answering.contains(&bridge_mac(host))).unwrap();
    let other = 1 - owner;

    // The owner's cable is cut.
    let sniffer = Sniffer::start(scenario.client(), "eth0").unwrap();
    let cut = Instant::now();
    tools::ip(&scenario.lab.net, &[format!("link set h{owner} down")]).unwrap();
    let took_over = eventually(Duration::from_secs(15), || {
        let frames = sniffer.so_far();
        let from = |family: Family| {
            let (v4, v6) = (addr::vip(0).v4.octets(), addr::vip(0).v6.octets());
            frames.iter().any(|f| match family {
                Family::V4 => f.arp_claim(v4).is_some_and(|(mac, _)| mac == bridge_mac(other)),
                Family::V6 => f.nd_claim(v6) == Some(bridge_mac(other)),
            })
        };
        Ok(FAMILIES.into_iter().all(from))
    });
    assert!(took_over.unwrap(), "nobody announced itself; {}", scenario.story());
    eprintln!("announced {:?} after the cut", cut.elapsed());
    // Announcements move the client without a question of its own; the targets behind the cut are found dead.
    let local: BTreeSet<_> =
        scenario.lab.vms.iter().filter(|vm| vm.host == other).map(|vm| vm.spec.name.clone()).collect();
    for family in FAMILIES {
        scenario.wait_for((vip(0, family), PORT).into()).unwrap();
    }
    let works = eventually(Duration::from_secs(5), || {
        let at = (vip(0, Family::V4), PORT).into();
        let load = Load { threads: 4, limit: Duration::from_millis(500), ..Load::new(at, 40) };
        Ok(load.run(scenario.client())?.failed == 0)
    });
    assert!(works.unwrap(), "{}", scenario.story());
    for family in FAMILIES {
        let report = Load::new((vip(0, family), PORT).into(), 100).run(scenario.client()).unwrap();
        assert_eq!(report.failed, 0, "{:?}\n{}", report.errors, scenario.story());
        assert_eq!(report.connections.keys().cloned().collect::<BTreeSet<_>>(), local);
    }

    // The cable is back: still exactly one of them answers.
    tools::ip(&scenario.lab.net, &[format!("link set h{owner} up")]).unwrap();
    std::thread::sleep(Duration::from_secs(5));
    let sniffer = Sniffer::start(scenario.client(), "eth0").unwrap();
    for _ in 0..5 {
        forget_neighbours(&scenario);
        scenario.get((vip(0, Family::V4), PORT).into(), Duration::from_secs(2)).unwrap();
    }
    let answering = claims(&sniffer.stop().unwrap());
    assert_eq!(answering.len(), 1, "{answering:?} answer; {}", scenario.story());
}

#[test]
fn no_frame_crosses_an_uplink_more_than_twice() {
    let scenario = start();
    let client_mac = mac_text(addr::mac(0x0c, 0, 0));
    let sniffers: Vec<_> =
        scenario.lab.hosts.iter().map(|host| Sniffer::start(&host.ns, "up0").unwrap()).collect();
    let load = Load { sources: scenario.sources(), ..Load::new((vip(0, Family::V4), PORT).into(), 400) };
    let report = load.run(scenario.client()).unwrap();
    assert_eq!(report.failed, 0, "{:?}\n{}", report.errors, scenario.story());
    assert_eq!(report.connections.len(), 4, "all four VMs, on both hosts: {:?}", report.connections);
    assert_eq!(scenario.lab.upstream_port_of(&client_mac).unwrap().as_deref(), Some("c0"));

    let mut twice = 0;
    for (host, sniffer) in sniffers.into_iter().enumerate() {
        let mut seen: BTreeMap<Vec<u8>, Vec<Frame>> = BTreeMap::new();
        for frame in sniffer.stop().unwrap() {
            if let Some(segment) = frame.segment() {
                seen.entry(segment).or_default().push(frame);
            }
        }
        assert!(seen.len() > 1000, "host {host}: {} different segments", seen.len());
        for (segment, frames) in seen {
            assert!(frames.len() <= 2, "host {host}: {segment:02x?} crossed {} times", frames.len());
            // A second crossing is the hand-over to the other host, from the uplink's own MAC.
            if let [first, second] = frames.as_slice() {
                twice += 1;
                assert!(!first.outgoing && second.outgoing, "host {host}: not in and out again");
                assert_eq!(second.from(), addr::mac(0x0a, host, 0));
            }
        }
    }
    assert!(twice > 0, "nothing was handed over to the other host");
}
