//! ICMP and ICMPv6 errors about a packet, quoting its start (RFC 792, RFC 1191, RFC 1812, RFC 4443).

use super::header::{self, HOP_LIMIT, protocol};
use super::sum::Sum;
use super::{answerable_v4, answerable_v6};

/// Most bytes of an IPv4 packet that are quoted: the error then stays within 576 bytes (RFC 1812, section
/// 4.3.2.3), rounded down to [`QUOTE_UNIT`].
pub const QUOTE_V4: u32 = 544;
/// Most bytes of an IPv6 packet that are quoted: all that fits into 1280 bytes (RFC 4443, section 2.4 (c)).
pub const QUOTE_V6: u32 = 1232;
/// Quotes are summed in units of this many bytes; both limits are multiples of it.
pub const QUOTE_UNIT: u32 = 16;
/// What goes before the quote: IPv4 header and ICMP header.
pub const HEAD_V4: usize = 28;
/// What goes before the quote: IPv6 header and ICMPv6 header.
pub const HEAD_V6: usize = 48;

const _: () = assert!(QUOTE_V4.is_multiple_of(QUOTE_UNIT) && QUOTE_V6.is_multiple_of(QUOTE_UNIT));
const _: () = assert!(QUOTE_V4 as usize + HEAD_V4 <= 576 && QUOTE_V6 as usize + HEAD_V6 == 1280);

/// Precedence of errors: internetwork control (RFC 1812, section 4.3.2.5).
const TOS: u8 = 0xc0;

/// What is reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Report {
    /// Nobody takes datagrams on this port.
    PortUnreachable,
    /// Larger than this many bytes, and not to be fragmented.
    TooBig(u32),
}

/// Whether an ICMP message of this type is an error or a redirect, about which there are no errors.
#[inline(always)]
pub const fn is_error_v4(kind: u8) -> bool {
    matches!(kind, 3 | 4 | 5 | 11 | 12)
}

/// Whether an ICMPv6 message of this type is an error or a redirect.
#[inline(always)]
pub const fn is_error_v6(kind: u8) -> bool {
    kind < 128 || kind == 137
}

/// Whether an error may be sent about an IPv4 packet (RFC 1812, section 4.3.2.7): not about an ICMP error,
/// a fragment other than the first, or a source that is not one host. `kind` is the first byte behind the
/// header. That the frame was not a broadcast is the caller's to know.
#[inline(always)]
pub fn may_report_v4(ip: &[u8; 20], kind: u8) -> bool {
    header::is_first(ip)
        && !(ip[9] == protocol::ICMP && is_error_v4(kind))
        && answerable_v4(&[ip[12], ip[13], ip[14], ip[15]])
}

/// Whether an error may be sent about an IPv6 packet (RFC 4443, section 2.4 (e)). `upper` is the protocol
/// behind the extension headers, `kind` its first byte.
#[inline(always)]
pub fn may_report_v6(src: &[u8; 16], upper: u8, kind: u8) -> bool {
    !(upper == protocol::ICMPV6 && is_error_v6(kind)) && answerable_v6(src)
}

/// Headers of the error from the VIP to the client; behind them goes the quote, `length` bytes with this sum.
#[inline(always)]
pub fn v4(vip: &[u8; 4], client: &[u8; 4], report: Report, quote: Sum, length: u16) -> [u8; HEAD_V4] {
    let (code, mtu) = match report {
        Report::PortUnreachable => (3, 0),
        Report::TooBig(mtu) => (4, if mtu > 0xffff { 0xffff } else { mtu as u16 }),
    };
    let mut out = [0; HEAD_V4];
    out[..20].copy_from_slice(&header::v4(vip, client, protocol::ICMP, TOS, length.wrapping_add(8)));
    out[20] = 3;
    out[21] = code;
    out[26..28].copy_from_slice(&mtu.to_be_bytes());
    let check = quote.add([3, code]).add_u16(mtu).checksum();
    out[22..24].copy_from_slice(&check);
    out
}

