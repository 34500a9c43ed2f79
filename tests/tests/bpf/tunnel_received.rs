//! The tunnel of moved flows: what comes out of those of other hosts.

use std::net::IpAddr;

use lbx_common::addresses::AddressSpec;
use lbx_common::reason::Reason;
use lbx_common::service::address_flags;
use lbx_common::tunnel::{TunnelWord, VmKey, VmPort};
use lbx_tests::bpf::mutate::Rng;
use lbx_tests::bpf::tunnel::{HOP, PORT, RECEIVED, VNI, hosts, moved, place, received, to_vm};
use lbx_tests::bpf::world::{
    FAMILIES, SWITCH_MAC, UPLINK, UPLINK_MAC, packet, tcp_packet, udp_packet, vm_mac,
};
use lbx_tests::bpf::{Bench, Hook, Verdict, World};
use lbx_tests::packets::tcp::{ACK, PSH};
use lbx_tests::packets::vxlan::Vxlan;
use lbx_tests::packets::{Body, Fragment, Packet};

const HOOKS: [Hook; 2] = [Hook::Xdp(UPLINK), Hook::Tc(UPLINK)];

/// A host with an end of tunnels, that knows one peer and VM 1.
fn host() -> Bench {
    let bench = Bench::ready(World::dsr());
    let mut addresses = bench.world.addresses();
    for v4 in FAMILIES {
        let [own, _] = hosts(v4);
        addresses.push(AddressSpec {
            addr: own.into(),
            flags: address_flags::TUNNEL,
            ..AddressSpec::default()
        });
    }
    bench.maps().write_addresses(&addresses).unwrap();
    let maps = bench.maps();
    maps.write_tunnel(TunnelWord::new(VNI, PORT)).unwrap();
    let peers = FAMILIES.map(|v4| (hosts(v4)[1].into(), 0));
    assert!(maps.write_tunnel_peers(&peers).unwrap());
    let vms = [(VmKey { mac: vm_mac(1), switch: 0 }, VmPort::by_the_bridge(7))];
    assert!(maps.write_tunnel_vms(&vms).unwrap());
    bench
}

/// Frames as peers send them, addressed to VM 1.
fn insides() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for v4 in FAMILIES {
        let error = Body::Icmp { kind: if v4 { 3 } else { 2 }, code: 4, rest: [0; 4], data: vec![1; 60] };
        let fragment = Some(Fragment { id: 5, offset: 8, len: 400, more: true });
        let long = Body::Udp { ports: (5, 53), checksum: true, data: vec![3; 900] };
        let packets = [
            tcp_packet(v4, 1000, PSH | ACK),
            udp_packet(v4, 1000),
            packet(v4, error),
            Packet { fragment, ..packet(v4, long) },
            tcp_packet(v4, 1000, ACK),
        ];
        all.extend(packets.map(|packet| Packet { eth_dst: vm_mac(1), ..packet }.build()));
    }
    all
}

#[test]
fn what_peers_send_comes_out() {
    let mut bench = host();
    for hook in HOOKS {
        for outer in FAMILIES {
            for inside in insides() {
                for to in [UPLINK_MAC, SWITCH_MAC] {
                    let around = Vxlan { macs: (HOP, to), ..received(outer) };
                    let ran = bench.run(hook, &around.around(&inside));
                    ran.is("taken out", Verdict::Pass, &inside, &RECEIVED);
                    let tagged = Vxlan { tag: Some(7), ..around };
                    let ran = bench.run(hook, &tagged.around(&inside));
                    ran.is("from a tagged segment", Verdict::Pass, &inside, &RECEIVED);
                }
                // A tag inside says the VLAN, and stays.
                let mut with_tag = inside.clone();
                with_tag.splice(12..12, [0x81, 0, 0, 10]);
                let ran = bench.run(hook, &received(outer).around(&with_tag));
                // At tc it is beside the frame, as everywhere in the kernel, where a test run does not show it.
                let shown = if matches!(hook, Hook::Tc(_)) { &inside } else { &with_tag };
                ran.is("tagged inside", Verdict::Pass, shown, &RECEIVED);
                // The Ethernet frame outside may be longer than what it carries.
                let mut padded = received(outer).around(&inside);
                padded.extend([0; 9]);
                let ran = bench.run(hook, &padded);
                assert_eq!(ran.counted.get("tunnel_received"), Some(&1));
                assert_eq!(ran.frame[..inside.len()], inside);
            }
        }
    }
}

