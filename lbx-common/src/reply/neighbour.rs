//! Neighbour solicitation and advertisement (RFC 4861, sections 4.3, 4.4 and 7; RFC 4862, section 5.4).

use super::header::{self, protocol};
use super::sum::Sum;
use crate::addr::{Ip, Mac};

/// Length of a solicitation without options.
pub const SOLICITATION: usize = 24;
/// Length of the advertisement with its one option.
pub const ADVERTISEMENT: usize = 32;
/// IPv6 header and advertisement.
pub const REPLY: usize = 40 + ADVERTISEMENT;

/// Hop limit that proves the packet was sent on this link.
const ON_LINK: u8 = 255;
/// Router 0, solicited, override.
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
/// ff02::1.
const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// The MAC all nodes listen to (RFC 2464, section 7).
pub const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];

/// A solicitation that holds what RFC 4861, section 7.1.1 asks of its header. Length, checksum and options
/// are the caller's to check, because they lie behind the fixed part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Solicitation {
    /// Who asks; unspecified during duplicate address detection.
    pub src: [u8; 16],
    /// For whom.
    pub target: [u8; 16],
}

/// Reads IPv6 header and fixed part of a solicitation; `None` if it is anything else or must be ignored.
#[inline(always)]
pub fn solicitation(ip: &[u8; 40], packet: &[u8; SOLICITATION]) -> Option<Solicitation> {
    let [.., length_high, length_low, next, hop_limit] = ip.first_chunk::<8>().copied()?;
    if next != protocol::ICMPV6 || packet[0] != 135 || packet[1] != 0 || hop_limit != ON_LINK {
        return None;
    }
    if (u16::from_be_bytes([length_high, length_low]) as usize) < SOLICITATION {
        return None;
    }
    let src: [u8; 16] = *ip[8..].first_chunk()?;
    let target: [u8; 16] = *packet[8..].first_chunk()?;
    let dst: [u8; 16] = *ip[24..].first_chunk()?;
    if target[0] == 0xff || src[0] == 0xff {
        return None;
    }
    let solicited_node =
        dst[..13] == [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff] && dst[13..] == target[13..];
    // Unicast only to the target itself; detection of duplicates only by multicast.
    (solicited_node || (dst == target && src != [0; 16])).then_some(Solicitation { src, target })
}

impl Solicitation {
    /// Whether this is duplicate address detection: answered to all nodes.
    #[inline(always)]
    pub fn is_probe(&self) -> bool {
        self.src == [0; 16]
    }

    /// The advertisement that the target is at `own`: IPv6 header and ICMPv6 message.
    #[inline(always)]
    pub fn reply(&self, own: &Mac) -> [u8; REPLY] {
        let (dst, flags) =
            if self.is_probe() { (ALL_NODES, OVERRIDE) } else { (self.src, SOLICITED | OVERRIDE) };
        let mut out = [0; REPLY];
        let ip = header::v6(&self.target, &dst, protocol::ICMPV6, ON_LINK, ADVERTISEMENT as u16);
        out[..40].copy_from_slice(&ip);
        out[40] = 136;
        out[44] = flags;
        out[48..64].copy_from_slice(&self.target);
        // Option 2, one unit of eight bytes: target link-layer address.
        out[64] = 2;
        out[65] = 1;
        out[66..72].copy_from_slice(own);
        // The target stands in the pseudo-header as source and in the message: summed like any other word.
        let sum = Sum::pseudo_v6(&self.target, &dst, protocol::ICMPV6, ADVERTISEMENT as u32)
            .add([136, 0])
            .add([flags, 0])
            .add_bytes(&self.target)
            .add([2, 1])
            .add_bytes(own);
        out[42..44].copy_from_slice(&sum.checksum());
        out
    }
}

/// What of an advertisement is neither in the solicitation nor the same in all: [`Solicitation::reply`] in pieces
/// that a kernel program can store one after the other, because its stack has no room for the whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pieces {
    /// Where it goes.
    pub dst: Ip,
    /// The first eight bytes of the ICMPv6 message; the target follows.
    pub head: [u8; 8],
    /// The option behind the target.
    pub option: [u8; 8],
}

/// The IPv6 header of an advertisement, before its addresses.
pub const HEADER: [u8; 8] = header::v6_fixed(protocol::ICMPV6, ON_LINK, ADVERTISEMENT as u16);

