//! From the frame to what identifies its flow.

use super::cursor::Packet;
use super::frame::Frame;
use lbx_common::addr::{Ip, Mac};
use lbx_common::reason::Reason;
use lbx_common::steer::vlan::Tag;

/// EtherTypes as they lie in the frame (IEEE 802 numbers, RFC 9542).
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800_u16.to_be();
    /// ARP.
    pub const ARP: u16 = 0x0806_u16.to_be();
    /// IPv6.
    pub const IPV6: u16 = 0x86dd_u16.to_be();
    /// 802.1Q tag.
    pub const VLAN: u16 = 0x8100_u16.to_be();
    /// 802.1ad tag.
    pub const SERVICE_VLAN: u16 = 0x88a8_u16.to_be();
}

/// Protocol numbers (IANA).
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// IPv6 destination options.
    pub const DESTINATION: u8 = 60;
}

/// Bytes that the fast path may look at: Ethernet, a tag, IPv6, TCP without options.
pub const FAST_BYTES: u32 = 14 + 4 + 40 + 20;

/// The Ethernet header with up to one tag.
#[derive(Clone, Copy)]
pub struct Ether {
    /// Destination.
    pub dst: Mac,
    /// EtherType behind the tag, as it lies in the frame.
    pub kind: u16,
    /// Offset of what follows: 14 or 18.
    pub l3: usize,
    /// Tag control information, wherever the tag is.
    pub tag: Tag,
}

/// Reads the Ethernet header. `None`: too short, or more than one tag.
#[inline(always)]
pub fn ether<F: Frame>(frame: F, packet: Packet) -> Option<Ether> {
    let dst: Mac = packet.read(0)?;
    let kind: u16 = packet.read(12)?;
    let beside = frame.tag_beside();
    if kind != ethertype::VLAN && kind != ethertype::SERVICE_VLAN {
        return Some(Ether { dst, kind, l3: 14, tag: beside });
    }
    let tci: u16 = packet.read(14)?;
    let kind: u16 = packet.read(16)?;
    if beside.is_some() || kind == ethertype::VLAN || kind == ethertype::SERVICE_VLAN {
        return None;
    }
    Some(Ether { dst, kind, l3: 18, tag: Tag::new(u16::from_be(tci)) })
}

/// What the IP header says.
#[derive(Clone, Copy)]
pub struct Network {
    /// Source.
    pub src: Ip,
    /// Destination.
    pub dst: Ip,
    /// Protocol, or IPv6 next header.
    pub protocol: u8,
    /// IPv4.
    pub v4: bool,
    /// Options or a fragment: the transport header is not where it usually is.
    pub rare: bool,
    /// Offset of the transport header, if not `rare`.
    pub l4: usize,
    /// Bytes from the IP header to the end of the packet, without padding of the frame.
    pub ip_len: u32,
}

/// Whether a protocol is an IPv6 extension header that is followed (RFC 8200, section 4).
#[inline(always)]
pub const fn is_extension(protocol: u8) -> bool {
    matches!(protocol, protocol::HOP_BY_HOP | protocol::ROUTING | protocol::FRAGMENT | protocol::DESTINATION)
}

/// Reads and checks the IPv4 header (RFC 791, section 3.1).
#[inline(always)]
pub fn ipv4<F: Frame>(frame: F, packet: Packet, l3: usize) -> Result<Network, Reason> {
    let head: [u8; 4] = packet.read(l3).ok_or(Reason::BadIpHeader)?;
    let fragment: u16 = packet.read(l3 + 6).ok_or(Reason::BadIpHeader)?;
    let protocol: u8 = packet.read(l3 + 9).ok_or(Reason::BadIpHeader)?;
    let src: u32 = packet.read(l3 + 12).ok_or(Reason::BadIpHeader)?;
    let dst: u32 = packet.read(l3 + 16).ok_or(Reason::BadIpHeader)?;
    let header = ((head[0] & 0x0f) as u32) << 2;
    if head[0] >> 4 != 4 || header < 20 {
        return Err(Reason::BadIpHeader);
    }
    let room = frame.length() - l3 as u32;
    let mut ip_len = u16::from_be_bytes([head[2], head[3]]) as u32;
    if F::SKB && ip_len == 0 && frame.segment_size() != 0 {
        // A superframe beyond 64 KiB: the kernel writes the length when it cuts it up.
        ip_len = room;
    }
    if ip_len > room || ip_len < header {
        return Err(Reason::BadIpLength);
    }
    // More fragments, or an offset.
    let fragmented = fragment & 0x3fff_u16.to_be() != 0;
    let rare = header != 20 || fragmented;
    Ok(Network { src: Ip::v4(src), dst: Ip::v4(dst), protocol, v4: true, rare, l4: l3 + 20, ip_len })
}

