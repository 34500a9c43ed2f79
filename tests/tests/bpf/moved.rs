//! Targets that moved: known flows go after them, new ones elsewhere, and nothing goes in circles.

use std::net::IpAddr;
use std::time::Duration;

use lbx_common::elsewhere::Elsewhere;
use lbx_common::key::{self, FlowKey};
use lbx_common::port::{Port, flags as port_flags};
use lbx_common::reason::Reason;
use lbx_common::target::{Deliver, State};
use lbx_tests::bpf::run;
use lbx_tests::bpf::tap::Tap;
use lbx_tests::bpf::tunnel::moved;
use lbx_tests::bpf::world::{
    CLIENT_MAC, FAMILIES, UPLINK, UPLINK_MAC, ends, error_about, packet, tcp_packet, udp_packet, vm_mac, vm4,
    vm6,
};
use lbx_tests::bpf::{Bench, Hook, Ran, Verdict, World};
use lbx_tests::packets::tcp::{ACK, FIN, PSH, SYN};
use lbx_tests::packets::{Body, Fragment, Packet, VLAN, protocol};
use lbx_user::datapath::FlowRow;

const HOOKS: [Hook; 2] = [Hook::Xdp(UPLINK), Hook::Tc(UPLINK)];
const FOLLOWED: [Reason; 1] = [Reason::MovedFollowed];

/// Out of the uplink, to a VM's MAC.
fn uplink(bench: &Bench, vm: u8) -> Elsewhere {
    let deliver = Deliver::Uplink as u8;
    Elsewhere { ifindex: bench.ifindex(UPLINK), mac: vm_mac(vm), mtu: 1500, deliver, ..Elsewhere::default() }
}

/// The record of a flow to port 80.
fn record(bench: &Bench, v4: bool, port: u16) -> FlowRow {
    let (client, vip) = ends(v4);
    let (ports, scope) = (key::ports(port, 80), key::scope(protocol::TCP, 0, 0));
    let key = FlowKey { src: client.into(), dst: vip.into(), ports, scope };
    bench.maps().flow(&key).unwrap().unwrap()
}

/// The frame as it leaves by the uplink.
fn outward(frame: &[u8], vm: u8) -> Vec<u8> {
    let mut expected = frame.to_vec();
    expected[..6].copy_from_slice(&vm_mac(vm));
    expected[6..12].copy_from_slice(&UPLINK_MAC);
    expected
}

#[track_caller]
fn follows(ran: &Ran, what: &str, frame: &[u8], vm: u8, counted: &[Reason]) {
    ran.is(what, Verdict::Redirect, &outward(frame, vm), counted);
}

#[test]
fn known_flows_follow_and_new_ones_do_not() {
    let mut bench = Bench::ready(World::dsr());
    let mut flows = Vec::new();
    for (hook, first) in HOOKS.into_iter().zip([1000, 2000]) {
        flows.extend(FAMILIES.map(|v4| (hook, v4, bench.flow_to(hook, v4, 2, first))));
    }
    let datagram = (100..300).find(|port| bench.run(HOOKS[0], &udp_packet(true, *port).build()).vm() == 2);
    bench.settle();
    moved(&bench, 2, &uplink(&bench, 2));
    for &(hook, v4, port) in &flows {
        for flags in [ACK, PSH | ACK] {
            let frame = tcp_packet(v4, port, flags).build();
            follows(&bench.run(hook, &frame), "known", &frame, 2, &FOLLOWED);
        }
        // The other hook finds the same flow.
        let other = if hook == HOOKS[0] { HOOKS[1] } else { HOOKS[0] };
        let before = record(&bench, v4, port);
        let frame = tcp_packet(v4, port, FIN | ACK).build();
        follows(&bench.run(other, &frame), "closing", &frame, 2, &FOLLOWED);
        // The record lives on with the flow.
        let after = record(&bench, v4, port);
        assert!(before.is_confirmed() && before.tuple.is_some());
        assert_ne!(before.flags, after.flags, "it saw the flow close");
    }
    let frame = udp_packet(true, datagram.unwrap()).build();
    let ran = bench.run(HOOKS[0], &frame);
    follows(&ran, "a datagram", &frame, 2, &FOLLOWED);
    assert_eq!(ran.targets.iter().sum::<u64>(), 1, "counted at its target");

    // New ones find another.
    for port in 5000..5060 {
        for v4 in FAMILIES {
            assert_ne!(bench.run(HOOKS[usize::from(v4)], &tcp_packet(v4, port, SYN).build()).vm(), 2);
        }
    }
    // So does one that begins anew with the ports of a flow that moved: nothing is lost by that.
    let port = bench.flow_to(HOOKS[0], true, 1, 6000);
    moved(&bench, 1, &uplink(&bench, 1));
    let syn = tcp_packet(true, port, SYN).build();
    let ran = bench.run(HOOKS[0], &syn);
    assert_eq!(
        ran.steered("anew", &syn, &[Reason::FlowReselected, Reason::FlowRecorded, Reason::SlotRehashed]),
        3
    );
}

