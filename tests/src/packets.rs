//! Packets for fixtures: built by hand field by field, with the checksums of etherparse, and read back by it.
//!
//! [`Packet`] is a whole frame as plain fields, so that a fixture changes one thing and leaves the rest;
//! [`check()`](check::check) says whether a frame that came out of the kernel is sound.

pub mod arp;
pub mod check;
pub mod vxlan;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::checksum::Sum16BitWords;

/// TCP flags, the byte at offset 13 of the header (RFC 9293, section 3.1).
pub mod tcp {
    /// No more data.
    pub const FIN: u8 = 1;
    /// Opens a connection.
    pub const SYN: u8 = 2;
    /// Aborts it.
    pub const RST: u8 = 4;
    /// Data to be handed over.
    pub const PSH: u8 = 8;
    /// The acknowledgement number is valid.
    pub const ACK: u8 = 16;
}

/// EtherType of an 802.1Q tag.
pub const VLAN: u16 = 0x8100;
/// EtherType of an 802.1ad tag.
pub const SERVICE_VLAN: u16 = 0x88a8;
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

/// What the IP packet carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// TCP.
    Tcp {
        /// Ports: source, destination.
        ports: (u16, u16),
        /// Sequence number.
        seq: u32,
        /// Acknowledgement number.
        ack: u32,
        /// Flags.
        flags: u8,
        /// Options, a multiple of 4 bytes.
        options: Vec<u8>,
        /// Payload.
        data: Vec<u8>,
    },
    /// UDP.
    Udp {
        /// Ports: source, destination.
        ports: (u16, u16),
        /// Whether there is a checksum (without: 0, IPv4 only).
        checksum: bool,
        /// Payload.
        data: Vec<u8>,
    },
    /// ICMP or ICMPv6, by the family.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// The second word of the header.
        rest: [u8; 4],
        /// What follows.
        data: Vec<u8>,
    },
    /// Anything else, taken as it is.
    Raw(u8, Vec<u8>),
}

/// A piece of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Identification.
    pub id: u32,
    /// First byte of the datagram's payload in it, a multiple of 8.
    pub offset: usize,
    /// Bytes of it; a multiple of 8 unless it is the last.
    pub len: usize,
    /// Whether others follow.
    pub more: bool,
}

/// A frame as plain fields.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Source MAC.
    pub eth_src: [u8; 6],
    /// Destination MAC.
    pub eth_dst: [u8; 6],
    /// Tags, outer first: EtherType and tag control information.
    pub tags: Vec<(u16, u16)>,
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// Hop limit.
    pub ttl: u8,
    /// IPv4: "don't fragment".
    pub dont_fragment: bool,
    /// IPv4 options, a multiple of 4 bytes.
    pub options: Vec<u8>,
    /// IPv6 extension headers: protocol number, and the bytes from the second on (the first, the next header,
    /// is filled in).
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// The piece of the datagram that this is.
    pub fragment: Option<Fragment>,
    /// What it carries.
    pub body: Body,
    /// Bytes behind the IP packet.
    pub padding: usize,
}

impl Packet {
    /// A frame between two addresses. Panics if they are of different families.
    pub fn new(macs: ([u8; 6], [u8; 6]), src: IpAddr, dst: IpAddr, body: Body) -> Self {
        assert_eq!(src.is_ipv4(), dst.is_ipv4(), "one family");
        Self {
            eth_src: macs.0,
            eth_dst: macs.1,
            tags: Vec::new(),
            src,
            dst,
            ttl: 64,
            dont_fragment: false,
            options: Vec::new(),
            extensions: Vec::new(),
            fragment: None,
            body,
            padding: 0,
        }
    }

    /// With a tag outside of those it has.
    #[must_use]
    pub fn tagged(mut self, vid: u16) -> Self {
        self.tags.insert(0, (VLAN, vid));
        self
    }

