//! Recorded flows: what moves them and what does not, states, deadlines, room.

use std::thread::sleep;
use std::time::Duration;

use lbx_common::reason::Reason;
use lbx_common::service::flags;
use lbx_common::target::{State, StateWord};
use lbx_tests::bpf::world::{FAMILIES, UPLINK, tcp_packet, udp_packet};
use lbx_tests::bpf::{Bench, Hook, Verdict, World};
use lbx_tests::packets::tcp::{ACK, FIN, PSH, RST, SYN};

const XDP: Hook = Hook::Xdp(UPLINK);
const TC: Hook = Hook::Tc(UPLINK);

#[test]
fn no_known_flow_moves_when_weights_or_the_table_change() {
    let mut bench = Bench::ready(World::dsr());
    let flows: Vec<(bool, u16, u8)> = (1000..1200)
        .flat_map(|port| FAMILIES.map(|v4| (v4, port)))
        .map(|(v4, port)| (v4, port, bench.run(XDP, &tcp_packet(v4, port, SYN).build()).vm()))
        .collect();
    for (weights, table) in [([0, 0, 5], 251), ([9, 1, 0], 1021), ([1, 1, 1], 251)] {
        for (target, weight) in bench.world.services[0].targets.iter_mut().zip(weights) {
            target.weight = weight;
        }
        bench.world.services[0].table = table;
        bench.write_service(0);
        bench.settle();
        for (v4, port, vm) in &flows {
            let frame = tcp_packet(*v4, *port, ACK).build();
            assert_eq!(bench.runner(XDP).run(&frame, 0).unwrap().1[5], *vm, "moved");
        }
        let (counted, targets) = bench.counted();
        assert!(counted.is_empty(), "{counted:?}");
        assert_eq!(targets[..3].iter().sum::<u64>(), flows.len() as u64);
        // New flows follow the weights.
        for port in 5000..5050 {
            let vm = bench.run(XDP, &tcp_packet(true, port + table as u16, SYN).build()).vm();
            assert_ne!(weights[usize::from(vm) - 1], 0);
        }
    }
}

#[test]
fn draining_keeps_known_flows_and_takes_no_new_ones() {
    let mut bench = Bench::ready(World::dsr());
    for (hook, base) in [(XDP, 1000), (TC, 2000)] {
        let port = bench.flow_to(hook, true, 2, base);
        bench.set_state(1, State::Draining);
        let frame = tcp_packet(true, port, ACK).build();
        assert_eq!(bench.run(hook, &frame).steered("known", &frame, &[]), 2);
        for port in base + 300..base + 360 {
            assert_ne!(bench.run(hook, &tcp_packet(true, port, SYN).build()).vm(), 2, "new");
        }
        // A SYN opens a connection, even on the ports of a known one.
        let frame = tcp_packet(true, port, SYN).build();
        let ran = bench.run(hook, &frame);
        let counted = [Reason::FlowReselected, Reason::SlotRehashed, Reason::FlowRecorded];
        assert_ne!(ran.steered("opens", &frame, &counted), 2);
        bench.set_state(1, State::Active);
    }
}

#[test]
fn a_blackhole_drops_until_its_deadline() {
    let mut bench = Bench::ready(World::dsr());
    let port = bench.flow_to(XDP, true, 1, 1000);
    let frame = tcp_packet(true, port, PSH | ACK).build();
    bench.set_state(0, State::Blackholed);
    for hook in [XDP, TC] {
        bench.run(hook, &frame).dropped("blackholed", &[Reason::Blackholed]);
    }
    assert_eq!(bench.counters().targets[0].drops, 2);
    for port in 3000..3030 {
        assert_ne!(bench.run(XDP, &tcp_packet(true, port, SYN).build()).vm(), 1, "new");
    }
    let deadline = bench.maps().clock().unwrap().deadline(Duration::from_secs(1)).unwrap();
    let word = StateWord::until(State::Blackholed, State::Active, deadline);
    bench.maps().set_state(0, word).unwrap();
    bench.run(XDP, &frame).dropped("before the deadline", &[Reason::Blackholed]);
    sleep(Duration::from_millis(1100));
    for hook in [XDP, TC] {
        let ran = bench.run(hook, &frame);
        assert_eq!(ran.steered("after the deadline", &frame, &[Reason::BlackholeExpired]), 1);
    }
    bench.set_state(0, State::Active);
    bench.run(XDP, &frame).steered("over", &frame, &[]);
}

