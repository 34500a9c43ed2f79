//! Frames on their way out (`lbx_tc_egress`): what the host itself sends to a VIP, and answers of nat targets that
//! the bridge delivers to.

use std::net::IpAddr;

use lbx_common::port::flags as port_flags;
use lbx_common::reason::Reason;
use lbx_common::target::Deliver;
use lbx_tests::bpf::world::{
    CLIENT_MAC, FAMILIES, SWITCH_MAC, UPLINK, ends, tcp_packet, udp_packet, vm_mac, vm4, vm6,
};
use lbx_tests::bpf::{Bench, Hook, Verdict, World};
use lbx_tests::packets::check::{check, transport_sum};
use lbx_tests::packets::tcp::{ACK, SYN};
use lbx_tests::packets::{Body, Fragment, Packet};

/// Index of the switch device in [`with_switch`].
const SWITCH: u32 = 4;

/// With the switch device as a port.
fn with_switch(mut world: World) -> World {
    let mut switch = world.ports[UPLINK as usize];
    (switch.flags, switch.mac) = (port_flags::SWITCH, SWITCH_MAC);
    world.ports.push(switch);
    world
}

/// `nat` with the bridge in between, translated back where it leaves.
fn behind_bridge() -> World {
    let mut world = with_switch(World::nat());
    for target in world.services.iter_mut().flat_map(|svc| &mut svc.targets) {
        target.deliver = Deliver::Bridge;
    }
    for port in &mut world.ports[..4] {
        port.flags |= port_flags::BACK_AT_EGRESS;
    }
    world
}

fn vm_addr(v4: bool, vm: u8) -> IpAddr {
    if v4 { vm4(vm).into() } else { vm6(vm).into() }
}

/// From port 8080 of a VM to a MAC and a port of the client.
fn answer(v4: bool, vm: u8, to: [u8; 6], port: u16) -> Packet {
    let body =
        Body::Tcp { ports: (8080, port), seq: 1, ack: 2, flags: ACK, options: vec![], data: vec![5; 99] };
    Packet::new((vm_mac(vm), to), vm_addr(v4, vm), ends(v4).0, body)
}

/// The same with the address and port that the client knows.
fn from_vip(own: &Packet) -> Packet {
    let mut packet = Packet { src: ends(own.src.is_ipv4()).1, ..own.clone() };
    match &mut packet.body {
        Body::Tcp { ports, .. } => ports.0 = 80,
        Body::Udp { ports, .. } => ports.0 = 53,
        _ => unreachable!(),
    }
    packet
}

#[test]
fn what_the_host_sends_to_a_vip_is_steered_and_nothing_else_that_leaves() {
    let mut bench = Bench::ready(with_switch(World::dsr()));
    for v4 in FAMILIES {
        let frame = tcp_packet(v4, 5, SYN).build();
        let vm = bench.run(Hook::Out(SWITCH, SWITCH), &frame).steered("own", &frame, &[Reason::FlowRecorded]);
        let frame = tcp_packet(v4, 5, ACK).build();
        assert_eq!(bench.run(Hook::Out(SWITCH, SWITCH), &frame).steered("again", &frame, &[]), vm);
        let other = Packet { dst: vm_addr(v4, 1), ..tcp_packet(v4, 5, SYN) }.build();
        bench.run(Hook::Out(SWITCH, SWITCH), &other).passed("no VIP", &other, &[]);
        // A frame to a VIP leaves by a port because somebody meant it to: steered already, or not ours.
        for port in [UPLINK, 1] {
            bench.run(Hook::Out(port, 2), &frame).passed("leaves", &frame, &[]);
        }
    }
}

