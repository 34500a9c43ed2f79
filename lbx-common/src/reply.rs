//! Packets lbx makes itself: answers for a VIP (ARP, neighbour discovery, echo), refusals (TCP RST, ICMP
//! unreachable, too big), and the translation of what ICMP errors carry inside.
//!
//! Everything works on fixed-size headers in wire order, without allocation and without panics, so that the
//! same functions run in the kernel program and under the tests on the host. Whether an answer is due (the
//! VIP is answered for here, the rate allows it) is not decided here; whether a packet *may* be answered at
//! all by its protocol's rules is.

pub mod arp;
pub mod echo;
pub mod embedded;
pub mod error;
pub mod header;
pub mod neighbour;
pub mod reset;
pub mod sum;

use crate::addr::Mac;

/// Destination and source MAC of the answer to a frame: back to its sender, from `own`.
#[inline(always)]
pub fn turn(macs: &[u8; 12], own: &Mac) -> [u8; 12] {
    let mut out = [0; 12];
    out[..6].copy_from_slice(&macs[6..]);
    out[6..].copy_from_slice(own);
    out
}

/// Whether a MAC is a group address (broadcast or multicast; IEEE 802, the I/G bit).
#[inline(always)]
pub const fn is_group(mac: &Mac) -> bool {
    mac[0] & 1 != 0
}

/// Whether an IPv4 source may be answered: one host, and not "this" one (RFC 1812, section 4.3.2.7; RFC 1122,
/// section 3.2.1.3). `addr` in wire order.
#[inline(always)]
pub const fn answerable_v4(addr: &[u8; 4]) -> bool {
    addr[0] != 0 && addr[0] != 127 && addr[0] < 224
}

/// Whether an IPv6 source may be answered: neither unspecified, loopback nor multicast (RFC 4443, section
/// 2.4 (e.6)).
#[inline(always)]
pub fn answerable_v6(addr: &[u8; 16]) -> bool {
    let low = u128::from_be_bytes(*addr);
    addr[0] != 0xff && low > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources() {
        for (addr, may) in [
            ([203, 0, 113, 7], true),
            ([0, 0, 0, 0], false),
            ([127, 0, 0, 1], false),
            ([224, 0, 0, 1], false),
            ([255; 4], false),
        ] {
            assert_eq!(answerable_v4(&addr), may, "{addr:?}");
        }
        for (addr, may) in
            [("2001:db8::7", true), ("fe80::1", true), ("::", false), ("::1", false), ("ff02::1", false)]
        {
            let octets = addr.parse::<core::net::Ipv6Addr>().unwrap().octets();
            assert_eq!(answerable_v6(&octets), may, "{addr}");
        }
    }

    #[test]
    fn turning_a_frame() {
        let macs = *b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02";
        assert_eq!(&turn(&macs, &[9; 6]), b"\x02\0\0\0\0\x02\x09\x09\x09\x09\x09\x09");
        assert!(
            is_group(&[0x33, 0x33, 0, 0, 0, 1]) && is_group(&[0xff; 6]) && !is_group(&[2, 0, 0, 0, 0, 1])
        );
    }
}