/// The answer to who has `src` (or [probes](Solicitation::is_probe)) and asks for `target`: it is at `own`.
#[inline(always)]
pub fn pieces(probe: bool, src: &Ip, target: &Ip, own: &Mac) -> Pieces {
    let all_nodes = Ip::v6([u32::from_ne_bytes([0xff, 2, 0, 0]), 0, 0, u32::from_ne_bytes([0, 0, 0, 1])]);
    let (dst, flags) = if probe { (all_nodes, OVERRIDE) } else { (*src, SOLICITED | OVERRIDE) };
    let option = [2, 1, own[0], own[1], own[2], own[3], own[4], own[5]];
    let length = (ADVERTISEMENT as u32).to_be_bytes();
    let sum = Sum::ZERO.add_ip(target).add_ip(&dst).add([0, protocol::ICMPV6]).add_bytes(&length);
    let [high, low] = sum.add([136, 0]).add([flags, 0]).add_ip(target).add_bytes(&option).checksum();
    Pieces { dst, head: [136, 0, high, low, flags, 0, 0, 0], option }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{Icmpv6Type, SlicedPacket, TransportSlice};

    const OWN: Mac = [2, 0, 0, 0, 0, 9];
    const CLIENT: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    const VIP: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56];
    const NODE: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0x12, 0x34, 0x56];

    #[test]
    fn pieces_make_the_reply() {
        for src in [CLIENT, [0; 16]] {
            let whole = Solicitation { src, target: VIP }.reply(&OWN);
            let pieces = pieces(src == [0; 16], &bytemuck::cast(src), &bytemuck::cast(VIP), &OWN);
            let dst = pieces.dst.octets();
            assert_eq!([&HEADER[..], &VIP, &dst, &pieces.head, &VIP, &pieces.option].concat(), whole);
        }
    }

    fn packet(src: [u8; 16], dst: [u8; 16]) -> ([u8; 40], [u8; SOLICITATION]) {
        let mut fixed = [0; SOLICITATION];
        fixed[0] = 135;
        fixed[8..].copy_from_slice(&VIP);
        (header::v6(&src, &dst, protocol::ICMPV6, 255, 32), fixed)
    }

    fn parse(bytes: &[u8; REPLY]) -> (etherparse::Ipv6Header, etherparse::Icmpv6Header, Vec<u8>) {
        let sliced = SlicedPacket::from_ip(bytes).unwrap();
        let Some(etherparse::NetSlice::Ipv6(ip)) = sliced.net else { panic!("not IPv6") };
        let Some(TransportSlice::Icmpv6(icmp)) = sliced.transport else { panic!("not ICMPv6") };
        let ip = ip.header().to_header();
        assert!(icmp.is_checksum_valid(ip.source, ip.destination));
        (ip, icmp.header(), icmp.payload().to_vec())
    }

    #[test]
    fn multicast_and_unicast_are_answered_to_the_sender() {
        for dst in [NODE, VIP] {
            let (ip, fixed) = packet(CLIENT, dst);
            let asked = solicitation(&ip, &fixed).unwrap();
            let (ip, icmp, payload) = parse(&asked.reply(&OWN));
            assert_eq!((ip.source, ip.destination, ip.hop_limit), (VIP, CLIENT, 255));
            let Icmpv6Type::NeighborAdvertisement(header) = icmp.icmp_type else { panic!("{icmp:?}") };
            assert!(header.solicited && header.r#override && !header.router);
            assert_eq!(payload[..16], VIP);
            assert_eq!(payload[16..], [2, 1, 2, 0, 0, 0, 0, 9]);
        }
    }

    #[test]
    fn duplicate_address_detection_is_answered_to_all() {
        let (ip, fixed) = packet([0; 16], NODE);
        let asked = solicitation(&ip, &fixed).unwrap();
        assert!(asked.is_probe());
        let (ip, icmp, _) = parse(&asked.reply(&OWN));
        assert_eq!(ip.destination, ALL_NODES);
        let Icmpv6Type::NeighborAdvertisement(header) = icmp.icmp_type else { panic!("{icmp:?}") };
        assert!(!header.solicited && header.r#override);
    }

    #[test]
    fn what_must_be_ignored_is_ignored() {
        let (good_ip, good) = packet(CLIENT, NODE);
        for (at, value, why) in [
            (7, 254, "forwarded"),
            (6, 17, "not ICMPv6"),
            (5, 16, "too short"),
            (8, 0xff, "from a group"),
            (39, 0, "another node's group"),
        ] {
            let mut ip = good_ip;
            ip[at] = value;
            assert_eq!(solicitation(&ip, &good), None, "{why}");
        }
        for (at, value, why) in [(0, 136, "advertisement"), (1, 1, "code"), (8, 0xff, "for a group")] {
            let mut fixed = good;
            fixed[at] = value;
            assert_eq!(solicitation(&good_ip, &fixed), None, "{why}");
        }
        let (ip, fixed) = packet([0; 16], VIP);
        assert_eq!(solicitation(&ip, &fixed), None, "detection by unicast");
    }
}