#[test]
fn answers_behind_the_bridge_are_translated_where_they_leave() {
    let mut bench = Bench::ready(behind_bridge());
    for v4 in FAMILIES {
        let ran = bench.run(Hook::Tc(UPLINK), &tcp_packet(v4, 7, SYN).build());
        let vm = ran.vm();
        ran.is("in", Verdict::Pass, &ran.frame, &[Reason::FlowRecorded]);
        assert_eq!(ran.parsed().dst, vm_addr(v4, vm));

        let own = answer(v4, vm, CLIENT_MAC, 7);
        let (frame, vip) = (own.build(), from_vip(&own).build());
        bench.run(Hook::Tc(vm.into()), &frame).passed("enters the bridge", &frame, &[]);
        assert_eq!(bench.counters().services[0].returns, if v4 { 0 } else { 3 }, "not counted yet");
        let other_vm = u32::from(vm % 3 + 1);
        for leaves_by in [UPLINK, other_vm] {
            let ran = bench.run(Hook::Out(leaves_by, vm.into()), &frame);
            ran.is("leaves it", Verdict::Pass, &vip, &[]);
            ran.parsed();
            // As it would be if it were flooded or mirrored: once is enough.
            bench.run(Hook::Out(leaves_by, vm.into()), &vip).passed("translated already", &vip, &[]);
        }
        // To the host itself, or routed by it: it knows the connection by the VIP.
        let own = answer(v4, vm, SWITCH_MAC, 7);
        let ran = bench.run(Hook::Tc(vm.into()), &own.build());
        ran.is("to the host", Verdict::Pass, &from_vip(&own).build(), &[]);
        // A direct connection is counted once, and left alone twice.
        let direct = answer(v4, vm, CLIENT_MAC, 1234).build();
        bench.run(Hook::Tc(vm.into()), &direct).passed("direct", &direct, &[Reason::NotTranslated]);
        bench.run(Hook::Out(UPLINK, vm.into()), &direct).passed("direct, out", &direct, &[]);
    }
}

#[test]
fn an_answer_to_what_was_redirected_does_not_wait() {
    let mut world = behind_bridge();
    for target in world.services.iter_mut().flat_map(|svc| &mut svc.targets) {
        target.deliver = Deliver::Redirect;
    }
    let mut bench = Bench::ready(world);
    for v4 in FAMILIES {
        let vm = bench.run(Hook::Xdp(UPLINK), &tcp_packet(v4, 7, SYN).build()).vm();
        let own = answer(v4, vm, CLIENT_MAC, 7);
        let ran = bench.run(Hook::Tc(vm.into()), &own.build());
        ran.is("at once", Verdict::Pass, &from_vip(&own).build(), &[]);
    }
}

#[test]
fn fragments_and_errors_wait_as_well() {
    let mut bench = Bench::ready(behind_bridge());
    for v4 in FAMILIES {
        let (client, vip) = ends(v4);
        let asked = bench.run(Hook::Xdp(UPLINK), &udp_packet(v4, 7).build());
        let vm = asked.vm();
        bench.settle();
        let mut out = Vec::new();
        for offset in [0, 400, 800] {
            let fragment = Some(Fragment { id: 77, offset, len: 400, more: offset < 800 });
            let body = Body::Udp { ports: (5353, 7), checksum: true, data: vec![3; 992] };
            let own =
                Packet { fragment, ..Packet::new((vm_mac(vm), CLIENT_MAC), vm_addr(v4, vm), client, body) };
            let frame = own.build();
            bench.run(Hook::Tc(vm.into()), &frame).passed("enters", &frame, &[]);
            let counted: &[Reason] = if offset == 0 { &[] } else { &[Reason::FragmentFollowed] };
            let ran = bench.run(Hook::Out(UPLINK, vm.into()), &frame);
            ran.is("leaves", Verdict::Pass, &ran.frame, counted);
            let parsed = check(&ran.frame).unwrap();
            assert_eq!((parsed.src, parsed.dst), (vip, client));
            out.extend(parsed.payload);
        }
        assert_eq!((out.len(), &out[..2]), (1000, &53_u16.to_be_bytes()[..]));
        assert_eq!(transport_sum(vip, client, 17, &out), 0);

        let (kind, code) = if v4 { (3, 3) } else { (1, 4) };
        let body = Body::Icmp { kind, code, rest: [0; 4], data: asked.frame[14..].to_vec() };
        let frame = Packet::new((vm_mac(vm), CLIENT_MAC), vm_addr(v4, vm), client, body).build();
        bench.run(Hook::Tc(vm.into()), &frame).passed("an error enters", &frame, &[]);
        let ran = bench.run(Hook::Out(UPLINK, vm.into()), &frame);
        ran.is("an error leaves", Verdict::Pass, &ran.frame, &[Reason::IcmpFollowed]);
        assert_eq!((ran.parsed().src, ran.parsed().dst), (vip, client));
    }
}
