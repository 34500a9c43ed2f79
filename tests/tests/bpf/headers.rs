//! IPv4 options, IPv6 extension headers, fragments.

use lbx_common::reason::Reason;
use lbx_common::target::State;
use lbx_tests::bpf::world::{CLIENT_MAC, FAMILIES, UPLINK, ends, packet, tcp_packet, vm_mac, vm4, vm6};
use lbx_tests::bpf::{Bench, Hook, Verdict, World};
use lbx_tests::packets::check::{check, transport_sum};
use lbx_tests::packets::protocol::{DESTINATION, HOP_BY_HOP, ROUTING};
use lbx_tests::packets::tcp::{ACK, SYN};
use lbx_tests::packets::{Body, Fragment, Packet};

const HOOKS: [Hook; 2] = [Hook::Xdp(UPLINK), Hook::Tc(UPLINK)];

/// An extension header of 8 bytes: padding, or a routing header without segments left.
fn extension(kind: u8) -> (u8, Vec<u8>) {
    (kind, if kind == ROUTING { vec![0, 4, 0, 0, 0, 0, 0] } else { vec![0, 1, 4, 0, 0, 0, 0] })
}

#[test]
fn options_and_extension_headers_belong_to_the_same_flow() {
    let mut bench = Bench::ready(World::dsr());
    for (hook, port) in HOOKS.into_iter().zip(100..) {
        let plain = tcp_packet(true, port, ACK).build();
        let with = |options: Vec<u8>| Packet { options, ..tcp_packet(true, port, ACK) }.build();
        let vm = bench.run(hook, &plain).steered("plain", &plain, &[Reason::FlowRecorded]);
        for options in [vec![1, 1, 1, 0], vec![0x94, 4, 0, 0], vec![1; 40]] {
            let frame = with(options);
            assert_eq!(bench.run(hook, &frame).steered("options", &frame, &[]), vm);
        }
        let plain = tcp_packet(false, port, ACK).build();
        let vm = bench.run(hook, &plain).steered("plain", &plain, &[Reason::FlowRecorded]);
        let chains: [&[u8]; 5] = [
            &[HOP_BY_HOP],
            &[DESTINATION],
            &[ROUTING],
            &[HOP_BY_HOP, DESTINATION, ROUTING, DESTINATION],
            &[HOP_BY_HOP, DESTINATION, DESTINATION, DESTINATION, DESTINATION, DESTINATION],
        ];
        for chain in chains {
            let extensions = chain.iter().map(|k| extension(*k)).collect();
            let frame = Packet { extensions, ..tcp_packet(false, port, ACK) }.build();
            assert_eq!(bench.run(hook, &frame).steered("extension headers", &frame, &[]), vm);
        }
        let extensions = vec![extension(DESTINATION); 7];
        let frame = Packet { extensions, ..tcp_packet(false, port, ACK) }.build();
        bench.run(hook, &frame).dropped("seven", &[Reason::TooManyHeaders]);
        // A length that leads out of the packet.
        let mut frame =
            Packet { extensions: vec![extension(DESTINATION)], ..tcp_packet(false, port, ACK) }.build();
        frame[14 + 41] = 200;
        let ran = bench.run(hook, &frame);
        assert_eq!(ran.verdict, Verdict::Drop, "{:?}", ran.counted);
    }
}

#[test]
fn nat_behind_options_and_extension_headers() {
    let mut bench = Bench::ready(World::nat());
    for hook in HOOKS {
        let v4 = Packet { options: vec![1; 12], ..tcp_packet(true, 5, SYN) };
        let v6 = Packet { extensions: vec![extension(DESTINATION)], ..tcp_packet(false, 5, SYN) };
        for sent in [v4, v6] {
            let ran = bench.run(hook, &sent.build());
            assert_eq!(ran.verdict, Verdict::Redirect, "{:?}", ran.counted);
            let mut expected = Packet { eth_dst: vm_mac(ran.vm()), ..sent.clone() };
            expected.dst = if sent.src.is_ipv4() { vm4(ran.vm()).into() } else { vm6(ran.vm()).into() };
            if let Body::Tcp { ports, .. } = &mut expected.body {
                ports.1 = 8080;
            }
            assert_eq!(ran.frame, expected.build());
            ran.parsed();
        }
    }
}

