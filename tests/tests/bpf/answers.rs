//! What is answered for a VIP: ARP, neighbour solicitation, echo. And for whom and where it is not.

use std::net::Ipv6Addr;

use lbx_common::reason::Reason;
use lbx_common::reply::header::HOP_LIMIT;
use lbx_tests::bpf::world::{
    CLIENT_MAC, CLIENT4, CLIENT6, FAMILIES, SWITCH_MAC, UPLINK, VIP4, VIP6, ends, packet, vm_mac,
};
use lbx_tests::bpf::{Bench, Hook, Svc, Verdict, World};
use lbx_tests::packets::arp::{arp, solicit, solicited_node, who_has};
use lbx_tests::packets::{Body, Packet};

const HOOKS: [Hook; 2] = [Hook::Xdp(UPLINK), Hook::Tc(UPLINK)];

fn echo(v4: bool, request: bool) -> Body {
    let kind = match (v4, request) {
        (true, true) => 8,
        (true, false) => 0,
        (false, true) => 128,
        (false, false) => 129,
    };
    Body::Icmp { kind, code: 0, rest: [0x12, 0x34, 0, 7], data: b"an odd number of bytes!".to_vec() }
}

#[test]
fn echo_is_answered_by_the_vip() {
    let mut bench = Bench::ready(World::dsr());
    for hook in HOOKS {
        for v4 in FAMILIES {
            let asked = packet(v4, echo(v4, true));
            let (client, vip) = ends(v4);
            let mut answer = Packet::new((SWITCH_MAC, CLIENT_MAC), vip, client, echo(v4, false));
            answer.ttl = HOP_LIMIT;
            let ran = bench.run(hook, &asked.build());
            ran.is("echo", Verdict::Redirect, &answer.build(), &[Reason::EchoAnswered]);
            ran.parsed();
        }
    }
}

#[test]
fn an_echo_that_is_not_for_us_goes_on() {
    let mut world = World::dsr();
    world.services.iter_mut().for_each(|s| s.answer = false);
    // One at a time: a bench's namespace is its thread's.
    let mut bench = Bench::ready(world);
    for v4 in FAMILIES {
        let frame = packet(v4, echo(v4, true)).build();
        bench.run(HOOKS[0], &frame).passed("not answered for", &frame, &[Reason::NotAService]);
    }
    drop(bench);
    let mut bench = Bench::ready(World::dsr());
    for v4 in FAMILIES {
        let asked = packet(v4, echo(v4, true));
        let frame = asked.clone().tagged(9).build();
        bench.run(HOOKS[0], &frame).passed("another VLAN", &frame, &[Reason::NotAService]);
        let frame = Packet { eth_dst: vm_mac(2), ..asked.clone() }.build();
        bench.run(HOOKS[0], &frame).passed("to a VM", &frame, &[Reason::NotAddressed]);
        let frame = packet(v4, echo(v4, false)).build();
        bench.run(HOOKS[0], &frame).passed("a reply", &frame, &[Reason::NotAService]);
        let frame =
            Packet { src: if v4 { "224.0.0.5" } else { "ff02::5" }.parse().unwrap(), ..asked }.build();
        bench.run(HOOKS[0], &frame).passed("from a group", &frame, &[Reason::NotAService]);
    }
    let mut options = packet(true, echo(true, true));
    options.options = vec![1, 1, 1, 0];
    let frame = options.build();
    bench.run(HOOKS[0], &frame).passed("with options", &frame, &[Reason::NotAService]);
    let frame = packet(true, Body::Icmp { kind: 13, code: 0, rest: [0; 4], data: vec![0; 12] }).build();
    bench.run(HOOKS[0], &frame).passed("timestamp", &frame, &[Reason::NotAService]);
}

#[test]
fn who_has_the_vip() {
    let mut world = World::dsr();
    world.ports[3].switch = 1;
    let mut bench = Bench::ready(world);
    let asked = who_has(CLIENT_MAC, CLIENT4, VIP4);
    let answer = arp(2, (SWITCH_MAC, CLIENT_MAC), (SWITCH_MAC, VIP4), (CLIENT_MAC, CLIENT4));
    for hook in HOOKS {
        bench.run(hook, &asked).is("broadcast", Verdict::Redirect, &answer, &[Reason::ArpAnswered]);
        let mut unicast = asked.clone();
        unicast[..6].copy_from_slice(&SWITCH_MAC);
        bench.run(hook, &unicast).is("unicast", Verdict::Redirect, &answer, &[Reason::ArpAnswered]);
    }
    let mut tagged = asked.clone();
    tagged.splice(12..12, [0x81, 0, 0, 9]);
    let mut to_a_vm = asked.clone();
    to_a_vm[..6].copy_from_slice(&vm_mac(1));
    let cases = [
        ("another address", who_has(CLIENT_MAC, CLIENT4, CLIENT4)),
        ("another VLAN", tagged),
        ("to a VM", to_a_vm),
        ("a reply", arp(2, (CLIENT_MAC, [0xff; 6]), (CLIENT_MAC, CLIENT4), (SWITCH_MAC, VIP4))),
        ("cut off", asked[..36].to_vec()),
    ];
    for (what, frame) in cases {
        for hook in HOOKS {
            bench.run(hook, &frame).passed(what, &frame, &[]);
        }
    }
    bench.run(Hook::Xdp(3), &asked).passed("on another switch", &asked, &[]);
}

