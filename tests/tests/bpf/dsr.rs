//! `dsr`: what is steered and what passes; nothing but the destination MAC changes.

use lbx_common::control::flags as control_flags;
use lbx_common::port::flags as port_flags;
use lbx_common::reason::Reason;
use lbx_common::service::flags as service_flags;
use lbx_common::target::Deliver;
use lbx_tests::bpf::bench::hex;
use lbx_tests::bpf::world::{
    FAMILIES, SWITCH_MAC, UPLINK, UPLINK_MAC, VIP4, ends, tcp_packet, udp_packet, vm_mac,
};
use lbx_tests::bpf::{Bench, Hook, Verdict, World};
use lbx_tests::packets::tcp::{ACK, FIN, PSH, SYN};
use lbx_tests::packets::{Body, Packet, SERVICE_VLAN, VLAN, protocol};

const HOOKS: [Hook; 2] = [Hook::Xdp(UPLINK), Hook::Tc(UPLINK)];

#[test]
fn a_new_flow_is_recorded_and_stays() {
    let mut bench = Bench::ready(World::dsr());
    for (hook, port) in HOOKS.into_iter().zip(40000..) {
        for v4 in FAMILIES {
            let frame = tcp_packet(v4, port, SYN).build();
            let vm = bench.run(hook, &frame).steered("syn", &frame, &[Reason::FlowRecorded]);
            for flags in [SYN, ACK, PSH | ACK, FIN | ACK] {
                let frame = tcp_packet(v4, port, flags).build();
                assert_eq!(bench.run(hook, &frame).steered("known", &frame, &[]), vm);
            }
            let frame = udp_packet(v4, port).build();
            let vm = bench.run(hook, &frame).steered("datagram", &frame, &[Reason::FlowRecorded]);
            assert_eq!(bench.run(hook, &frame).steered("second", &frame, &[]), vm);
        }
    }
}

#[test]
fn what_is_of_no_service_passes_as_it_came() {
    let mut bench = Bench::ready(World::dsr());
    for v4 in FAMILIES {
        let syn = tcp_packet(v4, 1, SYN);
        let with = |change: fn(&mut Packet)| {
            let mut packet = syn.clone();
            change(&mut packet);
            packet.build()
        };
        let other_port = |packet: Packet, port: u16| {
            let mut frame = packet.build();
            let at = packet.l4() + 2;
            frame[at..at + 2].copy_from_slice(&port.to_be_bytes());
            frame
        };
        let truncated = |keep: usize| {
            let mut frame = with(|p| std::mem::swap(&mut p.src, &mut p.dst));
            frame.truncate(keep);
            frame
        };
        let cases: Vec<(&str, Vec<u8>, &[Reason])> = vec![
            ("another port", other_port(syn.clone(), 81), &[Reason::NotAService]),
            ("another protocol's port", other_port(udp_packet(v4, 1), 80), &[Reason::NotAService]),
            ("another protocol", with(|p| p.body = Body::Raw(132, vec![0; 12])), &[Reason::NotAService]),
            ("from the VIP", with(|p| std::mem::swap(&mut p.src, &mut p.dst)), &[]),
            ("to a VM's MAC", with(|p| p.eth_dst = vm_mac(1)), &[Reason::NotAddressed]),
            ("broadcast", with(|p| p.eth_dst = [0xff; 6]), &[Reason::NotAddressed]),
            ("two tags", with(|p| p.tags = vec![(VLAN, 5), (VLAN, 6)]), &[]),
            ("two tags, the outer a service tag", with(|p| p.tags = vec![(SERVICE_VLAN, 5), (VLAN, 6)]), &[]),
            ("another VLAN", with(|p| p.tags = vec![(VLAN, 5)]), &[Reason::NotAService]),
            ("of none of ours, cut off in the TCP header", truncated(syn.l4() + 5), &[]),
            ("of none of ours, cut off in the IP header", truncated(14 + 12), &[]),
            ("a bare Ethernet header", truncated(14), &[]),
        ];
        for (what, frame, counted) in cases {
            for hook in HOOKS {
                if matches!(hook, Hook::Tc(_)) && frame.len() < 40 {
                    continue; // the test run itself refuses an skb without its network header
                }
                bench.run(hook, &frame).passed(&format!("{what} {hook:?} v4 {v4}"), &frame, counted);
            }
        }
    }
    // Not IP at all.
    let mut frame = vec![0xff; 64];
    frame[12..14].copy_from_slice(&[0x88, 0xcc]);
    bench.run(Hook::Xdp(UPLINK), &frame).passed("LLDP", &frame, &[]);
}

