//! `nat`: addresses, ports and checksums on the way in, and back by the recorded flow.

use std::net::IpAddr;

use lbx_common::reason::Reason;
use lbx_common::target::State;
use lbx_tests::bpf::world::{
    CLIENT_MAC, FAMILIES, UPLINK, ends, packet, tcp_packet, udp_packet, vm_mac, vm4, vm6,
};
use lbx_tests::bpf::{Bench, Hook, Verdict, World};
use lbx_tests::packets::tcp::{ACK, PSH, RST, SYN};
use lbx_tests::packets::{Body, Packet};

const HOOKS: [Hook; 2] = [Hook::Xdp(UPLINK), Hook::Tc(UPLINK)];

fn vm_addr(v4: bool, vm: u8) -> IpAddr {
    if v4 { vm4(vm).into() } else { vm6(vm).into() }
}

/// The packet as the VM is to get it.
fn translated(packet: &Packet, vm: u8) -> Vec<u8> {
    let mut packet = Packet { eth_dst: vm_mac(vm), ..packet.clone() };
    packet.dst = vm_addr(packet.dst.is_ipv4(), vm);
    match &mut packet.body {
        Body::Tcp { ports, .. } => ports.1 = 8080,
        Body::Udp { ports, .. } => ports.1 = 5353,
        _ => unreachable!(),
    }
    packet.build()
}

/// An answer of a VM, and as the client is to get it.
fn answer(v4: bool, vm: u8, body: impl Fn(u16) -> Body, ports: (u16, u16)) -> (Vec<u8>, Vec<u8>) {
    let (client, vip) = ends(v4);
    let macs = (vm_mac(vm), CLIENT_MAC);
    let own = Packet::new(macs, vm_addr(v4, vm), client, body(ports.0)).build();
    (own, Packet::new(macs, vip, client, body(ports.1)).build())
}

#[test]
fn the_way_in_and_the_way_back() {
    let mut bench = Bench::ready(World::nat());
    for (hook, port) in HOOKS.into_iter().zip([40000, 40100]) {
        for v4 in FAMILIES {
            for flags in [SYN, ACK, PSH | ACK] {
                let sent = tcp_packet(v4, port, flags);
                let ran = bench.run(hook, &sent.build());
                let counted: &[Reason] = if flags == SYN { &[Reason::FlowRecorded] } else { &[] };
                ran.is("in", Verdict::Redirect, &translated(&sent, ran.vm()), counted);
                let parsed = ran.parsed();
                assert_eq!((parsed.ports(), parsed.dst), ((port, 8080), vm_addr(v4, ran.vm())));
                let body = |own| Body::Tcp {
                    ports: (own, port),
                    seq: 1,
                    ack: 2,
                    flags: ACK,
                    options: vec![1, 1, 1, 0],
                    data: b"answer".to_vec(),
                };
                let (own, expected) = answer(v4, ran.vm(), body, (8080, 80));
                let back = bench.run(Hook::Tc(ran.vm().into()), &own);
                back.is("back", Verdict::Pass, &expected, &[]);
                back.parsed();
                bench.maps().set_bypass(true).unwrap();
                bench.run(Hook::Tc(ran.vm().into()), &own).passed("bypass", &own, &[]);
                bench.maps().set_bypass(false).unwrap();
            }
            for checksum in [true, false] {
                let mut sent = udp_packet(v4, port + u16::from(checksum));
                if let Body::Udp { checksum: is, .. } = &mut sent.body {
                    *is = checksum || !v4;
                }
                let ran = bench.run(hook, &sent.build());
                ran.is("datagram", Verdict::Redirect, &translated(&sent, ran.vm()), &[Reason::FlowRecorded]);
                ran.parsed();
                let body = |own| Body::Udp {
                    ports: (own, port + u16::from(checksum)),
                    checksum: checksum || !v4,
                    data: b"x".to_vec(),
                };
                let (own, expected) = answer(v4, ran.vm(), body, (5353, 53));
                bench.run(Hook::Tc(ran.vm().into()), &own).is("its answer", Verdict::Pass, &expected, &[]);
            }
        }
    }
}