#[test]
fn a_new_flow_whose_only_target_is_blackholed_waits_for_it() {
    let mut world = World::dsr();
    for svc in &mut world.services {
        svc.flags |= flags::REJECT;
    }
    let mut bench = Bench::ready(world);
    // Of three, one is blackholed, one drains and one is down: nothing is there to reject it.
    for (target, state) in [State::Blackholed, State::Draining, State::Down].into_iter().enumerate() {
        bench.set_state(target as u32, state);
    }
    for (hook, base) in [(XDP, 1000), (TC, 2000)] {
        for (v4, port) in FAMILIES.into_iter().zip(base..) {
            let frame = tcp_packet(v4, port, SYN).build();
            bench.set_state(0, State::Blackholed);
            for _ in 0..3 {
                bench.run(hook, &frame).dropped("paused", &[Reason::Blackholed]);
            }
            bench.set_state(0, State::Active);
            let ran = bench.run(hook, &frame);
            assert_eq!((ran.verdict, ran.vm()), (Verdict::Redirect, 1), "the SYN again: {:?}", ran.counted);
            assert_eq!(ran.counted.get("flow_recorded"), Some(&1), "{:?}", ran.counted);
        }
    }
    let counters = bench.counters();
    assert_eq!((counters.targets[0].drops, counters.services[0].drops), (12, 12));
    assert_eq!((counters.targets[0].flows, counters.services[0].rejects), (4, 0));
}

#[test]
fn flows_of_a_target_that_is_down_or_replaced_are_selected_anew() {
    let mut bench = Bench::ready(World::dsr());
    for (hook, v4, base) in [(XDP, true, 1000), (TC, false, 2000)] {
        let port = bench.flow_to(hook, v4, 3, base);
        bench.set_state(2, State::Down);
        let frame = tcp_packet(v4, port, ACK).build();
        let counted = [Reason::FlowReselected, Reason::SlotRehashed, Reason::FlowRecorded];
        let vm = bench.run(hook, &frame).steered("reselected", &frame, &counted);
        assert_ne!(vm, 3);
        bench.set_state(2, State::Active);
        assert_eq!(bench.run(hook, &frame).steered("and stays there", &frame, &[]), vm);
    }
    // Another machine at the same index.
    let port = bench.flow_to(XDP, true, 1, 3000);
    bench.change_target(0, |t| t.generation += 1);
    let frame = tcp_packet(true, port, ACK).build();
    let counted = [Reason::FlowReselected, Reason::SlotRehashed, Reason::FlowRecorded];
    let ran = bench.run(XDP, &frame);
    assert_eq!(ran.verdict, Verdict::Redirect);
    assert_eq!(ran.counted.get("flow_reselected"), Some(&1), "{:?} {counted:?}", ran.counted);
}

#[test]
fn without_a_target_nothing_passes() {
    let mut bench = Bench::ready(World::dsr());
    let known = tcp_packet(true, 5, SYN).build();
    bench.run(XDP, &known).steered("known", &known, &[Reason::FlowRecorded]);
    for target in 0..6 {
        bench.set_state(target, State::Down);
    }
    bench.run(XDP, &known).dropped("known", &[Reason::FlowReselected, Reason::NoTarget]);
    for v4 in FAMILIES {
        bench.run(XDP, &tcp_packet(v4, 77, SYN).build()).dropped("new", &[Reason::NoTarget]);
        bench.run(TC, &udp_packet(v4, 77).build()).dropped("new", &[Reason::NoTarget]);
    }
    let services = bench.counters().services;
    assert_eq!((services[0].drops, services[1].drops), (3, 2));
}