#[test]
fn both_macs_of_the_switch_are_ours() {
    let mut bench = Bench::ready(World::dsr());
    for (mac, port) in [(SWITCH_MAC, 7), (UPLINK_MAC, 8)] {
        let frame = Packet { eth_dst: mac, ..tcp_packet(true, port, SYN) }.build();
        bench.run(Hook::Xdp(UPLINK), &frame).steered("to the switch", &frame, &[Reason::FlowRecorded]);
    }
}

#[test]
fn bypass_observe_and_suspension() {
    let mut bench = Bench::ready(World::dsr());
    let frame = tcp_packet(true, 9, SYN).build();
    for hook in HOOKS {
        bench.maps().set_bypass(true).unwrap();
        assert_eq!(bench.maps().control().unwrap().flags, control_flags::BYPASS);
        bench.run(hook, &frame).passed("bypass", &frame, &[]);
        bench.maps().set_bypass(false).unwrap();

        bench.world.services[0].flags &= !service_flags::ACTIVE;
        bench.write_service(0);
        bench.maps().write_addresses(&bench.world.addresses()).unwrap();
        bench.run(hook, &frame).passed("suspended", &frame, &[Reason::Suspended]);
        bench.world.services[0].flags |= service_flags::ACTIVE;
        bench.write_service(0);
        bench.maps().write_addresses(&bench.world.addresses()).unwrap();
    }
    bench.maps().set_observe(true).unwrap();
    let first = bench.run(Hook::Xdp(UPLINK), &frame);
    first.passed("observed", &frame, &[Reason::FlowRecorded, Reason::Observed]);
    bench.run(Hook::Tc(UPLINK), &frame).passed("observed again", &frame, &[Reason::Observed]);
    assert_eq!(bench.counters().services[0].observed, 2);
    for target in 0..3 {
        bench.set_state(target, lbx_common::target::State::Blackholed);
    }
    bench.run(Hook::Xdp(UPLINK), &frame).passed("a drop observed", &frame, &[Reason::Blackholed]);
    bench.maps().set_observe(false).unwrap();
    bench.run(Hook::Xdp(UPLINK), &frame).dropped("a drop", &[Reason::Blackholed]);
}

#[test]
fn delivery_by_the_bridge_and_out_of_the_uplink() {
    let mut world = World::dsr();
    for target in &mut world.services[0].targets {
        target.deliver = Deliver::Bridge;
    }
    // Machines on the uplink's segment.
    for target in &mut world.services[1].targets {
        (target.deliver, target.port) = (Deliver::Uplink, UPLINK);
    }
    let mut bench = Bench::ready(world);
    for hook in HOOKS {
        for v4 in FAMILIES {
            let port = 100 + u16::from(hook == HOOKS[1]);
            let frame = tcp_packet(v4, port, SYN).build();
            let ran = bench.run(hook, &frame);
            let mut expected = frame.clone();
            expected[..6].copy_from_slice(&vm_mac(ran.vm()));
            ran.is("bridge", Verdict::Pass, &expected, &[Reason::FlowRecorded]);

            let frame = udp_packet(v4, port).build();
            let ran = bench.run(hook, &frame);
            let mut expected = frame.clone();
            expected[..6].copy_from_slice(&vm_mac(ran.vm()));
            expected[6..12].copy_from_slice(&UPLINK_MAC);
            ran.is("uplink", Verdict::Redirect, &expected, &[Reason::FlowRecorded]);
        }
    }
}