/// Reads and checks the IPv6 header (RFC 8200, section 3).
#[inline(always)]
pub fn ipv6<F: Frame>(frame: F, packet: Packet, l3: usize) -> Result<Network, Reason> {
    let version: u8 = packet.read(l3).ok_or(Reason::BadIpHeader)?;
    let payload: u16 = packet.read(l3 + 4).ok_or(Reason::BadIpHeader)?;
    let protocol: u8 = packet.read(l3 + 6).ok_or(Reason::BadIpHeader)?;
    let src: [u32; 4] = packet.read(l3 + 8).ok_or(Reason::BadIpHeader)?;
    let dst: [u32; 4] = packet.read(l3 + 24).ok_or(Reason::BadIpHeader)?;
    if version >> 4 != 6 {
        return Err(Reason::BadIpHeader);
    }
    let room = frame.length() - l3 as u32;
    let mut ip_len = u16::from_be(payload) as u32 + 40;
    if F::SKB && payload == 0 && frame.segment_size() != 0 {
        ip_len = room;
    }
    if ip_len > room {
        return Err(Reason::BadIpLength);
    }
    let rare = is_extension(protocol);
    Ok(Network { src: Ip::v6(src), dst: Ip::v6(dst), protocol, v4: false, rare, l4: l3 + 40, ip_len })
}

/// What the transport header says.
#[derive(Clone, Copy)]
pub struct Transport {
    /// Source port, then destination port, as they lie in the packet; 0 where there are none.
    pub ports: u32,
    /// TCP flags; 0 for anything else.
    pub tcp_flags: u8,
    /// Bytes of the header.
    pub header: u32,
}

/// Checks a TCP header from its data offset byte. `l4_len`: bytes from the header to the end of the packet.
#[inline(always)]
pub const fn tcp_header(offset_byte: u8, l4_len: u32) -> Result<u32, Reason> {
    let header = ((offset_byte >> 4) as u32) << 2;
    if header < 20 || header > l4_len { Err(Reason::BadL4Length) } else { Ok(header) }
}

/// Checks the length field of a UDP header (host order); 0 stands for "as the packet says" in a jumbogram
/// only, which is not steered.
#[inline(always)]
pub const fn udp_length(field: u16, l4_len: u32) -> Result<(), Reason> {
    if (field as u32) < 8 || field as u32 > l4_len { Err(Reason::BadL4Length) } else { Ok(()) }
}

/// Reads and checks the TCP or UDP header where it usually is.
#[inline(always)]
pub fn transport(packet: Packet, l3: usize, network: &Network) -> Result<Transport, Reason> {
    let l4 = network.l4;
    // Both headers are fixed: l4 - l3 is 20 or 40, and the length was checked to hold it.
    let l4_len = network.ip_len - (l4 - l3) as u32;
    match network.protocol {
        protocol::TCP => {
            if l4_len < 20 {
                return Err(Reason::TruncatedL4);
            }
            let ports = packet.read(l4).ok_or(Reason::TruncatedL4)?;
            let [offset, tcp_flags]: [u8; 2] = packet.read(l4 + 12).ok_or(Reason::TruncatedL4)?;
            let header = tcp_header(offset, l4_len)?;
            Ok(Transport { ports, tcp_flags, header })
        }
        protocol::UDP => {
            if l4_len < 8 {
                return Err(Reason::TruncatedL4);
            }
            let ports = packet.read(l4).ok_or(Reason::TruncatedL4)?;
            let length: u16 = packet.read(l4 + 4).ok_or(Reason::TruncatedL4)?;
            udp_length(u16::from_be(length), l4_len)?;
            Ok(Transport { ports, tcp_flags: 0, header: 8 })
        }
        _ => Ok(Transport { ports: 0, tcp_flags: 0, header: 0 }),
    }
}

/// All that the steps after parsing need to know of a packet.
#[derive(Clone, Copy)]
pub struct View {
    /// Source.
    pub src: Ip,
    /// Destination.
    pub dst: Ip,
    /// Source port, then destination port, as they lie in the packet.
    pub ports: u32,
    /// Protocol.
    pub protocol: u8,
    /// TCP flags.
    pub tcp_flags: u8,
    /// IPv4.
    pub v4: bool,
    /// Whether the transport header is in this packet (not in later fragments).
    pub has_l4: bool,
    /// Tag control information.
    pub tag: Tag,
    /// Offset of the IP header.
    pub l3: u32,
    /// Offset of the transport header.
    pub l4: u32,
    /// Bytes of the transport header.
    pub l4_header: u32,
    /// Bytes from the IP header on.
    pub ip_len: u32,
}

impl View {
    /// From the parts.
    #[inline(always)]
    pub const fn new(ether: &Ether, network: &Network, transport: &Transport) -> Self {
        Self {
            src: network.src,
            dst: network.dst,
            ports: transport.ports,
            protocol: network.protocol,
            tcp_flags: transport.tcp_flags,
            v4: network.v4,
            has_l4: true,
            tag: ether.tag,
            l3: ether.l3 as u32,
            l4: network.l4 as u32,
            l4_header: transport.header,
            ip_len: network.ip_len,
        }
    }

    /// Source port, as it lies in the packet.
    #[inline(always)]
    pub const fn src_port(&self) -> u16 {
        let b = self.ports.to_ne_bytes();
        u16::from_ne_bytes([b[0], b[1]])
    }

    /// Destination port, as it lies in the packet.
    #[inline(always)]
    pub const fn dst_port(&self) -> u16 {
        let b = self.ports.to_ne_bytes();
        u16::from_ne_bytes([b[2], b[3]])
    }
}
