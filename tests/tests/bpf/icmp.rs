//! ICMP errors go after the flow of the packet they quote, both ways.

use std::net::IpAddr;

use lbx_common::reason::Reason;
use lbx_tests::bpf::world::{
    CLIENT_MAC, FAMILIES, SWITCH_MAC, UPLINK, ends, router, tcp_packet, too_big, udp_packet, vm_mac, vm4, vm6,
};
use lbx_tests::bpf::{Bench, Hook, Verdict, World};
use lbx_tests::packets::check::{Parsed, check};
use lbx_tests::packets::tcp::{ACK, SYN};
use lbx_tests::packets::{Body, Packet};

const HOOKS: [Hook; 2] = [Hook::Xdp(UPLINK), Hook::Tc(UPLINK)];

fn vm_addr(v4: bool, vm: u8) -> IpAddr {
    if v4 { vm4(vm).into() } else { vm6(vm).into() }
}

/// What the VIP's VM answered to the client.
fn answered(v4: bool, port: u16) -> Packet {
    let (client, vip) = ends(v4);
    let body =
        Body::Tcp { ports: (80, port), seq: 1, ack: 2, flags: ACK, options: vec![], data: vec![9; 600] };
    Packet::new(([0; 6], [0; 6]), vip, client, body)
}

/// From a router to the VIP, about that answer.
fn error(v4: bool, port: u16, quoted: usize) -> Packet {
    let quote = answered(v4, port).ip();
    let keep = quoted.min(quote.len());
    Packet::new((CLIENT_MAC, SWITCH_MAC), router(v4), ends(v4).1, too_big(v4, quote[..keep].to_vec()))
}

/// The packet quoted in an error, its own checksums checked.
#[track_caller]
fn quoted(error: &Parsed) -> Parsed {
    let mut frame = vec![0; 12];
    frame.extend(if error.src.is_ipv4() { [8, 0] } else { [0x86, 0xdd] });
    frame.extend(&error.payload[8..]);
    check(&frame).unwrap()
}

#[test]
fn an_error_follows_a_dsr_flow() {
    let mut bench = Bench::ready(World::dsr());
    for (hook, port) in HOOKS.into_iter().zip(700..) {
        for v4 in FAMILIES {
            let vm = bench.run(hook, &tcp_packet(v4, port, SYN).build()).vm();
            for keep in [28, 1000] {
                // 20 or 40 bytes of IP header and at least 8 behind it.
                let frame = error(v4, port, keep + if v4 { 0 } else { 20 }).build();
                let ran = bench.run(hook, &frame);
                assert_eq!(ran.steered("error", &frame, &[Reason::IcmpFollowed]), vm);
            }
            // Unrecorded: where the table says, which is where the flow's packets go.
            let unknown = error(v4, port + 100, 1000).build();
            let flows = |bench: &Bench| bench.counters().targets.iter().map(|t| t.flows).sum::<u64>();
            let before = flows(&bench);
            let vm = bench.run(hook, &unknown).steered("unknown", &unknown, &[Reason::IcmpFollowed]);
            assert_eq!(flows(&bench), before, "an error opens no flow");
            assert_eq!(bench.run(hook, &tcp_packet(v4, port + 100, SYN).build()).vm(), vm);
            let short = error(v4, port, if v4 { 24 } else { 44 }).build();
            bench.run(hook, &short).passed("quotes too little", &short, &[Reason::NotAService]);
        }
    }
}

#[test]
fn nat_translates_an_error_on_the_way_in() {
    let mut bench = Bench::ready(World::nat());
    for (hook, port) in HOOKS.into_iter().zip(700..) {
        for v4 in FAMILIES {
            let frame = error(v4, port, 1000).build();
            bench.run(hook, &frame).dropped("unknown", &[Reason::IcmpUnknownFlow]);
            let vm = bench.run(hook, &tcp_packet(v4, port, SYN).build()).vm();
            bench.settle();
            let ran = bench.run(hook, &frame);
            ran.is("error", Verdict::Redirect, &ran.frame, &[Reason::IcmpFollowed]);
            let p = ran.parsed();
            assert_eq!((ran.vm(), p.src, p.dst), (vm, router(v4), vm_addr(v4, vm)));
            assert_eq!(p.payload[4..8], [0, 0, 5, 0]);
            let inner = quoted(&p);
            assert_eq!((inner.src, inner.dst), (vm_addr(v4, vm), ends(v4).0));
            assert_eq!(inner.ports(), (8080, port));
        }
    }
}

#[test]
fn nat_translates_an_error_on_the_way_back() {
    let mut bench = Bench::ready(World::nat());
    for v4 in FAMILIES {
        let (client, vip) = ends(v4);
        let ran = bench.run(HOOKS[0], &udp_packet(v4, 9).build());
        let vm = ran.vm();
        let error = |quote: &[u8]| {
            let (kind, code) = if v4 { (3, 3) } else { (1, 4) };
            let body = Body::Icmp { kind, code, rest: [0; 4], data: quote.to_vec() };
            Packet::new((vm_mac(vm), CLIENT_MAC), vm_addr(v4, vm), client, body).build()
        };
        // The packet as the VM got it.
        let back = bench.run(Hook::Tc(vm.into()), &error(&ran.frame[14..]));
        back.is("unreachable", Verdict::Pass, &back.frame, &[Reason::IcmpFollowed]);
        let p = back.parsed();
        assert_eq!((p.src, p.dst), (vip, client));
        let inner = quoted(&p);
        assert_eq!((inner.src, inner.dst, inner.ports()), (client, vip, (9, 53)));
        // About somebody else's packet.
        let mut other = udp_packet(v4, 10);
        other.dst = vm_addr(v4, vm);
        let frame = error(&other.ip());
        bench.run(Hook::Tc(vm.into()), &frame).passed("direct", &frame, &[Reason::NotTranslated]);
    }
}