    /// Offset of the IP header.
    pub fn l3(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    /// Offset of the transport header (of the first fragment).
    pub fn l4(&self) -> usize {
        let extensions: usize = self.extensions.iter().map(|(_, bytes)| bytes.len() + 1).sum();
        let fragment = if self.fragment.is_some() && self.src.is_ipv6() { 8 } else { 0 };
        self.l3() + if self.src.is_ipv4() { 20 + self.options.len() } else { 40 + extensions + fragment }
    }

    /// The frame's bytes.
    pub fn build(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(self.eth_dst);
        out.extend(self.eth_src);
        for (kind, tci) in &self.tags {
            out.extend(kind.to_be_bytes());
            out.extend(tci.to_be_bytes());
        }
        out.extend(if self.src.is_ipv4() { 0x0800_u16 } else { 0x86dd }.to_be_bytes());
        out.extend(self.ip());
        out.extend(std::iter::repeat_n(0, self.padding));
        out
    }

    /// The IP packet alone: what an ICMP error quotes.
    pub fn ip(&self) -> Vec<u8> {
        let (protocol, whole) = self.transport();
        let payload = match self.fragment {
            None => whole,
            Some(f) => whole[f.offset.min(whole.len())..(f.offset + f.len).min(whole.len())].to_vec(),
        };
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.v4(src, dst, protocol, &payload),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.v6(src, dst, protocol, &payload),
            _ => unreachable!("one family, by `new`"),
        }
    }

    fn v4(&self, src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let header = 20 + self.options.len();
        let mut out = vec![0x40 | (header / 4) as u8, 0];
        out.extend(((header + payload.len()) as u16).to_be_bytes());
        let mut word = if self.dont_fragment { 0x4000 } else { 0 };
        let mut id = 0x1234;
        if let Some(f) = self.fragment {
            word |= (f.offset / 8) as u16 | if f.more { 0x2000 } else { 0 };
            id = f.id as u16;
        }
        out.extend(id.to_be_bytes());
        out.extend(word.to_be_bytes());
        out.extend([self.ttl, protocol, 0, 0]);
        out.extend(src.octets());
        out.extend(dst.octets());
        out.extend(&self.options);
        let sum = Sum16BitWords::new().add_slice(&out).ones_complement();
        out[10..12].copy_from_slice(&sum.to_ne_bytes());
        out.extend(payload);
        out
    }

    fn v6(&self, src: Ipv6Addr, dst: Ipv6Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut chain = self.extensions.clone();
        if let Some(f) = self.fragment {
            let mut bytes = vec![0];
            bytes.extend((f.offset as u16 | u16::from(f.more)).to_be_bytes());
            bytes.extend(f.id.to_be_bytes());
            chain.push((protocol::FRAGMENT, bytes));
        }
        let mut next: Vec<u8> = chain.iter().map(|(p, _)| *p).collect();
        next.push(protocol);
        let extensions: usize = chain.iter().map(|(_, bytes)| bytes.len() + 1).sum();
        let mut out = vec![0x60, 0, 0, 0];
        out.extend(((extensions + payload.len()) as u16).to_be_bytes());
        out.extend([next[0], self.ttl]);
        out.extend(src.octets());
        out.extend(dst.octets());
        for (n, (_, bytes)) in chain.iter().enumerate() {
            out.push(next[n + 1]);
            out.extend(bytes);
        }
        out.extend(payload);
        out
    }

    /// Protocol and bytes of the whole transport packet, checksum included.
    fn transport(&self) -> (u8, Vec<u8>) {
        let v4 = self.src.is_ipv4();
        let (protocol, mut bytes, at) = match &self.body {
            Body::Tcp { ports, seq, ack, flags, options, data } => {
                let mut b = Vec::new();
                b.extend(ports.0.to_be_bytes());
                b.extend(ports.1.to_be_bytes());
                b.extend(seq.to_be_bytes());
                b.extend(ack.to_be_bytes());
                b.extend([(((20 + options.len()) / 4) << 4) as u8, *flags, 0x20, 0, 0, 0, 0, 0]);
                b.extend(options);
                b.extend(data);
                (protocol::TCP, b, Some(16))
            }
            Body::Udp { ports, checksum, data } => {
                let mut b = Vec::new();
                b.extend(ports.0.to_be_bytes());
                b.extend(ports.1.to_be_bytes());
                b.extend((8 + data.len() as u16).to_be_bytes());
                b.extend([0, 0]);
                b.extend(data);
                (protocol::UDP, b, checksum.then_some(6))
            }
            Body::Icmp { kind, code, rest, data } => {
                let mut b = vec![*kind, *code, 0, 0];
                b.extend(rest);
                b.extend(data);
                (if v4 { protocol::ICMP } else { protocol::ICMPV6 }, b, Some(2))
            }
            Body::Raw(protocol, bytes) => (*protocol, bytes.clone(), None),
        };
        if let Some(at) = at {
            let mut sum = check::transport_sum(self.src, self.dst, protocol, &bytes);
            if protocol == protocol::UDP && sum == 0 {
                sum = 0xffff;
            }
            bytes[at..at + 2].copy_from_slice(&sum.to_ne_bytes());
        }
        (protocol, bytes)
    }
}