#[test]
fn frames_go_straight_into_the_port_of_a_vm_that_is_on_its_way() {
    let mut bench = host();
    let straight = VmPort::straight(bench.ifindex(1), 1);
    assert!(bench.maps().write_tunnel_vms(&[(VmKey { mac: vm_mac(1), switch: 0 }, straight)]).unwrap());
    for hook in HOOKS {
        for outer in FAMILIES {
            for inside in insides() {
                let ran = bench.run(hook, &received(outer).around(&inside));
                ran.is("into the port", Verdict::Redirect, &inside, &RECEIVED);
            }
            // Which tag it needs there is the bridge's business.
            let mut with_tag = insides().remove(0);
            with_tag.splice(12..12, [0x81, 0, 0, 10]);
            let ran = bench.run(hook, &received(outer).around(&with_tag));
            assert_eq!(ran.verdict, Verdict::Pass, "{:?}", ran.counted);
        }
    }
}

#[test]
fn what_is_sent_is_what_comes_out() {
    let (mut here, mut there) = (Bench::ready(World::dsr()), None);
    let port = here.flow_to(HOOKS[0], true, 1, 1);
    for outer in FAMILIES {
        moved(&here, 1, &place(&here, 1, outer));
        let frame = tcp_packet(true, port, PSH | ACK).build();
        let mut wrapped = here.run(HOOKS[0], &frame).frame;
        // On the way a router: MACs, and the ends as the other host sees them.
        wrapped[..6].copy_from_slice(&UPLINK_MAC);
        let (at, len) = if outer { (26, 4) } else { (22, 16) };
        let (src, dst) = (wrapped[at..at + len].to_vec(), wrapped[at + len..at + 2 * len].to_vec());
        wrapped[at..at + len].copy_from_slice(&dst);
        wrapped[at + len..at + 2 * len].copy_from_slice(&src);
        let there = there.get_or_insert_with(host);
        there.run(HOOKS[0], &wrapped).is("out again", Verdict::Pass, &to_vm(&frame, 1), &RECEIVED);
    }
}

#[test]
fn from_others_nothing_comes_out() {
    let mut bench = host();
    let inside = &insides()[0];
    for hook in HOOKS {
        for outer in FAMILIES {
            let good = received(outer);
            let stranger: IpAddr = if outer { "10.2.0.3" } else { "2001:db8:2::3" }.parse().unwrap();
            let frame = Vxlan { src: stranger, ..good.clone() }.around(inside);
            bench.run(hook, &frame).passed("not listed", &frame, &[Reason::TunnelNotAPeer]);
            let frame = Vxlan { vni: VNI + 1, ..good.clone() }.around(inside);
            bench.run(hook, &frame).passed("another network", &frame, &[Reason::TunnelOtherNetwork]);
            let frame = Vxlan { ports: (50_000, 4790), ..good.clone() }.around(inside);
            bench.run(hook, &frame).passed("another port", &frame, &[]);
            let frame = Vxlan { macs: (HOP, vm_mac(2)), ..good.clone() }.around(inside);
            bench.run(hook, &frame).passed("to another machine's MAC", &frame, &[]);
            let elsewhere: IpAddr = if outer { "10.1.0.9" } else { "2001:db8:1::9" }.parse().unwrap();
            let frame = Vxlan { dst: elsewhere, ..good.clone() }.around(inside);
            bench.run(hook, &frame).passed("to another address", &frame, &[]);
            // What else peers send to this address.
            let [own, peer] = hosts(outer);
            let body =
                Body::Tcp { ports: (4789, PORT), seq: 1, ack: 2, flags: ACK, options: vec![], data: vec![] };
            let frame = Packet::new((HOP, UPLINK_MAC), peer, own, body).build();
            bench.run(hook, &frame).passed("a connection", &frame, &[]);

            let frame = Vxlan { flags: 0, ..good.clone() }.around(inside);
            bench.run(hook, &frame).dropped("no network said", &[Reason::TunnelMalformed]);
            let frame = good.around(&inside[..13]);
            bench.run(hook, &frame).dropped("too short", &[Reason::TunnelMalformed]);
            let mut arp = inside.clone();
            arp[12..14].copy_from_slice(&[8, 6]);
            bench.run(hook, &good.around(&arp)).dropped("no IP inside", &[Reason::TunnelMalformed]);
            let frame = good.around(&to_vm(inside, 2));
            bench.run(hook, &frame).dropped("no VM here", &[Reason::TunnelNoVm]);
            let mut broadcast = inside.clone();
            broadcast[..6].fill(0xff);
            bench.run(hook, &good.around(&broadcast)).dropped("broadcast", &[Reason::TunnelNoVm]);
        }
        let whole = Vxlan { ports: (50_000, PORT), ..received(true) }.around(inside);
        let mut first = whole.clone();
        first[20] = 0x20;
        bench.run(hook, &first).dropped("first fragment", &[Reason::TunnelMalformed]);
        let mut later = whole.clone();
        later[21] = 2;
        bench.run(hook, &later).passed("later fragment", &later, &[]);
    }
    // Nobody is listed any more.
    bench.maps().write_tunnel_peers(&[]).unwrap();
    let frame = received(true).around(inside);
    bench.run(HOOKS[0], &frame).passed("no peers", &frame, &[Reason::TunnelNotAPeer]);
    bench.maps().write_tunnel(TunnelWord::default()).unwrap();
    bench.run(HOOKS[0], &frame).passed("no tunnel", &frame, &[]);
}