/// The pieces of a datagram of 1000 bytes to port 53.
fn pieces(v4: bool, id: u32, port: u16) -> [Packet; 3] {
    let data = (0..992_u32).map(|n| n as u8).collect();
    let whole = packet(v4, Body::Udp { ports: (7, port), checksum: true, data });
    [(0, 400, true), (400, 400, true), (800, 200, false)].map(|(offset, len, more)| Packet {
        fragment: Some(Fragment { id, offset, len, more }),
        ..whole.clone()
    })
}

#[test]
fn later_fragments_follow_the_first() {
    let mut bench = Bench::ready(World::dsr());
    for (hook, id) in HOOKS.into_iter().zip(50..) {
        for v4 in FAMILIES {
            let [first, second, last] = pieces(v4, id, 53).map(|p| p.build());
            let unknown = pieces(v4, id + 100, 53)[1].build();
            bench.run(hook, &unknown).dropped("unknown", &[Reason::FragmentUnknown]);
            bench.settle();
            let ran = bench.run(hook, &first);
            let vm = ran.vm();
            assert_eq!(ran.verdict, Verdict::Redirect, "{:?}", ran.counted);
            for (what, frame) in [("second", &second), ("last", &last), ("last again", &last)] {
                assert_eq!(bench.run(hook, frame).steered(what, frame, &[Reason::FragmentFollowed]), vm);
            }
            let target = 3 + u32::from(vm) - 1;
            bench.set_state(target, State::Blackholed);
            bench.run(hook, &last).dropped("blackholed", &[Reason::Blackholed]);
            bench.set_state(target, State::Down);
            bench.run(hook, &last).dropped("down", &[Reason::StaleTarget]);
            bench.set_state(target, State::Active);
            // Of no service: the whole datagram passes.
            for piece in pieces(v4, id + 200, 99) {
                let frame = piece.build();
                bench.run(hook, &frame).passed("another port", &frame, &[Reason::NotAService]);
            }
            // A first fragment without the TCP header's end.
            let fragment = Some(Fragment { id, offset: 0, len: 16, more: true });
            let tiny = Packet { fragment, ..tcp_packet(v4, 3, ACK) }.build();
            bench.run(hook, &tiny).dropped("tiny", &[Reason::FragmentTiny]);
        }
    }
}

/// Payload of the fragments, put together again, with the addresses they share.
#[track_caller]
fn together(frames: &[Vec<u8>]) -> (std::net::IpAddr, std::net::IpAddr, Vec<u8>) {
    let parsed: Vec<_> = frames.iter().map(|f| check(f).unwrap()).collect();
    let (src, dst) = (parsed[0].src, parsed[0].dst);
    assert!(parsed.iter().all(|p| (p.src, p.dst) == (src, dst)), "{parsed:?}");
    (src, dst, parsed.iter().flat_map(|p| p.payload.clone()).collect())
}

#[test]
fn nat_translates_every_fragment_and_the_checksum_once() {
    let mut bench = Bench::ready(World::nat());
    for (hook, id) in HOOKS.into_iter().zip(50..) {
        for v4 in FAMILIES {
            let ran: Vec<_> = pieces(v4, id, 53).iter().map(|p| bench.run(hook, &p.build())).collect();
            let vm = ran[0].vm();
            assert!(ran.iter().all(|r| r.verdict == Verdict::Redirect && r.vm() == vm));
            let frames: Vec<_> = ran.into_iter().map(|r| r.frame).collect();
            let (src, dst, udp) = together(&frames);
            assert_eq!(dst, if v4 { vm4(vm).into() } else { std::net::IpAddr::from(vm6(vm)) });
            assert_eq!((udp.len(), &udp[2..4]), (1000, &5353_u16.to_be_bytes()[..]));
            assert_eq!(transport_sum(src, dst, 17, &udp), 0);

            // And back.
            let (client, vip) = ends(v4);
            let back: Vec<_> = pieces(v4, id, 53)
                .into_iter()
                .map(|p| {
                    let data = vec![3; 992];
                    let body = Body::Udp { ports: (5353, 7), checksum: true, data };
                    let sent = Packet {
                        fragment: p.fragment,
                        ..Packet::new((vm_mac(vm), CLIENT_MAC), dst, client, body)
                    };
                    bench.run(Hook::Tc(vm.into()), &sent.build())
                })
                .collect();
            assert!(back.iter().all(|r| r.verdict == Verdict::Pass), "{back:?}");
            let frames: Vec<_> = back.into_iter().map(|r| r.frame).collect();
            let (src, dst, udp) = together(&frames);
            assert_eq!((src, dst, &udp[..2]), (vip, client, &53_u16.to_be_bytes()[..]));
            assert_eq!(transport_sum(src, dst, 17, &udp), 0);
        }
    }
}