#[test]
fn the_table_is_bounded_closing_frees_early_and_floods_give_way() {
    let mut world = World::dsr();
    world.options.flows = 4;
    world.options.idle.closed = Duration::from_secs(1);
    let mut bench = Bench::ready(world);
    assert_eq!(bench.maps().flow_capacity(), 4);
    let frame = |port, flags| tcp_packet(true, port, flags).build();
    bench.runner(XDP);
    let epoch = bench.at_the_start_of_an_epoch();
    for port in [1, 2, 3, 4] {
        let frame = frame(port, SYN);
        bench.run(XDP, &frame).steered("room", &frame, &[Reason::FlowRecorded]);
    }
    // 1 established, 2 closed, 3 and 4 a flood.
    bench.run(XDP, &frame(1, ACK));
    bench.run(XDP, &frame(2, ACK));
    bench.run(XDP, &frame(2, FIN | ACK));
    let late = frame(5, SYN);
    let vm = bench.run(XDP, &late).steered("no room", &late, &[Reason::FlowUnrecorded]);
    let late = frame(5, ACK);
    assert_eq!(bench.run(XDP, &late).steered("follows the table", &late, &[Reason::FlowUnrecorded]), vm);
    assert_eq!(bench.counters().services[0].flows_unrecorded, 2);
    sleep(epoch * 2);
    assert_eq!(bench.run(XDP, &late).steered("room again", &late, &[Reason::FlowRecorded]), vm);
    let another = frame(6, SYN);
    let counted = [Reason::FlowEvicted, Reason::FlowRecorded];
    bench.run(XDP, &another).steered("a flood gives way", &another, &counted);
    let known = frame(1, ACK);
    bench.run(XDP, &known).steered("the established one does not", &known, &[]);
}

#[test]
fn a_service_leaves_the_rest_of_the_table_to_others() {
    let mut world = World::dsr();
    world.options.flows = 4;
    // Of 8 places in one bucket, counted twice where there is no other: 4 are one half.
    world.services[0].kept = 4;
    let mut bench = Bench::ready(world);
    let frame = |port, flags| tcp_packet(true, port, flags).build();
    for port in [1, 2] {
        let frame = frame(port, SYN);
        bench.run(XDP, &frame).steered("its half", &frame, &[Reason::FlowRecorded]);
    }
    let more = frame(3, SYN);
    let vm = bench.run(XDP, &more).steered("beyond", &more, &[Reason::FlowRoomKept]);
    let more = frame(3, ACK);
    assert_eq!(bench.run(XDP, &more).steered("follows the table", &more, &[Reason::FlowRoomKept]), vm);
    assert_eq!(bench.counters().services[0].flows_unrecorded, 2);
    let known = frame(1, ACK);
    bench.run(XDP, &known).steered("an established one is untouched", &known, &[]);
    for port in [1, 2] {
        let frame = udp_packet(true, port).build();
        bench.run(XDP, &frame).steered("room for another service", &frame, &[Reason::FlowRecorded]);
    }
}

#[test]
fn a_reset_of_an_unknown_flow_is_not_recorded_and_a_rate_holds() {
    let mut world = World::dsr();
    world.services[1].rate = 3;
    let mut bench = Bench::ready(world);
    let frame = tcp_packet(true, 1, RST | ACK).build();
    for _ in 0..2 {
        bench.run(XDP, &frame).steered("rst", &frame, &[]);
    }
    for port in 0..40 {
        assert_eq!(bench.runner(XDP).run(&udp_packet(true, port).build(), 0).unwrap().0, Verdict::Redirect);
    }
    let (counted, targets) = bench.counted();
    let recorded = counted["flow_recorded"];
    assert!((3..30).contains(&recorded), "{counted:?}");
    assert_eq!(counted["flow_rate_limited"], 40 - recorded);
    assert_eq!(targets[3..].iter().sum::<u64>(), 40);
}
