//! Truncated and inconsistent packets of a service: dropped, each with its name. At both hooks, both families.

use lbx_common::reason::Reason;
use lbx_tests::bpf::world::{FAMILIES, UPLINK, tcp_packet, udp_packet};
use lbx_tests::bpf::{Bench, Hook, World};
use lbx_tests::packets::tcp::{PSH, SYN};

/// What is wrong, the frame, and its name.
fn cases(v4: bool) -> Vec<(&'static str, Vec<u8>, Reason)> {
    let tcp = tcp_packet(v4, 9, PSH | SYN);
    let udp = udp_packet(v4, 9);
    let (l3, l4) = (tcp.l3(), tcp.l4());
    let set = |mut frame: Vec<u8>, at: usize, value: &[u8]| {
        frame[at..at + value.len()].copy_from_slice(value);
        frame
    };
    let cut = |mut frame: Vec<u8>, keep: usize| {
        frame.truncate(keep);
        frame
    };
    // The length field of the IP header, for so many bytes of transport.
    let length = |frame: Vec<u8>, n: u16| {
        let field = if v4 { n + 20 } else { n };
        set(frame, l3 + if v4 { 2 } else { 4 }, &field.to_be_bytes())
    };
    let (tcp, udp) = (tcp.build(), udp.build());
    let mut all = vec![
        ("IP length beyond the frame", length(tcp.clone(), 30), Reason::BadIpLength),
        ("frame cut off", cut(tcp.clone(), l4 + 25), Reason::BadIpLength),
        ("too short for TCP", length(tcp.clone(), 19), Reason::TruncatedL4),
        ("too short for UDP", length(udp.clone(), 7), Reason::TruncatedL4),
        ("no transport at all", length(tcp.clone(), 0), Reason::TruncatedL4),
        ("data offset 4", set(tcp.clone(), l4 + 12, &[0x40]), Reason::BadL4Length),
        ("data offset beyond the packet", set(tcp.clone(), l4 + 12, &[0xf0]), Reason::BadL4Length),
        ("UDP length 7", set(udp.clone(), l4 + 4, &[0, 7]), Reason::BadL4Length),
        ("UDP length beyond the packet", set(udp.clone(), l4 + 4, &[0, 200]), Reason::BadL4Length),
        ("version 5", set(tcp.clone(), l3, &[if v4 { 0x55 } else { 0x50 }]), Reason::BadIpHeader),
    ];
    if v4 {
        all.extend([
            ("header length 4", set(tcp.clone(), l3, &[0x44]), Reason::BadIpHeader),
            ("IP length below the header", set(tcp.clone(), l3 + 2, &[0, 19]), Reason::BadIpLength),
            ("IP length 0", set(tcp, l3 + 2, &[0, 0]), Reason::BadIpLength),
        ]);
    }
    all
}

#[test]
fn dropped_by_name() {
    let mut bench = Bench::ready(World::dsr());
    for v4 in FAMILIES {
        for (what, frame, reason) in cases(v4) {
            for hook in [Hook::Xdp(UPLINK), Hook::Tc(UPLINK)] {
                let ran = bench.run(hook, &frame);
                ran.is(&format!("{what} {hook:?} v4 {v4}"), lbx_tests::bpf::Verdict::Drop, &frame, &[reason]);
            }
        }
    }
}

#[test]
fn padding_of_the_frame_is_not_part_of_the_packet() {
    let mut bench = Bench::ready(World::dsr());
    let mut packet = tcp_packet(true, 9, SYN);
    packet.padding = 6;
    let frame = packet.build();
    bench.run(Hook::Xdp(UPLINK), &frame).steered("padded", &frame, &[Reason::FlowRecorded]);
}

#[test]
fn the_same_bytes_to_an_address_without_services_pass() {
    let mut world = World::dsr();
    world.services.iter_mut().for_each(|s| s.vlan = 77);
    let mut bench = Bench::ready(world);
    for v4 in FAMILIES {
        for (what, frame, _) in cases(v4) {
            bench.run(Hook::Xdp(UPLINK), &frame).passed(what, &frame, &[Reason::NotAService]);
        }
    }
}
