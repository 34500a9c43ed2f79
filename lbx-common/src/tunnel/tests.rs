use super::*;
use proptest::prelude::*;
use std::net::IpAddr;

const WORD: TunnelWord = TunnelWord::new(0x12_3456, 4789);

fn outer(v4: bool) -> Outer {
    let ends: [IpAddr; 2] = if v4 {
        ["10.1.0.1".parse().unwrap(), "10.2.0.2".parse().unwrap()]
    } else {
        ["2001:db8:1::1".parse().unwrap(), "2001:db8:2::2".parse().unwrap()]
    };
    let [src, dst] = ends.map(Ip::from);
    Outer { src, dst, class: 0xb9, len: 60, spread: 0x7abc, port: 4789, vni: 0x12_3456 }
}

fn seen(v4: bool, bytes: &[u8], len: u32) -> Option<Seen> {
    if v4 {
        seen_v4(bytes[..20].try_into().unwrap(), len)
    } else {
        seen_v6(bytes[..8].try_into().unwrap(), bytemuck::pod_read_unaligned(&bytes[8..24]), len)
    }
}

fn bytes(outer: &Outer, v4: bool) -> Vec<u8> {
    if v4 { outer.v4().to_vec() } else { outer.v6().to_vec() }
}

#[test]
fn frames_for_a_vm_go_straight_into_its_port_or_by_the_bridge() {
    assert_eq!(VmPort::straight(u32::MAX, u16::MAX).port(), Some((u32::MAX, 0xffff)));
    assert_eq!(VmPort::straight(7, 3).port(), Some((7, 3)));
    assert_eq!((VmPort::by_the_bridge(u32::MAX).port(), VmPort::default().port()), (None, None));
}

#[test]
fn headers_are_as_the_standards_say() {
    let v4 = outer(true).v4();
    assert_eq!(v4[..10], [0x45, 0xb9, 0, 96, 0, 0, 0x40, 0, 64, 17]);
    assert_eq!(checksum::fold(checksum::sum(&v4[..20])), 0xffff);
    assert_eq!(v4[12..20], [10, 1, 0, 1, 10, 2, 0, 2]);
    assert_eq!(v4[20..], [0xfa, 0xbc, 0x12, 0xb5, 0, 76, 0, 0, 8, 0, 0, 0, 0x12, 0x34, 0x56, 0]);
    let v6 = outer(false).v6();
    assert_eq!(v6[..8], [0x6b, 0x90, 0, 0, 0, 76, 17, 64]);
    assert_eq!(v6[40..], v4[20..]);
    assert_eq!((overhead(true, false), overhead(false, false)), (50, 70));
    assert_eq!((overhead(true, true), overhead(false, true)), (54, 74));
    // A superframe: its segments say how long they are.
    assert_eq!(Outer { len: 65_600, ..outer(true) }.v4()[2..4], [0xff, 0xff]);
}

#[test]
fn what_no_tunnel_sends_is_not_read() {
    for v4 in [true, false] {
        let good = bytes(&outer(v4), v4);
        let len = (good.len() + 60) as u32;
        assert!(seen(v4, &good, len).is_some() && seen(v4, &good, len + 9).is_some());
        assert_eq!(seen(v4, &good, len - 1), None, "beyond the frame");
        let changed: &[(usize, u8)] = if v4 {
            &[(0, 0x46), (0, 0x65), (6, 0x20), (6, 0x60), (7, 1), (9, 6), (2, 0xff), (3, 30)]
        } else {
            &[(0, 0x45), (6, 44), (6, 0), (4, 0xff), (5, 8)]
        };
        for (at, value) in changed {
            let mut bad = good.clone();
            bad[*at] = *value;
            assert_eq!(seen(v4, &bad, len), None, "byte {at} is {value}");
        }
    }
}

