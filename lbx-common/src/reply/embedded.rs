//! The packet inside an ICMP error: whose it was, and its translation.
//!
//! Seen from the datapath the packet inside travelled the *other* way: an error for the VIP is about a packet
//! from the VIP to a client, one from a nat target about a packet from a client to the target.

use super::header::protocol;
use super::sum::{self, Sum};

/// Bytes of the inner transport header that are looked at: as far as the checksum of TCP.
pub const L4: usize = 18;
/// Bytes of it that every error carries (RFC 792).
pub const L4_MIN: usize = 8;

/// Which end of the packet inside is translated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Its source: an error on its way in to a nat target.
    Source,
    /// Its destination: an error on its way out from a nat target.
    Destination,
}

/// Whether an ICMP message is an error that carries a packet: types 3, 4, 11, 12.
#[inline(always)]
pub const fn carries_v4(kind: u8) -> bool {
    matches!(kind, 3 | 4 | 11 | 12)
}

/// Whether an ICMPv6 message is an error that carries a packet: types 1 to 4.
#[inline(always)]
pub const fn carries_v6(kind: u8) -> bool {
    matches!(kind, 1..=4)
}

/// Length of the header of an IPv4 packet inside, if it can be followed: TCP or UDP, with its ports (not a
/// later fragment).
#[inline(always)]
pub fn header_v4(ip: &[u8; 20]) -> Option<usize> {
    let length = (ip[0] & 0x0f) as usize * 4;
    let first = ip[6] & 0x1f == 0 && ip[7] == 0;
    let known = matches!(ip[9], protocol::TCP | protocol::UDP);
    (ip[0] >> 4 == 4 && length >= 20 && first && known).then_some(length)
}

/// Puts another address at one end of an IPv4 header, its checksum following.
#[inline(always)]
pub fn readdress_v4(ip: &[u8; 20], end: End, addr: &[u8; 4]) -> [u8; 20] {
    let mut out = *ip;
    let old: [u8; 4] = match end {
        End::Source => [ip[12], ip[13], ip[14], ip[15]],
        End::Destination => [ip[16], ip[17], ip[18], ip[19]],
    };
    match end {
        End::Source => out[12..16].copy_from_slice(addr),
        End::Destination => out[16..20].copy_from_slice(addr),
    }
    let check = Sum::behind([ip[10], ip[11]]).add_sum(sum::change(&old, addr)).checksum();
    out[10..12].copy_from_slice(&check);
    out
}

/// Puts another address at one end of an IPv6 header.
#[inline(always)]
pub fn readdress_v6(ip: &[u8; 40], end: End, addr: &[u8; 16]) -> [u8; 40] {
    let mut out = *ip;
    match end {
        End::Source => out[8..24].copy_from_slice(addr),
        End::Destination => out[24..40].copy_from_slice(addr),
    }
    out
}

