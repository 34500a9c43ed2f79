//! Frames in VXLAN packets (RFC 7348), built field by field.

use std::net::IpAddr;

use etherparse::checksum::Sum16BitWords;

/// What is around a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vxlan {
    /// MACs: source, destination.
    pub macs: ([u8; 6], [u8; 6]),
    /// VLAN of a tag around it all.
    pub tag: Option<u16>,
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// DSCP and ECN.
    pub class: u8,
    /// Hop limit.
    pub ttl: u8,
    /// UDP ports: source, destination.
    pub ports: (u16, u16),
    /// First byte of VXLAN.
    pub flags: u8,
    /// Network.
    pub vni: u32,
}

impl Vxlan {
    /// Around a frame.
    pub fn around(&self, frame: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(self.macs.1);
        out.extend(self.macs.0);
        if let Some(vid) = self.tag {
            out.extend(0x8100_u16.to_be_bytes());
            out.extend(vid.to_be_bytes());
        }
        let udp = (16 + frame.len()) as u16;
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                out.extend(0x0800_u16.to_be_bytes());
                let mut ip = vec![0x45, self.class];
                ip.extend((20 + udp).to_be_bytes());
                ip.extend([0, 0, 0x40, 0, self.ttl, 17, 0, 0]);
                ip.extend(src.octets());
                ip.extend(dst.octets());
                let sum = Sum16BitWords::new().add_slice(&ip).ones_complement();
                ip[10..12].copy_from_slice(&sum.to_ne_bytes());
                out.extend(ip);
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                out.extend(0x86dd_u16.to_be_bytes());
                let word = 6 << 28 | u32::from(self.class) << 20;
                out.extend(word.to_be_bytes());
                out.extend(udp.to_be_bytes());
                out.extend([17, self.ttl]);
                out.extend(src.octets());
                out.extend(dst.octets());
            }
            _ => unreachable!("one family"),
        }
        for half in [self.ports.0, self.ports.1, udp, 0] {
            out.extend(half.to_be_bytes());
        }
        out.extend([self.flags, 0, 0, 0]);
        out.extend((self.vni << 8).to_be_bytes());
        out.extend(frame);
        out
    }

    /// Bytes in front of the frame.
    pub fn bytes(&self) -> usize {
        14 + if self.tag.is_some() { 4 } else { 0 } + if self.src.is_ipv4() { 20 } else { 40 } + 16
    }
}