#[test]
fn whose_network_it_is() {
    let seen = Seen { src: Ip::UNSPECIFIED, ecn: 0, udp_len: 76 };
    let good: [u8; UDP_VXLAN] = outer(true).v4()[20..].try_into().unwrap();
    assert_eq!(check(WORD, &seen, &good), Ok(()));
    let with = |at: usize, value| {
        let mut bytes = good;
        bytes[at] = value;
        check(WORD, &seen, &bytes)
    };
    assert_eq!(with(14, 0x57), Err(Reason::TunnelOtherNetwork));
    for (at, value) in [(8, 0), (5, 77), (5, 29), (4, 1), (3, 0)] {
        assert_eq!(with(at, value), Err(Reason::TunnelMalformed), "byte {at} is {value}");
    }
    // Reserved bits say nothing.
    for at in [8, 9, 10, 11, 15] {
        assert_eq!(with(at, 0xff), Ok(()));
    }
    assert_eq!(check(TunnelWord::default(), &seen, &good), Err(Reason::TunnelMalformed), "no tunnel here");
}

/// Figure 4 of RFC 6040, written down as it stands there: rows the inner field, columns the outer.
#[test]
fn ecn_as_in_the_table() {
    const NOT: u8 = 0;
    const ECT1: u8 = 1;
    const ECT0: u8 = 2;
    let columns = [NOT, ECT0, ECT1, CE];
    let rows = [
        (NOT, [Some(NOT), Some(NOT), Some(NOT), None]),
        (ECT0, [Some(ECT0), Some(ECT0), Some(ECT1), Some(CE)]),
        (ECT1, [Some(ECT1), Some(ECT1), Some(ECT1), Some(CE)]),
        (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
    ];
    for (inner, results) in rows {
        for (outer, result) in columns.into_iter().zip(results) {
            let is = match ecn(outer, inner) {
                Ecn::Keep => Some(inner),
                Ecn::Mark => Some(CE),
                Ecn::EctOne => Some(ECT1),
                Ecn::Drop => None,
            };
            assert_eq!(is, result, "outer {outer}, inner {inner}");
        }
    }
}

proptest! {
    #[test]
    fn what_is_sent_is_what_is_read(
        v4: bool, class: u8, len in 34u32..9000, spread: u16, port: u16, vni in 0u32..1 << 24, more in 0u32..64,
    ) {
        let sent = Outer { class, len, spread, port, vni, ..outer(v4) };
        let bytes = bytes(&sent, v4);
        let found = seen(v4, &bytes, bytes.len() as u32 + len + more).unwrap();
        prop_assert_eq!(found, Seen { src: sent.src, ecn: class & 3, udp_len: len + 16 });
        let rest: [u8; UDP_VXLAN] = bytes[bytes.len() - UDP_VXLAN..].try_into().unwrap();
        prop_assert_eq!(check(TunnelWord::new(vni, port), &found, &rest), Ok(()));
        prop_assert_eq!(
            check(TunnelWord::new(vni ^ 1, port), &found, &rest),
            Err(Reason::TunnelOtherNetwork)
        );
        let source = u16::from_be_bytes([rest[0], rest[1]]);
        prop_assert!(source >= DYNAMIC, "from the dynamic range");
        if v4 {
            prop_assert_eq!(checksum::fold(checksum::sum(&bytes[..20])), 0xffff);
        }
        prop_assert_eq!(class_of(v4, [bytes[0], bytes[1]]), class);
        prop_assert_eq!(ecn_of(v4, [bytes[0], bytes[1]]), class & 3);
        for ecn in 0..4 {
            let changed = with_ecn(v4, [bytes[0], bytes[1]], ecn);
            prop_assert_eq!(class_of(v4, changed), class & !3 | ecn);
            prop_assert_eq!(changed[0], bytes[0]);
        }
    }

    #[test]
    fn any_bytes_are_judged(header: [u8; 20], rest: [u8; 16], head: [u8; 8], src: [u32; 4], len: u16) {
        let len = u32::from(len);
        for found in [seen_v4(&header, len), seen_v6(head, src, len)].into_iter().flatten() {
            prop_assert!(found.udp_len <= len);
            let _ = check(WORD, &found, &rest);
        }
    }

    #[test]
    fn flows_are_spread(client in 0u32..1 << 16, port: u16) {
        let of = |client: u32, port: u16| {
            spread(&Ip::v4(client.to_be()), &outer(true).dst, u32::from(port).to_be()) & 0x3fff
        };
        prop_assert_eq!(of(client, port), of(client, port));
        let ports: std::collections::BTreeSet<u16> = (0..64).map(|n| of(client, port.wrapping_add(n))).collect();
        prop_assert!(ports.len() > 32, "{} of 64", ports.len());
    }
}