/// Puts another port at one end of the start of a TCP or UDP header. Its checksum follows that and `address`,
/// what the new address adds to the sum; one that is absent (beyond `length`, or 0 in UDP) stays so.
///
/// `port` in wire order. `l4` holds `length` bytes of the packet and zeros behind.
#[inline(always)]
pub fn retarget(l4: &[u8; L4], length: usize, tcp: bool, end: End, port: [u8; 2], address: Sum) -> [u8; L4] {
    let mut out = *l4;
    let old = match end {
        End::Source => [l4[0], l4[1]],
        End::Destination => [l4[2], l4[3]],
    };
    match end {
        End::Source => out[..2].copy_from_slice(&port),
        End::Destination => out[2..4].copy_from_slice(&port),
    }
    let delta = address.add_sum(sum::change(&old, &port));
    if tcp {
        if length >= L4 {
            let check = Sum::behind([l4[16], l4[17]]).add_sum(delta).checksum();
            out[16..18].copy_from_slice(&check);
        }
    } else if l4[6] | l4[7] != 0 {
        let check = Sum::behind([l4[6], l4[7]]).add_sum(delta).checksum_udp();
        out[6..8].copy_from_slice(&check);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{IpNumber, Ipv4Header, PacketBuilder, TcpHeader, UdpHeader};
    use proptest::prelude::*;

    const CLIENT: [u8; 4] = [203, 0, 113, 7];
    const VIP: [u8; 4] = [192, 0, 2, 10];
    const VM: [u8; 4] = [10, 0, 0, 5];

    /// A packet from `src` to the client and its transport header's offset.
    fn packet(src: [u8; 4], port: u16, tcp: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        let builder = PacketBuilder::ipv4(src, CLIENT, 60);
        if tcp {
            builder.tcp(port, 5555, 7, 1000).write(&mut bytes, b"payload").unwrap();
        } else {
            builder.udp(port, 5555).write(&mut bytes, b"payload").unwrap();
        }
        bytes
    }

    #[test]
    fn a_translated_packet_is_the_one_the_vm_sent() {
        for tcp in [true, false] {
            let seen = packet(VIP, 80, tcp);
            let sent = packet(VM, 8080, tcp);
            let ip: [u8; 20] = *seen.first_chunk().unwrap();
            let inside = readdress_v4(&ip, End::Source, &VM);
            assert_eq!(inside[..], sent[..20]);
            let mut l4 = [0; L4];
            let have = if tcp { 18 } else { 15 };
            l4[..have].copy_from_slice(&seen[20..20 + have]);
            let address = sum::change(&VIP, &VM);
            let out = retarget(&l4, have, tcp, End::Source, 8080u16.to_be_bytes(), address);
            assert_eq!(out[..have], sent[20..20 + have], "tcp {tcp}");
            // And back again.
            let back = retarget(&out, have, tcp, End::Source, 80u16.to_be_bytes(), sum::change(&VM, &VIP));
            assert_eq!(back, l4);
            assert_eq!(readdress_v4(&inside, End::Source, &VIP), ip);
        }
    }

    #[test]
    fn absent_checksums_stay_absent() {
        let l4 = [0, 80, 21, 179, 0, 16, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9];
        let udp = retarget(&l4, 18, false, End::Destination, [1, 2], sum::change(&VIP, &VM));
        assert_eq!(udp, [0, 80, 1, 2, 0, 16, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]);
        let tcp = retarget(&l4, 8, true, End::Source, [1, 2], sum::change(&VIP, &VM));
        assert_eq!(tcp[..2], [1, 2]);
        assert_eq!(tcp[2..], l4[2..]);
    }

    #[test]
    fn what_cannot_be_followed() {
        let ip: [u8; 20] = *packet(VIP, 80, true).first_chunk().unwrap();
        assert_eq!(header_v4(&ip), Some(20));
        for (at, value) in [(0, 0x65), (0, 0x44), (7, 1), (6, 0x01), (9, 1)] {
            let mut other = ip;
            other[at] = value;
            assert_eq!(header_v4(&other), None, "byte {at}");
        }
        assert!(carries_v4(3) && carries_v4(11) && !carries_v4(5) && !carries_v4(8));
        assert!(carries_v6(1) && carries_v6(4) && !carries_v6(0) && !carries_v6(128));
    }

    proptest! {
        #[test]
        fn checksums_follow_any_address_and_port(vm: [u8; 4], port: u16, tcp: bool) {
            let seen = packet(VIP, 80, tcp);
            let length = 18.min(seen.len() - 20);
            let mut l4 = [0; L4];
            l4[..length].copy_from_slice(&seen[20..20 + length]);
            let out = retarget(&l4, length, tcp, End::Source, port.to_be_bytes(), sum::change(&VIP, &vm));
            let ip = Ipv4Header::new((seen.len() - 20) as u16, 60, if tcp { IpNumber::TCP } else { IpNumber::UDP }, vm, CLIENT).unwrap();
            if tcp {
                let full = TcpHeader::new(port, 5555, 7, 1000).calc_checksum_ipv4(&ip, b"payload").unwrap();
                prop_assert_eq!(u16::from_be_bytes([out[16], out[17]]) % 0xffff, full % 0xffff);
            } else {
                let full = UdpHeader::with_ipv4_checksum(port, 5555, &ip, b"payload").unwrap().checksum;
                prop_assert_eq!(u16::from_be_bytes([out[6], out[7]]), full);
            }
        }
    }
}