#[test]
fn a_port_used_again_for_a_direct_connection_is_left_alone() {
    let mut bench = Bench::ready(World::nat());
    for (v4, hook) in FAMILIES.into_iter().zip(HOOKS) {
        let body = |flags| {
            move |own| Body::Tcp {
                ports: (own, 77),
                seq: 1,
                ack: 2,
                flags,
                options: Vec::new(),
                data: Vec::new(),
            }
        };
        let vm = bench.run(hook, &tcp_packet(v4, 77, SYN).build()).vm();
        let mut from_vm = |flags, translated: bool| {
            let (own, expected) = answer(v4, vm, body(flags), (8080, 80));
            let back = bench.run(Hook::Tc(vm.into()), &own);
            let (expected, counted): (_, &[Reason]) =
                if translated { (expected, &[]) } else { (own, &[Reason::NotTranslated]) };
            back.is(&format!("{flags:#x}"), Verdict::Pass, &expected, counted);
        };
        // A connection through the VIP, accepted more than once, and reset.
        from_vm(SYN | ACK, true);
        from_vm(SYN | ACK, true);
        from_vm(RST | ACK, true);
        // The client's next connection from that port is to the VM itself.
        from_vm(SYN | ACK, false);
        from_vm(ACK, false);
        // And then one to the VIP again.
        let again = bench.run(hook, &tcp_packet(v4, 77, SYN).build());
        assert_eq!(again.vm(), vm, "the same slot");
        let (own, expected) = answer(v4, vm, body(SYN | ACK), (8080, 80));
        bench.run(Hook::Tc(vm.into()), &own).is("again", Verdict::Pass, &expected, &[]);
    }
}

#[test]
fn a_direct_connection_is_left_alone() {
    let mut bench = Bench::ready(World::nat());
    for v4 in FAMILIES {
        let sent = tcp_packet(v4, 9, SYN);
        let vm = bench.run(HOOKS[0], &sent.build()).vm();
        // In: to the VM's own address.
        let mut direct = tcp_packet(v4, 10, SYN);
        direct.dst = vm_addr(v4, vm);
        let frame = direct.build();
        bench.run(HOOKS[0], &frame).passed("in", &frame, &[]);
        let body = |to| {
            move |own| Body::Tcp {
                ports: (own, to),
                seq: 1,
                ack: 2,
                flags: ACK,
                options: Vec::new(),
                data: Vec::new(),
            }
        };
        let (frame, _) = answer(v4, vm, body(10), (8080, 80));
        bench.run(Hook::Tc(vm.into()), &frame).passed("back", &frame, &[Reason::NotTranslated]);
        let (frame, _) = answer(v4, vm, body(9), (22, 80));
        bench.run(Hook::Tc(vm.into()), &frame).passed("another port", &frame, &[Reason::NotTranslated]);
        // Another VM answers to the flow's tuple: it is not its flow.
        let other = vm % 3 + 1;
        let (frame, _) = answer(v4, other, body(9), (8080, 80));
        bench.run(Hook::Tc(other.into()), &frame).passed("another VM", &frame, &[Reason::NotTranslated]);
    }
}

#[test]
fn a_flow_that_cannot_be_recorded_is_dropped() {
    let mut world = World::nat();
    world.options.flows = 4;
    world.services[1].rate = 2;
    let mut bench = Bench::ready(world);
    bench.runner(HOOKS[0]);
    bench.runner(HOOKS[1]);
    bench.at_the_start_of_an_epoch();
    for port in 1..=4 {
        let sent = tcp_packet(true, port, SYN);
        assert_eq!(bench.run(HOOKS[0], &sent.build()).verdict, Verdict::Redirect);
    }
    let sent = tcp_packet(true, 5, SYN).build();
    for hook in HOOKS {
        bench.run(hook, &sent).dropped("full", &[Reason::NatTableFull]);
    }
    for port in 0..20 {
        bench.runner(HOOKS[0]).run(&udp_packet(true, port).build(), 0).unwrap();
    }
    let (counted, _) = bench.counted();
    assert!(counted["nat_rate"] >= 10, "{counted:?}");
    assert_eq!(counted["nat_rate"] + counted["nat_table_full"], 20, "{counted:?}");
}

#[test]
fn a_target_without_an_address_of_the_family() {
    let mut world = World::nat();
    for target in &mut world.services[0].targets {
        target.addr6 = None;
    }
    let mut bench = Bench::ready(world);
    let sent = tcp_packet(false, 5, SYN).build();
    bench.run(HOOKS[0], &sent).dropped("v6", &[Reason::FlowRecorded, Reason::NatNoAddress]);
    assert_eq!(bench.run(HOOKS[0], &tcp_packet(true, 5, SYN).build()).verdict, Verdict::Redirect);
}

#[test]
fn every_checksum_comes_out_right() {
    // Payloads that bring the sum to every kind of value, 0 and 0xffff among them.
    let mut bench = Bench::ready(World::nat());
    for v4 in FAMILIES {
        for n in 0..2000_u16 {
            let word = (n.wrapping_mul(0x9e37)).to_be_bytes();
            let sent = packet(v4, Body::Udp { ports: (7, 53), checksum: true, data: word.to_vec() });
            let hook = HOOKS[usize::from(n % 2)];
            let (verdict, out) = bench.runner(hook).run(&sent.build(), 0).unwrap();
            assert_eq!(verdict, Verdict::Redirect);
            let vm = out[5];
            assert_eq!(out, translated(&sent, vm), "{n}");
        }
    }
    bench.settle();
    bench.set_state(3, State::Active);
}

