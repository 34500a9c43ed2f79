//! Echo (RFC 792 and RFC 4443, section 4): the request is turned around in place.

use super::header::{self, HOP_LIMIT};
use super::sum::{self, Sum};

/// Type, code, checksum, identifier, sequence: the part of a message that matters here.
pub const LEN: usize = 8;

/// Whether an IPv4 packet may be turned around: no options (they would have to be reversed, RFC 1122, section
/// 3.2.2.6), not a fragment, an answerable source.
#[inline(always)]
pub fn may_turn_v4(ip: &[u8; 20]) -> bool {
    ip[0] == 0x45 && header::is_whole(ip) && super::answerable_v4(&[ip[12], ip[13], ip[14], ip[15]])
}

/// The IPv4 header of the answer: addresses swapped, a fresh hop limit.
#[inline(always)]
pub fn turn_v4(ip: &[u8; 20]) -> [u8; 20] {
    let mut out = *ip;
    out[8] = HOP_LIMIT;
    out[12..16].copy_from_slice(&ip[16..20]);
    out[16..20].copy_from_slice(&ip[12..16]);
    // The order of the addresses does not matter to the sum.
    let check = Sum::behind([ip[10], ip[11]])
        .sub_sum(Sum::ZERO.add([ip[8], ip[9]]))
        .add([HOP_LIMIT, ip[9]])
        .checksum();
    out[10..12].copy_from_slice(&check);
    out
}

/// The IPv6 header of the answer.
#[inline(always)]
pub fn turn_v6(ip: &[u8; 40]) -> [u8; 40] {
    let mut out = *ip;
    out[7] = HOP_LIMIT;
    out[8..24].copy_from_slice(&ip[24..40]);
    out[24..40].copy_from_slice(&ip[8..24]);
    out
}

/// The start of an echo reply from that of the request; `None` if it is not one. The pseudo-header of ICMPv6
/// is the same both ways, so only the type changes the checksum.
#[inline(always)]
pub fn reply(message: &[u8; LEN], v6: bool) -> Option<[u8; LEN]> {
    let (request, answer) = if v6 { (128, 129) } else { (8, 0) };
    if message[0] != request || message[1] != 0 {
        return None;
    }
    let mut out = *message;
    out[0] = answer;
    let check = Sum::behind([message[2], message[3]]).add_sum(sum::change(&[request, 0], &[answer, 0]));
    out[2..4].copy_from_slice(&check.checksum());
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn v4(id: u16, seq: u16, ttl in 1u8.., payload in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut bytes = Vec::new();
            PacketBuilder::ipv4([203, 0, 113, 7], [192, 0, 2, 10], ttl)
                .icmpv4_echo_request(id, seq).write(&mut bytes, &payload).unwrap();
            let ip: [u8; 20] = *bytes.first_chunk().unwrap();
            prop_assert!(may_turn_v4(&ip));
            let answer = reply(bytes[20..].first_chunk().unwrap(), false).unwrap();
            bytes[20..28].copy_from_slice(&answer);
            bytes[..20].copy_from_slice(&turn_v4(&ip));
            let sliced = SlicedPacket::from_ip(&bytes).unwrap();
            let Some(etherparse::NetSlice::Ipv4(ip)) = sliced.net else { panic!("not IPv4") };
            let ip = ip.header().to_header();
            prop_assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            prop_assert_eq!((ip.source, ip.destination, ip.time_to_live), ([192, 0, 2, 10], [203, 0, 113, 7], 64));
            let Some(TransportSlice::Icmpv4(icmp)) = sliced.transport else { panic!("not ICMP") };
            prop_assert_eq!(icmp.icmp_type(), etherparse::Icmpv4Type::EchoReply(etherparse::IcmpEchoHeader { id, seq }));
            // Over the whole message the sum with its checksum is all ones.
            let sum = bytes[20..].chunks(2).fold(Sum::ZERO, |s, p| s.add([p[0], *p.get(1).unwrap_or(&0)]));
            prop_assert_eq!(sum.folded(), 0xffff);
        }

        #[test]
        fn v6(id: u16, seq: u16, payload in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut bytes = Vec::new();
            PacketBuilder::ipv6([1; 16], [2; 16], 3).icmpv6_echo_request(id, seq).write(&mut bytes, &payload).unwrap();
            let answer = reply(bytes[40..].first_chunk().unwrap(), true).unwrap();
            bytes[40..48].copy_from_slice(&answer);
            let turned = turn_v6(bytes.first_chunk().unwrap());
            bytes[..40].copy_from_slice(&turned);
            let sliced = SlicedPacket::from_ip(&bytes).unwrap();
            let Some(TransportSlice::Icmpv6(icmp)) = sliced.transport else { panic!("not ICMPv6") };
            prop_assert!(icmp.is_checksum_valid([2; 16], [1; 16]));
            prop_assert_eq!(icmp.icmp_type(), etherparse::Icmpv6Type::EchoReply(etherparse::IcmpEchoHeader { id, seq }));
        }
    }

    #[test]
    fn only_plain_requests() {
        assert!(reply(&[0, 0, 1, 2, 3, 4, 5, 6], false).is_none());
        assert!(reply(&[8, 1, 1, 2, 3, 4, 5, 6], false).is_none());
        assert!(reply(&[8, 0, 1, 2, 3, 4, 5, 6], true).is_none());
        let plain = header::v4(&[203, 0, 113, 7], &[192, 0, 2, 10], 1, 0, 8);
        assert!(may_turn_v4(&plain), "don't fragment is no fragment");
        for (at, value) in [(0, 0x46), (6, 0x20), (7, 1), (12, 224)] {
            let mut ip = plain;
            ip[at] = value;
            assert!(!may_turn_v4(&ip), "byte {at}");
        }
    }
}
