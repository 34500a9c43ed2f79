//! The tunnel of moved flows: what goes into it.

use lbx_common::elsewhere::Elsewhere;
use lbx_common::reason::Reason;
use lbx_common::target::State;
use lbx_tests::bpf::tunnel::{SENT, in_tunnel, moved, place, sent, to_vm};
use lbx_tests::bpf::world::{FAMILIES, UPLINK, error_about, packet, tcp_packet, udp_packet};
use lbx_tests::bpf::{Bench, Hook, Verdict, World};
use lbx_tests::packets::tcp::{ACK, PSH};
use lbx_tests::packets::vxlan::Vxlan;
use lbx_tests::packets::{Body, Fragment, Packet, VLAN};

const HOOKS: [Hook; 2] = [Hook::Xdp(UPLINK), Hook::Tc(UPLINK)];

#[test]
fn known_flows_go_into_the_tunnel() {
    let mut bench = Bench::ready(World::dsr());
    let mut ports = std::collections::BTreeSet::new();
    for (hook, first) in HOOKS.into_iter().zip([1000, 2000]) {
        for (v4, outer) in [(true, true), (true, false), (false, true), (false, false)] {
            let first = first + 200 * u16::from(v4) + 400 * u16::from(outer);
            let port = bench.flow_to(hook, v4, 2, first);
            let opened = |port: &u16| bench.run(hook, &udp_packet(v4, *port).build()).vm() == 2;
            let datagram = (first..first + 200).find(opened).unwrap();
            bench.settle();
            moved(&bench, 2, &place(&bench, 2, outer));
            let around = sent(outer);
            let mut spread = Vec::new();
            for flags in [ACK, PSH | ACK] {
                let frame = tcp_packet(v4, port, flags).build();
                let ran = bench.run(hook, &frame);
                spread.push(in_tunnel(&ran, "TCP", &around, &to_vm(&frame, 2), &SENT));
            }
            assert_eq!(spread[0], spread[1], "a flow keeps to one path");
            ports.extend(spread);
            let frame = udp_packet(v4, datagram).build();
            in_tunnel(&bench.run(hook, &frame), "UDP", &around, &to_vm(&frame, 2), &SENT);
            for (target, _, _) in bench.world.targets() {
                bench.set_state(target, State::Active);
            }
        }
    }
    assert!(ports.len() > 4, "flows are spread: {ports:?}");
}

#[test]
fn class_and_tags_go_along() {
    let mut world = World::dsr();
    world.services.iter_mut().for_each(|service| service.vlan = 10);
    let mut bench = Bench::ready(world);
    for hook in HOOKS {
        let tagged = |flags, port| Packet { tags: vec![(VLAN, 10)], ..tcp_packet(true, port, flags) };
        let port = (1..200).find(|port| bench.run(hook, &tagged(2, *port).build()).vm() == 1).unwrap();
        bench.settle();
        for (vlan, outer) in [(0, true), (10, true), (10, false), (0, false)] {
            moved(&bench, 1, &Elsewhere { vlan, ..place(&bench, 1, outer) });
            let mut frame = tagged(ACK, port).build();
            // DSCP 46 and ECT(0), and the header checksum that goes with it.
            let before = frame[19];
            frame[19] = 0xba;
            assert_eq!(before, 0);
            let sum = u16::from_be_bytes([frame[28], frame[29]]);
            let sum = if sum >= 0xba { sum - 0xba } else { sum.wrapping_sub(0xbb) };
            frame[28..30].copy_from_slice(&sum.to_be_bytes());
            let mut inside = to_vm(&frame, 1);
            if vlan == 0 {
                inside.drain(12..16);
            }
            let around = Vxlan { class: 0xba, ..sent(outer) };
            in_tunnel(&bench.run(hook, &frame), "tagged", &around, &inside, &SENT);
        }
        bench.set_state(0, State::Active);
    }
}