#[test]
fn one_store_sends_flows_there_and_back() {
    let mut bench = Bench::ready(World::dsr());
    let port = bench.flow_to(HOOKS[0], true, 1, 1);
    let place = uplink(&bench, 1);
    bench.maps().write_elsewhere(9, &place).unwrap();
    bench.change_target(0, |entry| entry.elsewhere = 9);
    let frame = tcp_packet(true, port, ACK).build();
    bench.run(HOOKS[0], &frame).steered("before", &frame, &[]);
    for _ in 0..3 {
        bench.set_state(0, State::Moved);
        follows(&bench.run(HOOKS[0], &frame), "moved", &frame, 1, &FOLLOWED);
        bench.set_state(0, State::Blackholed);
        assert_eq!(bench.run(HOOKS[0], &frame).verdict, Verdict::Drop);
        bench.set_state(0, State::Active);
        bench.run(HOOKS[0], &frame).steered("back", &frame, &[]);
    }
    // Moved, and nobody has said where to.
    bench.change_target(0, |entry| entry.elsewhere = 0);
    bench.set_state(0, State::Moved);
    assert_eq!(bench.run(HOOKS[0], &frame).counted.get("flow_reselected"), Some(&1));
}

/// The tap of VM 3, which stands for that of the incoming QEMU of VM 1.
fn third_tap(bench: &Bench) -> Elsewhere {
    let deliver = Deliver::Redirect as u8;
    Elsewhere { port_index: 3, ifindex: bench.ifindex(3), deliver, ..uplink(bench, 1) }
}

#[test]
fn to_another_tap_of_this_host() {
    let mut bench = Bench::ready(World::dsr());
    for hook in HOOKS {
        let port = bench.flow_to(hook, true, 1, 1);
        let place = third_tap(&bench);
        moved(&bench, 1, &place);
        let frame = tcp_packet(true, port, ACK).build();
        assert_eq!(bench.run(hook, &frame).steered("held", &frame, &FOLLOWED), 1);
        // Its own packets do not go back to it.
        let frame = Packet { eth_src: vm_mac(1), ..tcp_packet(true, port, ACK) }.build();
        bench.run(Hook::Tc(3), &frame).dropped("itself", &[Reason::WouldLoop]);
        bench.set_state(0, State::Active);
    }
}