#[test]
fn congestion_is_told() {
    let mut bench = host();
    for hook in HOOKS {
        for v4 in FAMILIES {
            for (outer, inner) in [(3, 0), (3, 1), (3, 2), (3, 3), (1, 2), (2, 1), (0, 1), (1, 0)] {
                let mut inside = Packet { eth_dst: vm_mac(1), ..tcp_packet(v4, 9, ACK) }.build();
                set_ecn(&mut inside, v4, inner);
                let around = Vxlan { class: outer, ..received(v4) };
                let ran = bench.run(hook, &around.around(&inside));
                let expected = match (outer, inner) {
                    (3, 0) => {
                        ran.dropped("cannot be marked", &[Reason::TunnelCongested]);
                        continue;
                    }
                    (3, _) => 3,
                    (1, 2) => 1,
                    (_, inner) => inner,
                };
                set_ecn(&mut inside, v4, expected);
                ran.is("marked", Verdict::Pass, &inside, &RECEIVED);
                ran.parsed();
            }
        }
    }
}

/// Writes an ECN field and the header checksum that goes with it, by subtraction.
fn set_ecn(frame: &mut [u8], v4: bool, ecn: u8) {
    if !v4 {
        frame[15] = frame[15] & !0x30 | ecn << 4;
        return;
    }
    frame[15] = frame[15] & !3 | ecn;
    frame[24..26].fill(0);
    let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&frame[14..34]).ones_complement();
    frame[24..26].copy_from_slice(&sum.to_ne_bytes());
}

#[test]
fn observed_or_bypassed_it_stays_as_it_is() {
    let mut bench = host();
    let frame = received(true).around(&insides()[0]);
    bench.maps().set_observe(true).unwrap();
    for hook in HOOKS {
        bench.run(hook, &frame).passed("observed", &frame, &[Reason::Observed]);
    }
    bench.maps().set_observe(false).unwrap();
    bench.maps().set_bypass(true).unwrap();
    for hook in HOOKS {
        bench.run(hook, &frame).passed("bypassed", &frame, &[]);
    }
}

#[test]
fn mutated_packets_come_out_only_as_frames_for_the_vm() {
    let mut bench = host();
    let mut rng = Rng(0x7a11);
    for hook in HOOKS {
        let mut out = 0;
        for n in 0..20_000 {
            let insides = insides();
            let inside = &insides[n % insides.len()];
            let mut frame = received(rng.one_in(2)).around(inside);
            for _ in 0..rng.below(4) {
                let at = rng.below(frame.len().min(110));
                frame[at] ^= 1 << rng.below(8);
            }
            if rng.one_in(4) {
                frame.truncate(14 + rng.below(frame.len() - 14));
            }
            let Ok((verdict, after)) = bench.runner(hook).run(&frame, 0) else { continue };
            match verdict {
                Verdict::Pass if after == frame => {}
                Verdict::Pass => {
                    assert_eq!(after[..6], vm_mac(1), "for the VM");
                    assert!(after.len() < frame.len());
                    out += 1;
                }
                Verdict::Drop => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(out > 2000, "{out} came out");
    }
}