#[test]
fn an_exclusive_port_needs_no_recorded_flow_on_the_way_back() {
    let mut world = World::nat();
    world.services[0].targets[1].exclusive = true;
    let mut bench = Bench::ready(world);
    for v4 in FAMILIES {
        let body = |own| Body::Tcp {
            ports: (own, 9),
            seq: 1,
            ack: 2,
            flags: ACK,
            options: Vec::new(),
            data: b"stateless".to_vec(),
        };
        let (own, expected) = answer(v4, 2, body, (8080, 80));
        let ran = bench.run(Hook::Tc(2), &own);
        ran.is("exclusive", Verdict::Pass, &expected, &[]);
        ran.parsed();
        let (own, _) = answer(v4, 2, body, (8081, 80));
        bench.run(Hook::Tc(2), &own).passed("another port of it", &own, &[Reason::NotTranslated]);
        let (own, _) = answer(v4, 1, body, (8080, 80));
        bench.run(Hook::Tc(1), &own).passed("not exclusive", &own, &[Reason::NotTranslated]);
    }
}

/// A client uses one port towards two VIPs that lead to one port of one VM.
#[test]
fn two_connections_that_would_be_one_to_the_target_are_not_opened() {
    let mut world = World::nat();
    let second: IpAddr = "192.0.2.11".parse().unwrap();
    world.services.iter_mut().for_each(|svc| svc.targets.truncate(1));
    let mut other = world.services[0].clone();
    other.vips = vec![second];
    world.services.push(other);
    let mut bench = Bench::ready(world);
    for (hook, port) in HOOKS.into_iter().zip([40000, 40100]) {
        let to = |vip: IpAddr, port, flags| Packet { dst: vip, ..tcp_packet(true, port, flags) };
        let first = ends(true).1;
        let steered = |ran: lbx_tests::bpf::bench::Ran, sent: &Packet, counted: &[Reason]| {
            ran.is("opened", Verdict::Redirect, &translated(sent, 1), counted);
        };
        steered(
            bench.run(hook, &to(first, port, SYN).build()),
            &to(first, port, SYN),
            &[Reason::FlowRecorded],
        );
        let conflicting = to(second, port, SYN);
        for _ in 0..2 {
            bench
                .run(hook, &conflicting.build())
                .dropped("the same tuple", &[Reason::FlowRecorded, Reason::NatConflict]);
        }
        // Another port of the client, and another protocol, are other tuples.
        let sent = to(second, port + 1, SYN);
        steered(bench.run(hook, &sent.build()), &sent, &[Reason::FlowRecorded]);
        steered(
            bench.run(hook, &udp_packet(true, port).build()),
            &udp_packet(true, port),
            &[Reason::FlowRecorded],
        );
        // The answer goes to the one that is open.
        let body = |own| Body::Tcp {
            ports: (own, port),
            seq: 1,
            ack: 2,
            flags: ACK,
            options: Vec::new(),
            data: Vec::new(),
        };
        let (own, expected) = answer(true, 1, body, (8080, 80));
        bench.run(Hook::Tc(1), &own).is("answer", Verdict::Pass, &expected, &[]);
        // Once the first is over the second may be opened.
        steered(bench.run(hook, &to(first, port, RST).build()), &to(first, port, RST), &[]);
        steered(bench.run(hook, &conflicting.build()), &conflicting, &[Reason::FlowRecorded]);
    }
    assert_eq!(bench.counters().services[2].drops, 4);
}

#[test]
fn a_vm_reaches_other_vms_through_the_vip_and_never_itself() {
    let mut bench = Bench::ready(World::nat());
    for v4 in FAMILIES {
        for port in 0..40 {
            let sent = Packet { eth_src: vm_mac(1), src: vm_addr(v4, 1), ..tcp_packet(v4, port, SYN) };
            let ran = bench.run(Hook::Tc(1), &sent.build());
            assert_eq!(ran.verdict, Verdict::Redirect, "{:?}", ran.counted);
            assert_ne!(ran.vm(), 1);
        }
        bench.set_state(1, State::Down);
        bench.set_state(2, State::Down);
        let sent = Packet { eth_src: vm_mac(1), src: vm_addr(v4, 1), ..tcp_packet(v4, 99, SYN) };
        bench.run(Hook::Tc(1), &sent.build()).dropped("only itself", &[Reason::SelfTarget]);
        bench.set_state(1, State::Active);
        bench.set_state(2, State::Active);
    }
}