/// What a guest that does not run gets waits for it: 200 ms of 1,000 packets a second, and then as much again as the
/// ring has room for.
#[test]
fn the_tap_of_a_stopped_guest_keeps_packets_in_order() {
    const RING: u32 = 1000;
    let mut bench = Bench::ready(World::dsr());
    let mut tap = Tap::new("next0", 1, RING).unwrap();
    let vnic = Port { ifindex: tap.ifindex, ..bench.maps().port(1).unwrap() };
    bench.maps().write_port(4, &vnic).unwrap();
    let opened = |port: &u16| bench.run(HOOKS[0], &udp_packet(true, *port).build()).vm() == 1;
    let port = (1..200).find(opened).unwrap();
    bench.run(HOOKS[0], &udp_packet(true, port).build());
    let place = Elsewhere {
        port_index: 4,
        ifindex: tap.ifindex,
        deliver: Deliver::Redirect as u8,
        ..uplink(&bench, 1)
    };
    bench.maps().write_elsewhere(1, &place).unwrap();
    let target = 3; // VM 1 in the second service
    bench.change_target(target, |entry| entry.elsewhere = 1);
    bench.settle();

    let numbered = |n: u32| {
        let body = Body::Udp { ports: (port, 53), checksum: true, data: n.to_be_bytes().to_vec() };
        packet(true, body).build()
    };
    let number = |frame: &[u8]| u32::from_be_bytes(frame[42..46].try_into().unwrap());
    // The guest stops.
    bench.set_state(target, State::Moved);
    let mut send = |numbers: std::ops::Range<u32>, pause: Duration| {
        for n in numbers {
            run::live(bench.runner(HOOKS[0]).program(), &numbered(n), 1).unwrap();
            std::thread::sleep(pause);
        }
        bench.counted().0
    };
    let counted = send(0..200, Duration::from_millis(1));
    assert_eq!(counted.get("moved_followed"), Some(&200), "{counted:?}");
    let held: Vec<u32> = std::iter::from_fn(|| tap.next(0)).map(|frame| number(&frame)).collect();
    assert_eq!(held, (0..200).collect::<Vec<_>>(), "all of them, in order");

    // A pause that is too long: what the ring has no room for is lost, the rest is there, in order.
    send(200..200 + RING + 100, Duration::ZERO);
    let held: Vec<u32> = std::iter::from_fn(|| tap.next(0)).map(|frame| number(&frame)).collect();
    // Slots that were read come free sixteen at a time.
    let room = RING - 16..=RING;
    assert!(room.contains(&(held.len() as u32)), "{} kept", held.len());
    assert!(held.iter().copied().eq(200..200 + held.len() as u32), "the first, in order");
}

#[test]
fn nothing_goes_in_circles() {
    let mut bench = Bench::ready(World::dsr());
    let port = bench.flow_to(HOOKS[0], true, 1, 1);
    moved(&bench, 1, &uplink(&bench, 1));
    // What was sent after the VM, and somebody sent back to the switch.
    let frame = Packet { eth_src: UPLINK_MAC, ..tcp_packet(true, port, ACK) }.build();
    for hook in HOOKS {
        bench.run(hook, &frame).dropped("came back", &[Reason::WouldLoop]);
    }
    assert_eq!(bench.counters().services[0].drops, 2);
    // As it was sent, it is the VM's, and of no concern.
    let frame = Packet { eth_src: UPLINK_MAC, eth_dst: vm_mac(1), ..tcp_packet(true, port, ACK) }.build();
    bench.run(HOOKS[0], &frame).passed("steered already", &frame, &[Reason::NotAddressed]);
}

#[test]
fn tags_and_membership() {
    let mut world = World::dsr();
    world.filter_vlans(1, &[1, 10]);
    world.services.iter_mut().for_each(|service| service.vlan = 10);
    for target in world.services.iter_mut().flat_map(|service| &mut service.targets) {
        target.vlan = 0;
    }
    let mut bench = Bench::ready(world);
    let tagged = |port, flags| Packet { tags: vec![(VLAN, 10)], ..tcp_packet(true, port, flags) };
    let port = (1..200).find(|port| bench.run(HOOKS[0], &tagged(*port, SYN).build()).vm() == 1).unwrap();
    bench.settle();
    moved(&bench, 1, &Elsewhere { vlan: 10, ..uplink(&bench, 1) });
    let frame = tagged(port, ACK).build();
    for hook in HOOKS {
        follows(&bench.run(hook, &frame), "tagged on the way out", &frame, 1, &FOLLOWED);
    }
    let mut outside = bench.maps().port(UPLINK).unwrap();
    outside.vlans = [0; 64];
    outside.vlans[0] = 1 << 1;
    outside.flags |= port_flags::VLAN_FILTERING;
    bench.maps().write_port(UPLINK, &outside).unwrap();
    let ran = bench.run(HOOKS[0], &frame);
    assert_eq!(ran.verdict, Verdict::Drop, "{:?}", ran.counted);
}