#[test]
fn fragments_and_errors_go_too() {
    let mut bench = Bench::ready(World::dsr());
    for (hook, first) in HOOKS.into_iter().zip([1000, 2000]) {
        for v4 in FAMILIES {
            let around = sent(!v4);
            let whole = |port| {
                let data = (0..992_u32).map(|n| n as u8).collect();
                packet(v4, Body::Udp { ports: (port, 53), checksum: true, data })
            };
            let opened = |port: &u16| bench.run(hook, &udp_packet(v4, *port).build()).vm() == 2;
            let port = (first..first + 200).find(opened).unwrap();
            bench.settle();
            moved(&bench, 2, &place(&bench, 2, !v4));
            for (n, (offset, len, more)) in
                [(0, 400, true), (400, 400, true), (800, 200, false)].into_iter().enumerate()
            {
                let fragment = Some(Fragment { id: first.into(), offset, len, more });
                let frame = Packet { fragment, ..whole(port) }.build();
                let mut counted = SENT.to_vec();
                counted.extend((n > 0).then_some(Reason::FragmentFollowed));
                in_tunnel(&bench.run(hook, &frame), "fragment", &around, &to_vm(&frame, 2), &counted);
            }
            let body = Body::Udp { ports: (53, port), checksum: true, data: vec![9; 40] };
            let frame = error_about(v4, body).build();
            let counted = [Reason::IcmpFollowed, SENT[0], SENT[1]];
            in_tunnel(&bench.run(hook, &frame), "error", &around, &to_vm(&frame, 2), &counted);
            for (target, _, _) in bench.world.targets() {
                bench.set_state(target, State::Active);
            }
        }
    }
}

#[test]
fn larger_than_the_tunnel() {
    let mut bench = Bench::ready(World::dsr());
    for hook in HOOKS {
        let port = bench.flow_to(hook, true, 1, 1);
        for (outer, largest) in [(true, 1450), (false, 1430)] {
            moved(&bench, 1, &place(&bench, 1, outer));
            let with = |size: usize| {
                let body = Body::Tcp {
                    ports: (port, 80),
                    seq: 1,
                    ack: 2,
                    flags: ACK,
                    options: vec![],
                    data: vec![7; size - 40],
                };
                Packet { dont_fragment: true, body, ..tcp_packet(true, port, ACK) }.build()
            };
            let frame = with(largest);
            let ran = bench.run(hook, &frame);
            in_tunnel(&ran, "fits", &sent(outer), &to_vm(&frame, 1), &SENT);
            assert_eq!(ran.frame.len(), 14 + 1500, "and fills the way");
            let ran = bench.run(hook, &with(largest + 1));
            assert_eq!((ran.verdict, ran.counted.get("too_big_answered")), (Verdict::Redirect, Some(&1)));
            assert_eq!(ran.parsed().payload[6..8], (largest as u16).to_be_bytes());
        }
        // A superframe goes as one, cut later; what counts is the size of its segments.
        let body =
            Body::Tcp { ports: (port, 80), seq: 1, ack: 2, flags: ACK, options: vec![], data: vec![7; 3000] };
        if let Hook::Tc(_) = hook {
            let frame = Packet { dont_fragment: true, body, ..tcp_packet(true, port, ACK) }.build();
            moved(&bench, 1, &place(&bench, 1, true));
            // Not more than that it is not too big: a test run's superframe has no kind (TCP or UDP), and the
            // kernel makes no room in one without (net/core/filter.c, bpf_skb_net_grow).
            let ran = bench.run_gso(hook, &frame, 1410);
            assert_eq!(ran.counted.get("moved_followed"), Some(&1), "{:?}", ran.counted);
            assert_eq!(ran.counted.get("too_big_answered"), None, "{:?}", ran.counted);
            let ran = bench.run_gso(hook, &frame, 1411);
            assert_eq!(ran.counted.get("too_big_answered"), Some(&1), "{:?}", ran.counted);
        }
        bench.set_state(0, State::Active);
    }
}
