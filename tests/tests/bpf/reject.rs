//! What lbx says itself when a packet cannot go on: RST, unreachable, too big.

use lbx_common::reason::Reason;
use lbx_common::service::flags;
use lbx_common::target::{State, StateWord};
use lbx_tests::bpf::bench::Ran;
use lbx_tests::bpf::world::{CLIENT_MAC, FAMILIES, SWITCH_MAC, UPLINK, ends, packet, tcp_packet, udp_packet};
use lbx_tests::bpf::{Bench, Hook, Verdict, World};
use lbx_tests::packets::check::Parsed;
use lbx_tests::packets::protocol;
use lbx_tests::packets::tcp::{ACK, FIN, PSH, RST, SYN};
use lbx_tests::packets::{Body, Packet};

const HOOKS: [Hook; 2] = [Hook::Xdp(UPLINK), Hook::Tc(UPLINK)];

fn rejecting() -> World {
    let mut world = World::dsr();
    for svc in &mut world.services {
        svc.flags |= flags::REJECT;
        svc.targets.iter_mut().for_each(|t| t.state = StateWord::new(State::Down));
    }
    world
}

/// An answer of the VIP to the client that counted one thing only, every checksum right.
#[track_caller]
fn answer(ran: &Ran, v4: bool, counted: &[Reason]) -> Parsed {
    ran.is("answer", Verdict::Redirect, &ran.frame, counted);
    assert_eq!(ran.frame[..12], [CLIENT_MAC, SWITCH_MAC].concat());
    let parsed = ran.parsed();
    let (client, vip) = ends(v4);
    assert_eq!((parsed.src, parsed.dst), (vip, client));
    parsed
}

#[test]
fn tcp_is_refused_with_a_reset() {
    let mut bench = Bench::ready(rejecting());
    // Flags, payload: sequence and acknowledgement number and flags of the RST (RFC 9293, section 3.10.7.1).
    type Row = (u8, &'static [u8], (u32, u32, u8));
    let rows: [Row; 5] = [
        (SYN, b"", (0, 1001, RST | ACK)),
        (SYN, b"fast open", (0, 1010, RST | ACK)),
        (FIN, b"abc", (0, 1004, RST | ACK)),
        (ACK, b"", (2000, 0, RST)),
        (PSH | ACK, b"odd", (2000, 0, RST)),
    ];
    for hook in HOOKS {
        for v4 in FAMILIES {
            for (flags, payload, expected) in rows {
                for options in [vec![], vec![2, 4, 5, 0xb4]] {
                    let body = Body::Tcp {
                        ports: (999, 80),
                        seq: 1000,
                        ack: 2000,
                        flags,
                        options,
                        data: payload.to_vec(),
                    };
                    let ran = bench.run(hook, &packet(v4, body).build());
                    let p = answer(&ran, v4, &[Reason::RejectedReset]);
                    assert_eq!((p.protocol, p.payload.len(), p.ports()), (protocol::TCP, 20, (80, 999)));
                    assert_eq!((p.u32(4), p.u32(8), p.payload[13]), expected, "{flags:#x}");
                }
            }
            let frame = tcp_packet(v4, 9, RST).build();
            bench.run(hook, &frame).dropped("a reset is not answered", &[Reason::NoTarget]);
        }
    }
    // Each packet has one verdict: answered ones are not dropped as well.
    let service = bench.counters().services[0];
    assert_eq!((service.rejects, service.drops), (40, 4));
}

#[test]
fn udp_is_refused_with_unreachable() {
    let mut bench = Bench::ready(rejecting());
    for hook in HOOKS {
        for v4 in FAMILIES {
            for size in [0, 7, 1200] {
                let body = Body::Udp { ports: (9, 53), checksum: true, data: vec![0x5a; size] };
                let sent = packet(v4, body);
                let p = answer(&bench.run(hook, &sent.build()), v4, &[Reason::RejectedUnreachable]);
                let most = if v4 { 544 } else { 1232 };
                let quote = sent.ip();
                assert_eq!(p.payload[..2], if v4 { [3, 3] } else { [1, 4] });
                assert_eq!(p.payload[8..], quote[..quote.len().min(most)]);
            }
        }
    }
    let mut options = udp_packet(true, 9);
    options.options = vec![1; 8];
    let p = answer(&bench.run(HOOKS[0], &options.build()), true, &[Reason::RejectedUnreachable]);
    assert_eq!(p.payload[8..], options.ip());
}

#[test]
fn too_big_tells_the_sender_the_mtu() {
    let mut world = World::dsr();
    world.services[1].targets.iter_mut().for_each(|t| t.mtu = 1000);
    let mut bench = Bench::ready(world);
    for (hook, port) in HOOKS.into_iter().zip(9..) {
        for v4 in FAMILIES {
            let sized = |ip: usize| {
                let data = vec![1; ip - 8 - if v4 { 20 } else { 40 }];
                let body = Body::Udp { ports: (port, 53), checksum: true, data };
                Packet { dont_fragment: true, ..packet(v4, body) }
            };
            let fits = sized(1000).build();
            bench.run(hook, &fits).steered("fits", &fits, &[Reason::FlowRecorded]);
            let sent = sized(1001);
            let p = answer(&bench.run(hook, &sent.build()), v4, &[Reason::TooBigAnswered]);
            assert_eq!(p.payload[..2], if v4 { [3, 4] } else { [2, 0] });
            assert_eq!(p.u32(4), 1000);
            let quote = sent.ip();
            assert_eq!(p.payload[8..], quote[..quote.len().min(if v4 { 544 } else { 1232 })]);
            if v4 {
                let frame = Packet { dont_fragment: false, ..sent }.build();
                bench.run(hook, &frame).dropped("may be fragmented", &[Reason::TooBig]);
            }
        }
    }
}

#[test]
fn of_a_superframe_a_segment_has_to_fit() {
    let mut bench = Bench::ready(World::dsr());
    let tc = Hook::Tc(UPLINK);
    let body =
        Body::Tcp { ports: (9, 80), seq: 1, ack: 1, flags: ACK, options: Vec::new(), data: vec![7; 2900] };
    let sent = Packet { dont_fragment: true, ..packet(true, body) }.build();
    bench.run_gso(tc, &sent, 1460).steered("1460 and headers", &sent, &[Reason::FlowRecorded]);
    let ran = bench.run_gso(tc, &sent, 1461);
    assert_eq!(ran.verdict, Verdict::Redirect);
    assert_eq!(ran.counted.get("too_big_answered"), Some(&1), "{:?}", ran.counted);
}