#[test]
fn larger_than_the_way_there() {
    let mut bench = Bench::ready(World::dsr());
    let port = bench.flow_to(HOOKS[0], true, 1, 1);
    moved(&bench, 1, &Elsewhere { mtu: 600, ..uplink(&bench, 1) });
    let body = |size: usize| Body::Tcp {
        ports: (port, 80),
        seq: 1,
        ack: 2,
        flags: ACK,
        options: vec![],
        data: vec![7; size],
    };
    let with = |size| Packet { dont_fragment: true, body: body(size), ..tcp_packet(true, port, ACK) }.build();
    for hook in HOOKS {
        let frame = with(560);
        follows(&bench.run(hook, &frame), "fits", &frame, 1, &FOLLOWED);
        let ran = bench.run(hook, &with(561));
        assert_eq!((ran.verdict, ran.counted.get("too_big_answered")), (Verdict::Redirect, Some(&1)));
        assert_eq!(ran.parsed().payload[6..8], 600_u16.to_be_bytes());
    }
}

#[test]
fn fragments_and_errors_follow() {
    let mut bench = Bench::ready(World::dsr());
    for (hook, first) in HOOKS.into_iter().zip([1000, 2000]) {
        for v4 in FAMILIES {
            let pieces = |port| {
                let data = (0..992_u32).map(|n| n as u8).collect();
                let whole = packet(v4, Body::Udp { ports: (port, 53), checksum: true, data });
                [(0, 400, true), (400, 400, true), (800, 200, false)].map(|(offset, len, more)| {
                    let fragment = Some(Fragment { id: first.into(), offset, len, more });
                    Packet { fragment, ..whole.clone() }.build()
                })
            };
            let opened = |port: &u16| bench.run(hook, &udp_packet(v4, *port).build()).vm() == 2;
            let port = (first..first + 200).find(opened).unwrap();
            bench.settle();
            moved(&bench, 2, &uplink(&bench, 2));
            for (n, frame) in pieces(port).iter().enumerate() {
                let mut counted = FOLLOWED.to_vec();
                counted.extend((n > 0).then_some(Reason::FragmentFollowed));
                follows(&bench.run(hook, frame), "fragment", frame, 2, &counted);
            }
            let body = Body::Udp { ports: (53, port), checksum: true, data: vec![9; 40] };
            let frame = error_about(v4, body).build();
            let counted = [Reason::IcmpFollowed, Reason::MovedFollowed];
            follows(&bench.run(hook, &frame), "error", &frame, 2, &counted);
            for (target, _, _) in bench.world.targets() {
                bench.set_state(target, State::Active);
            }
        }
    }
}

#[test]
fn observed_only() {
    let mut bench = Bench::ready(World::dsr());
    let port = bench.flow_to(HOOKS[0], true, 1, 1);
    moved(&bench, 1, &uplink(&bench, 1));
    bench.maps().set_observe(true).unwrap();
    let frame = tcp_packet(true, port, ACK).build();
    for hook in HOOKS {
        bench.run(hook, &frame).passed("observed", &frame, &[Reason::Observed]);
    }
}

#[test]
fn nat_to_another_tap_is_translated() {
    let mut bench = Bench::ready(World::nat());
    for (hook, first) in HOOKS.into_iter().zip([1000, 2000]) {
        for v4 in FAMILIES {
            let port = bench.flow_to(hook, v4, 1, first);
            let place = third_tap(&bench);
            moved(&bench, 1, &place);
            let ran = bench.run(hook, &tcp_packet(v4, port, PSH | ACK).build());
            ran.is("translated", Verdict::Redirect, &ran.frame, &FOLLOWED);
            let to: IpAddr = if v4 { vm4(1).into() } else { vm6(1).into() };
            assert_eq!((ran.vm(), ran.parsed().dst, ran.parsed().ports()), (1, to, (port, 8080)));
            // The answer comes from the new tap, and is translated back as from the old one.
            let (client, vip) = ends(v4);
            let body =
                Body::Tcp { ports: (8080, port), seq: 1, ack: 2, flags: ACK, options: vec![], data: vec![1] };
            let answer = Packet::new((vm_mac(1), CLIENT_MAC), to, client, body).build();
            let ran = bench.run(Hook::Tc(3), &answer);
            assert_eq!(
                (ran.verdict, ran.parsed().src, ran.parsed().ports()),
                (Verdict::Pass, vip, (80, port))
            );
            bench.set_state(0, State::Active);
        }
    }
}