/// The same for IPv6.
#[inline(always)]
pub fn v6(vip: &[u8; 16], client: &[u8; 16], report: Report, quote: Sum, length: u16) -> [u8; HEAD_V6] {
    let (kind, code, mtu) = match report {
        Report::PortUnreachable => (1, 4, 0),
        Report::TooBig(mtu) => (2, 0, mtu),
    };
    let message = length.wrapping_add(8);
    let mtu = mtu.to_be_bytes();
    let mut out = [0; HEAD_V6];
    out[..40].copy_from_slice(&header::v6(vip, client, protocol::ICMPV6, HOP_LIMIT, message));
    out[40] = kind;
    out[41] = code;
    out[44..48].copy_from_slice(&mtu);
    let check = Sum::pseudo_v6(vip, client, protocol::ICMPV6, message as u32)
        .add([kind, code])
        .add_bytes(&mtu)
        .add_sum(quote)
        .checksum();
    out[42..44].copy_from_slice(&check);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice, icmpv4, icmpv6};

    fn sum(bytes: &[u8]) -> Sum {
        bytes.chunks(2).fold(Sum::ZERO, |sum, pair| sum.add([pair[0], *pair.get(1).unwrap_or(&0)]))
    }

    #[test]
    fn v4_errors_are_well_formed() {
        for (report, length) in
            [(Report::PortUnreachable, 29), (Report::PortUnreachable, 544), (Report::TooBig(1400), 544)]
        {
            let quote: Vec<u8> = (0..length).map(|n| (n * 7) as u8).collect();
            let mut bytes =
                v4(&[192, 0, 2, 10], &[203, 0, 113, 7], report, sum(&quote), length as u16).to_vec();
            bytes.extend(&quote);
            let sliced = SlicedPacket::from_ip(&bytes).unwrap();
            let Some(NetSlice::Ipv4(ip)) = sliced.net else { panic!("not IPv4") };
            let ip = ip.header().to_header();
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert_eq!(usize::from(ip.total_len), bytes.len());
            let Some(TransportSlice::Icmpv4(icmp)) = sliced.transport else { panic!("not ICMP") };
            let header = icmp.header();
            assert_eq!(header.checksum, header.icmp_type.calc_checksum(&quote));
            let expected = match report {
                Report::PortUnreachable => icmpv4::DestUnreachableHeader::Port,
                Report::TooBig(_) => {
                    icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 }
                }
            };
            assert_eq!(header.icmp_type, Icmpv4Type::DestinationUnreachable(expected));
        }
    }

    #[test]
    fn v6_errors_are_well_formed() {
        for (report, length) in
            [(Report::PortUnreachable, 49), (Report::PortUnreachable, 1232), (Report::TooBig(70000), 1232)]
        {
            let quote: Vec<u8> = (0..length).map(|n| (n * 5) as u8).collect();
            let mut bytes = v6(&[1; 16], &[2; 16], report, sum(&quote), length as u16).to_vec();
            bytes.extend(&quote);
            let sliced = SlicedPacket::from_ip(&bytes).unwrap();
            let Some(TransportSlice::Icmpv6(icmp)) = sliced.transport else { panic!("not ICMPv6") };
            assert!(icmp.is_checksum_valid([1; 16], [2; 16]));
            let expected = match report {
                Report::PortUnreachable => {
                    Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port)
                }
                Report::TooBig(mtu) => Icmpv6Type::PacketTooBig { mtu },
            };
            assert_eq!(icmp.icmp_type(), expected);
            assert_eq!(icmp.payload(), quote);
        }
    }

    #[test]
    fn never_about_errors_fragments_and_groups() {
        let udp = header::v4(&[203, 0, 113, 7], &[192, 0, 2, 10], protocol::UDP, 0, 100);
        assert!(may_report_v4(&udp, 3), "the first byte of UDP is not a type");
        for (at, value, kind) in
            [(7, 1, 0), (6, 0x10, 0), (9, protocol::ICMP, 3), (9, protocol::ICMP, 5), (12, 239, 0)]
        {
            let mut ip = udp;
            ip[at] = value;
            assert!(!may_report_v4(&ip, kind), "byte {at}");
        }
        let mut echo = udp;
        echo[9] = protocol::ICMP;
        assert!(may_report_v4(&echo, 8));
        let mut first = udp;
        first[6] = 0x20;
        assert!(may_report_v4(&first, 0), "a first fragment may be reported");

        let client = [0x20; 16];
        assert!(may_report_v6(&client, protocol::UDP, 1) && may_report_v6(&client, protocol::ICMPV6, 128));
        assert!(
            !may_report_v6(&client, protocol::ICMPV6, 2) && !may_report_v6(&client, protocol::ICMPV6, 137)
        );
        assert!(!may_report_v6(&[0xff; 16], protocol::UDP, 0));
    }
}
