//! Sampled events: which packets are shown, what of them, and how many at most.

use lbx_common::event::{Event, RATE, UNKNOWN};
use lbx_common::key::{ports, scope};
use lbx_common::reason::Reason;
use lbx_common::service::flags;
use lbx_common::target::{State, StateWord};
use lbx_tests::bpf::world::{FAMILIES, UPLINK, ends, tcp_packet, udp_packet};
use lbx_tests::bpf::{Bench, Hook, Verdict, World};
use lbx_tests::packets::protocol;
use lbx_tests::packets::tcp::{ACK, SYN};

const HOOKS: [Hook; 2] = [Hook::Xdp(UPLINK), Hook::Tc(UPLINK)];

/// What the programs sent since the last look.
fn sent(ring: &mut lbx_user::datapath::Events) -> Vec<Event> {
    std::iter::from_fn(|| ring.next_event()).collect()
}

#[test]
fn what_is_dropped_or_refused_is_shown_with_its_tuple() {
    let mut world = World::dsr();
    world.services[0].flags |= flags::REJECT;
    let mut bench = Bench::ready(world);
    let mut ring = bench.maps().events().unwrap();
    for (n, hook) in HOOKS.into_iter().enumerate() {
        for (v4, port) in FAMILIES.into_iter().zip(700 + n as u16 * 10..) {
            let (client, vip) = ends(v4);
            let key = |protocol, to| lbx_common::key::FlowKey {
                src: client.into(),
                dst: vip.into(),
                ports: ports(port, to),
                scope: scope(protocol, 0, 0),
            };
            // A flow that goes its way is nobody's business.
            bench.run(hook, &tcp_packet(v4, port, SYN).build());
            bench.run(hook, &tcp_packet(v4, port, ACK).build());
            assert_eq!(sent(&mut ring), []);

            (0..6).for_each(|target| bench.set_state(target, State::Down));
            let refused = bench.run(hook, &tcp_packet(v4, port, SYN).build());
            assert_eq!(refused.verdict, Verdict::Redirect, "{:?}", refused.counted);
            bench.run(hook, &udp_packet(v4, port).build()).dropped("no target", &[Reason::NoTarget]);
            let events = sent(&mut ring);
            let [tcp, udp] = &events[..] else { panic!("two events: {events:?}") };
            assert!(tcp.time > 0 && udp.time >= tcp.time);
            assert_eq!((tcp.key, tcp.tcp_flags, tcp.service), (key(protocol::TCP, 80), SYN, 0));
            assert_eq!((udp.key, udp.service, udp.target), (key(protocol::UDP, 53), 1, UNKNOWN));
            assert_eq!(Reason::from_u8(udp.reason), Some(Reason::NoTarget));
            assert_eq!(u32::from(udp.port), UPLINK);
            (0..6).for_each(|target| bench.set_state(target, State::Active));
        }
    }
}

#[test]
fn a_malformed_packet_shows_its_vip_and_a_blackhole_that_ended_its_target() {
    let mut bench = Bench::ready(World::dsr());
    let mut ring = bench.maps().events().unwrap();
    let port = bench.flow_to(HOOKS[0], true, 2, 1000);
    let mut frame = tcp_packet(true, port, ACK).build();
    // Passed long ago.
    let word = StateWord::until(State::Blackholed, State::Active, 1);
    bench.maps().set_state(1, word).unwrap();
    bench.run(HOOKS[0], &frame).steered("expired", &frame, &[Reason::BlackholeExpired]);
    let events = sent(&mut ring);
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((Reason::from_u8(events[0].reason), events[0].target), (Some(Reason::BlackholeExpired), 1));

    // A TCP header longer than the packet.
    frame[14 + 20 + 12] = 0xf0;
    bench.run(HOOKS[0], &frame).dropped("malformed", &[Reason::BadL4Length]);
    let events = sent(&mut ring);
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((events[0].key, events[0].service), (Event::to(ends(true).1.into()), UNKNOWN));
}

#[test]
fn a_flood_of_one_reason_is_a_sample_and_leaves_room_for_others() {
    let mut bench = Bench::ready(World::dsr());
    let mut ring = bench.maps().events().unwrap();
    bench.set_state(0, State::Down);
    bench.set_state(1, State::Down);
    bench.set_state(2, State::Down);
    let frame = tcp_packet(true, 5, SYN).build();
    let (begin, n) = (std::time::Instant::now(), 2000);
    for _ in 0..n {
        bench.runner(HOOKS[0]).run(&frame, 0).unwrap();
    }
    let most = u64::from(RATE) * (begin.elapsed().as_secs() + 2);
    let shown = sent(&mut ring).len() as u64;
    assert!((u64::from(RATE)..=most).contains(&shown), "{shown} of {n}, {most} at most");
    bench.settle();
    bench.set_state(2, State::Blackholed);
    bench.run(HOOKS[0], &frame).dropped("another reason", &[Reason::Blackholed]);
    assert_eq!(sent(&mut ring).len(), 1);
}
