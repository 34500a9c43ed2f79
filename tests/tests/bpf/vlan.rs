//! VLANs: the tag a frame has, the VLAN it belongs to, and the tag the target's port wants.

use std::time::Duration;

use lbx_common::reason::Reason;
use lbx_tests::bpf::wire::Wire;
use lbx_tests::bpf::world::{FAMILIES, UPLINK, tcp_packet, vm_mac};
use lbx_tests::bpf::{Bench, Hook, Verdict, World};
use lbx_tests::packets::tcp::SYN;
use lbx_tests::packets::{Packet, VLAN};

const XDP: Hook = Hook::Xdp(UPLINK);

/// A bridge that filters: untagged frames belong to 1, the service is on `service`, its ports want `wanted`.
fn world(service: u16, wanted: u16) -> World {
    let mut world = World::dsr();
    world.filter_vlans(1, &[1, 10, 20]);
    for svc in &mut world.services {
        svc.vlan = service;
        svc.targets.iter_mut().for_each(|t| t.vlan = wanted);
    }
    world
}

/// The service's VLAN, the tag of the frame, the tag of the port, the tag that comes out.
const ROWS: [(u16, Option<u16>, u16, Option<u16>); 6] = [
    (1, None, 0, None),
    (1, None, 1, Some(1)),
    (1, Some(1), 0, None),
    (10, Some(10), 0, None),
    (10, Some(10), 10, Some(10)),
    // A priority tag (VLAN 0) belongs to the port's own VLAN.
    (1, Some(0), 0, None),
];

#[test]
fn tags_are_taken_off_put_on_and_kept() {
    for (n, (service, tag, wanted, out)) in ROWS.into_iter().enumerate() {
        let mut bench = Bench::ready(world(service, wanted));
        for v4 in FAMILIES {
            let plain = tcp_packet(v4, 50, SYN);
            let tagged = |tag: Option<u16>| Packet {
                tags: tag.map(|t| (VLAN, t)).into_iter().collect(),
                ..plain.clone()
            };
            let ran = bench.run(XDP, &tagged(tag).build());
            let expected = Packet { eth_dst: vm_mac(ran.vm()), ..tagged(out) };
            ran.is(&format!("row {n}"), Verdict::Redirect, &expected.build(), &[Reason::FlowRecorded]);
            ran.parsed();
            if out == tag || out.is_none() {
                // At tc a tag that is put on lies beside the frame, where a test run does not show it.
                let ran = bench.run(Hook::Tc(UPLINK), &tagged(tag).build());
                ran.is(&format!("row {n}, tc"), Verdict::Redirect, &expected.build(), &[]);
            }
        }
    }
}

#[test]
fn a_frame_stays_in_its_vlan() {
    let mut bench = Bench::ready(world(10, 10));
    let frame = |vlan: u16| tcp_packet(true, 60, SYN).tagged(vlan).build();
    for hook in [XDP, Hook::Tc(UPLINK)] {
        let untagged = tcp_packet(true, 60, SYN).build();
        bench.run(hook, &untagged).passed("untagged: VLAN 1", &untagged, &[Reason::NotAService]);
        bench.run(hook, &frame(20)).passed("another VLAN", &frame(20), &[Reason::NotAService]);
    }
    // No target's port is a member.
    let mut closed = world(10, 10);
    closed.ports[1..].iter_mut().for_each(|p| p.vlans[0] &= !(1 << 10));
    let mut bench = Bench::ready(closed);
    let refused = [Reason::FlowRecorded, Reason::VlanNotMember];
    bench.run(XDP, &frame(10)).dropped("not a member", &refused);
    bench.run(Hook::Tc(UPLINK), &frame(10)).dropped("not a member", &refused[1..]);
    // The ingress port is not.
    let mut closed = world(10, 10);
    closed.ports[0].vlans[0] &= !(1 << 10);
    let mut bench = Bench::ready(closed);
    bench.run(XDP, &frame(10)).dropped("ingress", &[Reason::VlanIngress]);
}

/// A real port takes the tag out of the frame before tc sees it (`skb_vlan_untag`), and one that is put on there goes
/// onto the wire.
#[test]
fn a_tag_that_lies_beside_the_frame_counts_as_well() {
    let more = [(10, Some(10), 20, Some(20)), (1, Some(0), 20, Some(20))];
    for (n, (service, tag, wanted, out)) in ROWS.into_iter().chain(more).enumerate() {
        let mut world = world(service, wanted);
        world.services.iter_mut().for_each(|svc| svc.targets.truncate(1));
        let mut bench = Bench::ready(world);
        bench.runner(Hook::Tc(UPLINK));
        let (from, to) = (Wire::plug(UPLINK).unwrap(), Wire::plug(1).unwrap());
        for v4 in FAMILIES {
            let plain = tcp_packet(v4, 50, SYN);
            let tagged = |tag: Option<u16>| Packet {
                tags: tag.map(|t| (VLAN, t)).into_iter().collect(),
                ..plain.clone()
            };
            bench.settle();
            from.send(&tagged(tag).build()).unwrap();
            let got = to.receive(vm_mac(1), Duration::from_secs(2)).unwrap();
            let expected = Packet { eth_dst: vm_mac(1), ..tagged(out) }.build();
            assert_eq!(got, Some(expected), "row {n}: {:?}", bench.counted());
        }
    }
}

#[test]
fn a_tag_beside_the_frame_keeps_it_in_its_vlan() {
    let mut bench = Bench::ready(world(10, 10));
    bench.runner(Hook::Tc(UPLINK));
    let from = Wire::plug(UPLINK).unwrap();
    let wires: Vec<_> = (1..4).map(|n| Wire::plug(n).unwrap()).collect();
    for (tag, what) in [(None, "untagged"), (Some(20), "another VLAN")] {
        bench.settle();
        let plain = tcp_packet(true, 60, SYN);
        let frame = tag.map_or(plain.clone(), |tag| plain.tagged(tag)).build();
        from.send(&frame).unwrap();
        for (wire, vm) in wires.iter().zip(1..) {
            let got = wire.receive(vm_mac(vm), Duration::from_millis(300)).unwrap();
            assert_eq!(got, None, "{what}");
        }
        assert_eq!(bench.counted().0.get("not_a_service"), Some(&1), "{what}");
    }
}
