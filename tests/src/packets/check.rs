//! Reads frames with etherparse and recomputes every checksum.

use std::net::IpAddr;

use anyhow::{Context, Result, bail, ensure};
use etherparse::checksum::Sum16BitWords;
use etherparse::{NetSlice, SlicedPacket};

use super::protocol;

/// What a sound frame says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parsed {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Hop limit.
    pub ttl: u8,
    /// Protocol of the payload, behind any extension headers.
    pub protocol: u8,
    /// The transport packet.
    pub payload: Vec<u8>,
}

impl Parsed {
    /// A 16-bit field of the transport packet, in host order.
    pub fn u16(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.payload[at], self.payload[at + 1]])
    }

    /// A 32-bit field of the transport packet, in host order.
    pub fn u32(&self, at: usize) -> u32 {
        (u32::from(self.u16(at)) << 16) | u32::from(self.u16(at + 2))
    }

    /// Source and destination port.
    pub fn ports(&self) -> (u16, u16) {
        (self.u16(0), self.u16(2))
    }
}

/// Parses a frame strictly and checks the checksums of its IP header and of what it carries.
pub fn check(frame: &[u8]) -> Result<Parsed> {
    let sliced = SlicedPacket::from_ethernet(frame).context("etherparse refuses the frame")?;
    let (src, dst, ttl, payload): (IpAddr, IpAddr, u8, _) = match sliced.net.context("no IP packet")? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            let sum = header.calc_header_checksum();
            ensure!(header.header_checksum == sum, "IP header: {:#x}, not {sum:#x}", header.header_checksum);
            (header.source.into(), header.destination.into(), header.time_to_live, ip.payload().clone())
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            (header.source.into(), header.destination.into(), header.hop_limit, ip.payload().clone())
        }
        NetSlice::Arp(_) => bail!("ARP"),
    };
    let parsed = Parsed { src, dst, ttl, protocol: payload.ip_number.0, payload: payload.payload.to_vec() };
    if !payload.fragmented {
        transport(&parsed)?;
    }
    Ok(parsed)
}

/// Checks the transport checksum.
fn transport(p: &Parsed) -> Result<()> {
    let unsummed = p.protocol == protocol::UDP && p.src.is_ipv4() && p.u16(6) == 0;
    let known = [protocol::TCP, protocol::UDP, protocol::ICMP, protocol::ICMPV6].contains(&p.protocol);
    if known && !unsummed {
        let sum = transport_sum(p.src, p.dst, p.protocol, &p.payload);
        ensure!(sum == 0, "checksum of protocol {} is off by {sum:#x}", p.protocol);
    }
    Ok(())
}

/// What the checksum field has to hold if it is 0 now, as it lies in memory; 0 over a packet whose checksum
/// is right.
pub fn transport_sum(src: IpAddr, dst: IpAddr, protocol: u8, bytes: &[u8]) -> u16 {
    let mut sum = Sum16BitWords::new().add_slice(bytes);
    let length = (bytes.len() as u32).to_be_bytes();
    match (src, dst) {
        (IpAddr::V4(_), _) if protocol == protocol::ICMP => sum,
        (IpAddr::V4(s), IpAddr::V4(d)) => sum.add_4bytes(s.octets()).add_4bytes(d.octets()),
        (IpAddr::V6(s), IpAddr::V6(d)) => sum.add_16bytes(s.octets()).add_16bytes(d.octets()),
        _ => unreachable!("one family"),
    }
    .add_4bytes(if protocol == protocol::ICMP { [0; 4] } else { length })
    .add_4bytes(if protocol == protocol::ICMP { [0; 4] } else { [0, 0, 0, protocol] })
    .ones_complement()
}