#[test]
fn the_bridge_sees_a_clients_mac_once() {
    let mut world = World::dsr();
    world.ports[UPLINK as usize].flags |= port_flags::LEARNING;
    let mut bench = Bench::ready(world);
    let frame = tcp_packet(true, 1, SYN).build();
    let ran = bench.run(Hook::Xdp(UPLINK), &frame);
    let mut expected = frame.clone();
    expected[..6].copy_from_slice(&vm_mac(ran.vm()));
    ran.is("first", Verdict::Pass, &expected, &[Reason::FlowRecorded, Reason::Learned]);
    bench.run(Hook::Xdp(UPLINK), &frame).steered("the flow again", &frame, &[]);
    let frame = tcp_packet(true, 2, SYN).build();
    bench.run(Hook::Xdp(UPLINK), &frame).steered("another flow", &frame, &[Reason::FlowRecorded]);
    let frame = Packet { eth_src: [2, 0, 0, 0, 0, 0xc2], ..tcp_packet(true, 3, SYN) }.build();
    let ran = bench.run(Hook::Xdp(UPLINK), &frame);
    assert_eq!(ran.verdict, Verdict::Pass, "another MAC: {:?}", ran.counted);
    assert_eq!(ran.counted.get("learned"), Some(&1));
}

#[test]
fn a_frame_never_goes_back_where_it_came_from() {
    let mut world = World::dsr();
    world.services[0].targets.truncate(1);
    let mut bench = Bench::ready(world);
    let frame = Packet { eth_src: vm_mac(1), ..tcp_packet(true, 5, SYN) }.build();
    for hook in [Hook::Xdp(1), Hook::Tc(1)] {
        bench.run(hook, &frame).dropped("only itself", &[Reason::SelfTarget]);
    }
    let mut bench = Bench::ready(World::dsr());
    // A flow that was recorded elsewhere: it does not move, and there is no way to its target from here.
    let port = bench.flow_to(Hook::Xdp(UPLINK), true, 1, 1000);
    let frame = Packet { eth_src: vm_mac(1), ..tcp_packet(true, port, ACK) }.build();
    for hook in [Hook::Xdp(1), Hook::Tc(1)] {
        bench.run(hook, &frame).dropped("recorded", &[Reason::WouldLoop]);
    }
    for port in 0..50 {
        let frame = Packet { eth_src: vm_mac(1), ..tcp_packet(true, port, SYN) }.build();
        let ran = bench.run(Hook::Tc(1), &frame);
        assert_ne!(ran.vm(), 1, "{}", hex(&ran.frame));
    }
}

#[test]
fn all_ports_a_range_and_many_rules() {
    let mut world = World::dsr();
    world.services[0].ports = (0, 65535);
    world.services[1].ports = (1000, 2000);
    for port in 3000..3020 {
        let mut svc = world.services[1].clone();
        (svc.ports, svc.targets) = ((port, port), Vec::new());
        world.services.push(svc);
    }
    let mut bench = Bench::ready(world);
    let (src, dst) = ends(true);
    let frame = |protocol, port| {
        let (ports, data) = ((5, port), Vec::new());
        let body = match protocol {
            protocol::TCP => Body::Tcp { ports, seq: 0, ack: 0, flags: SYN, options: vec![], data },
            _ => Body::Udp { ports, checksum: true, data },
        };
        Packet::new(([2; 6], SWITCH_MAC), src, dst, body).build()
    };
    assert_eq!(dst, VIP4);
    let xdp = Hook::Xdp(UPLINK);
    for port in [0, 1, 80, 65535] {
        let frame = frame(protocol::TCP, port);
        bench.run(xdp, &frame).steered("all ports", &frame, &[Reason::FlowRecorded]);
    }
    for port in [1000, 2000] {
        let frame = frame(protocol::UDP, port);
        bench.run(xdp, &frame).steered("range", &frame, &[Reason::FlowRecorded]);
    }
    for port in [999, 2001, 2999, 3020] {
        let frame = frame(protocol::UDP, port);
        bench.run(xdp, &frame).passed("outside", &frame, &[Reason::NotAService]);
    }
    for port in 3000..3020 {
        bench.run(xdp, &frame(protocol::UDP, port)).dropped("no target", &[Reason::NoTarget]);
    }
}
