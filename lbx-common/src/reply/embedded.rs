//! The packet inside an ICMP error: whose it was, and its translation.
//!
//! Seen from the datapath the packet inside travelled the *other* way: an error for the VIP is about a packet
//! from the VIP to a client, one from a nat target about a packet from a client to the target.

use super::header::{self, protocol};
use crate::addr::Ip;
use crate::algo::checksum;

/// Bytes of the inner transport header that every error carries (RFC 792).
pub const L4_MIN: u32 = 8;

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
    let first = header::is_first(ip);
    let known = matches!(ip[9], protocol::TCP | protocol::UDP);
    (ip[0] >> 4 == 4 && length >= 20 && first && known).then_some(length)
}

/// One end of the packet inside before and after its translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// Its address.
    pub old: Ip,
    /// The address to be there.
    pub new: Ip,
    /// Its port, in network order.
    pub old_port: u16,
    /// The port to be there.
    pub new_port: u16,
}

/// Checksums inside and around the packet, raw words as they lie there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checks {
    /// Of the IPv4 header inside; 0 for IPv6.
    pub header: u16,
    /// Of TCP or UDP inside; `None` if the message ends before it.
    pub l4: Option<u16>,
    /// Of the message.
    pub message: u16,
}

impl Change {
    /// What the address does to a sum.
    #[inline(always)]
    const fn address(&self) -> u64 {
        if self.new.is_v4() {
            checksum::delta32(self.old.v4_word(), self.new.v4_word())
        } else {
            checksum::delta128(&self.old.0, &self.new.0)
        }
    }

    /// The checksums after the change. The message's covers everything inside, the other checksums included;
    /// over IPv6 it also covers the addresses of the message itself, of which the one that is the same as the
    /// changed one changes with it.
    #[inline(always)]
    pub const fn checks(&self, before: &Checks, tcp: bool) -> Checks {
        let address = self.address();
        let port = checksum::delta16(self.old_port, self.new_port);
        let v4 = self.new.is_v4();
        let header = if v4 { checksum::apply(before.header, address) } else { 0 };
        let mut message = address + port;
        if v4 {
            message += checksum::delta16(before.header, header);
        } else {
            message += address;
        }
        let mut l4 = before.l4;
        if let Some(old) = before.l4 {
            let delta = address + port;
            let new = if tcp { checksum::apply(old, delta) } else { checksum::apply_udp(old, delta) };
            message += checksum::delta16(old, new);
            l4 = Some(new);
        }
        Checks { header, l4, message: checksum::apply(before.message, message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::error;
    use crate::reply::header::HOP_LIMIT;
    use crate::reply::sum::Sum;
    use core::net::IpAddr;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    fn sum(bytes: &[u8]) -> Sum {
        bytes.chunks(2).fold(Sum::ZERO, |sum, pair| sum.add([pair[0], *pair.get(1).unwrap_or(&0)]))
    }

    /// An error to `outer` that quotes `length` bytes of the packet from `src` to the client.
    fn error(src: IpAddr, port: u16, tcp: bool, length: usize) -> Vec<u8> {
        let mut inside = Vec::new();
        match src {
            IpAddr::V4(src) => {
                let builder = PacketBuilder::ipv4(src.octets(), [203, 0, 113, 7], HOP_LIMIT);
                if tcp {
                    builder.tcp(port, 5555, 7, 1000).write(&mut inside, b"payload!").unwrap();
                } else {
                    builder.udp(port, 5555).write(&mut inside, b"payload!").unwrap();
                }
            }
            IpAddr::V6(src) => {
                let builder = PacketBuilder::ipv6(src.octets(), [7; 16], HOP_LIMIT);
                if tcp {
                    builder.tcp(port, 5555, 7, 1000).write(&mut inside, b"payload!").unwrap();
                } else {
                    builder.udp(port, 5555).write(&mut inside, b"payload!").unwrap();
                }
            }
        }
        inside.truncate(length);
        let report = error::Report::TooBig(1400);
        let mut bytes = match src {
            IpAddr::V4(dst) => {
                error::v4(&dst.octets(), &[198, 51, 100, 1], report, sum(&inside), inside.len() as u16)
                    .to_vec()
            }
            // Addresses swapped: sums do not care which is which.
            IpAddr::V6(dst) => {
                error::v6(&dst.octets(), &[9; 16], report, sum(&inside), inside.len() as u16).to_vec()
            }
        };
        bytes.extend(inside);
        bytes
    }

    fn word(bytes: &[u8], at: usize) -> u16 {
        u16::from_ne_bytes([bytes[at], bytes[at + 1]])
    }

    /// Reads the checksums of what [`error`] made.
    fn checks(bytes: &[u8], v4: bool, tcp: bool) -> Checks {
        let (message, inside, l4) = if v4 { (22, 28, 48) } else { (42, 48, 88) };
        let at = l4 + if tcp { 16 } else { 6 };
        Checks {
            header: if v4 { word(bytes, inside + 10) } else { 0 },
            l4: (at + 2 <= bytes.len()).then(|| word(bytes, at)),
            message: word(bytes, message),
        }
    }

    proptest! {
        #[test]
        fn a_translated_error_is_the_one_about_the_packet_the_vm_sent(
            v4: bool, tcp: bool, vm4 in 0x0a00_0001u32..0x0aff_ffff, vm6: [u8; 12], port in 1u16.., short: bool
        ) {
            let vip: IpAddr = if v4 { [192, 0, 2, 10].into() } else { "2001:db8::10".parse().unwrap() };
            let mut octets = [0x20; 16];
            octets[4..].copy_from_slice(&vm6);
            let vm: IpAddr = if v4 { vm4.to_be_bytes().into() } else { octets.into() };
            let length = if v4 { 20 } else { 40 } + if short { 8 } else { 20 };
            let seen = error(vip, 80, tcp, length);
            let wanted = error(vm, port, tcp, length);
            let change = Change {
                old: vip.into(),
                new: vm.into(),
                old_port: 80u16.to_be(),
                new_port: port.to_be(),
            };
            let made = change.checks(&checks(&seen, v4, tcp), tcp);
            prop_assert_eq!(made, checks(&wanted, v4, tcp));
            let back = Change {
                old: change.new, new: change.old, old_port: change.new_port, new_port: change.old_port
            };
            prop_assert_eq!(back.checks(&made, tcp), checks(&seen, v4, tcp));
        }
    }

    #[test]
    fn no_udp_checksum_stays_none() {
        let change = Change {
            old: IpAddr::from([192, 0, 2, 10]).into(),
            new: IpAddr::from([10, 0, 0, 5]).into(),
            old_port: 80,
            new_port: 90,
        };
        let before = Checks { header: 0x1234, l4: Some(0), message: 0x4321 };
        assert_eq!(change.checks(&before, false).l4, Some(0));
        let without = Checks { l4: None, ..before };
        assert_eq!(change.checks(&without, true).l4, None);
    }

    #[test]
    fn what_cannot_be_followed() {
        let ip: [u8; 20] = *error([192, 0, 2, 10].into(), 80, true, 40)[28..].first_chunk().unwrap();
        assert_eq!(header_v4(&ip), Some(20));
        for (at, value) in [(0, 0x65), (0, 0x44), (7, 1), (6, 0x01), (9, 1)] {
            let mut other = ip;
            other[at] = value;
            assert_eq!(header_v4(&other), None, "byte {at}");
        }
        assert!(carries_v4(3) && carries_v4(11) && !carries_v4(5) && !carries_v4(8));
        assert!(carries_v6(1) && carries_v6(4) && !carries_v6(0) && !carries_v6(128));
    }
}