#[test]
fn the_same_vip_on_several_vlans() {
    let mut world = World::dsr();
    world.filter_vlans(1, &[1, 10, 20, 30, 40, 50]);
    // More services than rules fit beside an address; the one on 50 is not answered for.
    let one = world.services[0].clone();
    world.services = [1, 10, 20, 30, 40, 50]
        .map(|vlan| Svc { vlan, answer: vlan != 50, targets: one.targets[..1].to_vec(), ..one.clone() })
        .to_vec();
    let mut bench = Bench::ready(world);
    let asked = who_has(CLIENT_MAC, CLIENT4, VIP4);
    let answer = arp(2, (SWITCH_MAC, CLIENT_MAC), (SWITCH_MAC, VIP4), (CLIENT_MAC, CLIENT4));
    let tagged = |frame: &[u8], vlan: u8| {
        let mut frame = frame.to_vec();
        if vlan != 1 {
            frame.splice(12..12, [0x81, 0, 0, vlan]);
        }
        frame
    };
    for vlan in [1, 10, 20, 30, 40] {
        let (asked, answer) = (tagged(&asked, vlan), tagged(&answer, vlan));
        let what = format!("VLAN {vlan}");
        bench.run(HOOKS[0], &asked).is(&what, Verdict::Redirect, &answer, &[Reason::ArpAnswered]);
        // At tc the tag ends up beside the frame, where a test run does not show it.
        assert_eq!(bench.run(HOOKS[1], &asked).verdict, Verdict::Redirect, "{what}, tc");
    }
    for vlan in [50, 60] {
        let asked = tagged(&asked, vlan);
        for hook in HOOKS {
            bench.run(hook, &asked).passed("nobody asked us to", &asked, &[]);
        }
    }
}

/// The advertisement: to whom, with which flags.
fn advertisement(mac: [u8; 6], to: Ipv6Addr, flags: u8) -> Vec<u8> {
    let mut data = VIP6.octets().to_vec();
    data.extend([2, 1]);
    data.extend(SWITCH_MAC);
    let body = Body::Icmp { kind: 136, code: 0, rest: [flags, 0, 0, 0], data };
    Packet { ttl: 255, ..Packet::new((SWITCH_MAC, mac), VIP6.into(), to.into(), body) }.build()
}

#[test]
fn where_is_the_vip() {
    let mut bench = Bench::ready(World::dsr());
    let asked = solicit(CLIENT_MAC, CLIENT6, VIP6);
    let unicast = Packet { eth_dst: SWITCH_MAC, dst: VIP6.into(), ..asked.clone() };
    let mut probe = Packet { src: Ipv6Addr::UNSPECIFIED.into(), ..asked.clone() };
    if let Body::Icmp { data, .. } = &mut probe.body {
        data.truncate(16);
    }
    let all_nodes = ([0x33, 0x33, 0, 0, 0, 1], "ff02::1".parse().unwrap());
    for hook in HOOKS {
        for (what, packet, answer) in [
            ("multicast", &asked, advertisement(CLIENT_MAC, CLIENT6, 0x60)),
            ("unicast", &unicast, advertisement(CLIENT_MAC, CLIENT6, 0x60)),
            ("duplicate detection", &probe, advertisement(all_nodes.0, all_nodes.1, 0x20)),
        ] {
            let ran = bench.run(hook, &packet.build());
            ran.is(what, Verdict::Redirect, &answer, &[Reason::NdAnswered]);
            ran.parsed();
        }
        let mut broken = asked.build();
        *broken.last_mut().unwrap() ^= 1;
        let (mac, group) = solicited_node(CLIENT6);
        let cases = [
            ("a wrong checksum", broken),
            ("from afar", Packet { ttl: 254, ..asked.clone() }.build()),
            ("another address", solicit(CLIENT_MAC, CLIENT6, CLIENT6).build()),
            ("another group", Packet { eth_dst: mac, dst: group.into(), ..asked.clone() }.build()),
            ("another VLAN", asked.clone().tagged(9).build()),
        ];
        for (what, frame) in cases {
            bench.run(hook, &frame).passed(what, &frame, &[]);
        }
    }
}

#[test]
fn answers_have_a_rate_and_observing_answers_nothing() {
    let mut world = World::dsr();
    world.options.answer_rate = 4;
    let mut bench = Bench::ready(world);
    let asked = packet(true, echo(true, true)).build();
    for _ in 0..40 {
        bench.runner(HOOKS[0]).run(&asked, 0).unwrap();
    }
    let (counted, _) = bench.counted();
    assert!((4..30).contains(&counted["echo_answered"]), "{counted:?}");
    assert_eq!(counted["answer_rate"], 40 - counted["echo_answered"]);
    bench.maps().set_observe(true).unwrap();
    for hook in HOOKS {
        bench.run(hook, &asked).passed("observing", &asked, &[Reason::Observed]);
    }
}
