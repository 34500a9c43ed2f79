//! IP headers of packets lbx sends on its own.

use super::sum::Sum;

/// Hop limit of what lbx sends itself (the default of RFC 1700).
pub const HOP_LIMIT: u8 = 64;
/// Protocol numbers (IANA).
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
}

/// Whether an IPv4 packet is not a later fragment: its offset is 0.
#[inline(always)]
pub const fn is_first(ip: &[u8; 20]) -> bool {
    // The three flags are shifted out.
    u16::from_be_bytes([ip[6], ip[7]]) << 3 == 0
}

/// Whether an IPv4 packet is no fragment at all: neither an offset nor more to come.
#[inline(always)]
pub const fn is_whole(ip: &[u8; 20]) -> bool {
    u16::from_be_bytes([ip[6], ip[7]]) << 2 == 0
}

/// An IPv4 header without options, checksum included. `payload` is its length in bytes.
///
/// "Don't fragment" is set and the identification 0, which RFC 6864, section 4.1 allows for exactly such
/// packets: lbx then needs no counter for it.
#[inline(always)]
pub fn v4(src: &[u8; 4], dst: &[u8; 4], protocol: u8, tos: u8, payload: u16) -> [u8; 20] {
    let [len_high, len_low] = payload.wrapping_add(20).to_be_bytes();
    let mut header =
        [0x45, tos, len_high, len_low, 0, 0, 0x40, 0, HOP_LIMIT, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header[12..16].copy_from_slice(src);
    header[16..20].copy_from_slice(dst);
    let check = Sum::ZERO.add_bytes(&header).checksum();
    header[10..12].copy_from_slice(&check);
    header
}

/// An IPv6 header (RFC 8200, section 3). `payload` is its length in bytes.
#[inline(always)]
pub fn v6(src: &[u8; 16], dst: &[u8; 16], protocol: u8, hop_limit: u8, payload: u16) -> [u8; 40] {
    let mut header = [0; 40];
    header[..8].copy_from_slice(&v6_fixed(protocol, hop_limit, payload));
    header[8..24].copy_from_slice(src);
    header[24..40].copy_from_slice(dst);
    header
}

/// What an IPv6 header has before its addresses.
#[inline(always)]
pub const fn v6_fixed(protocol: u8, hop_limit: u8, payload: u16) -> [u8; 8] {
    let [len_high, len_low] = payload.to_be_bytes();
    [0x60, 0, 0, 0, len_high, len_low, protocol, hop_limit]
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice};

    #[test]
    fn v4_is_what_another_parser_reads() {
        let bytes = v4(&[192, 0, 2, 10], &[203, 0, 113, 7], protocol::ICMP, 0xc0, 556);
        let parsed = Ipv4HeaderSlice::from_slice(&bytes).unwrap().to_header();
        assert_eq!(parsed.total_len, 576);
        assert_eq!(parsed.calc_header_checksum(), parsed.header_checksum);
        assert_eq!((parsed.source, parsed.destination), ([192, 0, 2, 10], [203, 0, 113, 7]));
        assert!(parsed.dont_fragment && !parsed.more_fragments && parsed.time_to_live == 64);
    }

    #[test]
    fn fragments() {
        let mut ip = v4(&[192, 0, 2, 10], &[203, 0, 113, 7], protocol::UDP, 0, 8);
        assert!(is_whole(&ip) && is_first(&ip), "don't fragment is no fragment");
        ip[6] = 0x20;
        assert!(!is_whole(&ip) && is_first(&ip));
        for offset in [[0, 1], [0x20, 1], [0x10, 0]] {
            ip[6..8].copy_from_slice(&offset);
            assert!(!is_whole(&ip) && !is_first(&ip), "{offset:?}");
        }
    }

    #[test]
    fn v6_is_what_another_parser_reads() {
        let bytes = v6(&[1; 16], &[2; 16], protocol::ICMPV6, 255, 32);
        let parsed = Ipv6HeaderSlice::from_slice(&bytes).unwrap().to_header();
        assert_eq!((parsed.payload_length, parsed.hop_limit, parsed.next_header.0), (32, 255, 58));
        assert_eq!((parsed.source, parsed.destination), ([1; 16], [2; 16]));
    }
}
