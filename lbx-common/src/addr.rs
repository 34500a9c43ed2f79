//! Addresses as the datapath carries them.

use bytemuck::{Pod, Zeroable};

/// `::ffff:0:0/96` in memory order: what an IPv4 address is mapped to (RFC 4291, section 2.5.5.2).
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// An IP address: 16 bytes in network order, held as four words exactly as they lie in the packet.
/// IPv4 is v4-mapped, so that one address has one form.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable, Debug, Default)]
pub struct Ip(pub [u32; 4]);

impl Ip {
    /// The address nothing has.
    pub const UNSPECIFIED: Self = Self([0; 4]);

    /// From an IPv4 address as it lies in the packet.
    #[inline(always)]
    pub const fn v4(word: u32) -> Self {
        Self([0, 0, MAPPED, word])
    }

    /// From an IPv6 address as it lies in the packet.
    #[inline(always)]
    pub const fn v6(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// Whether this is a mapped IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == MAPPED
    }

    /// The IPv4 word as it lies in the packet (meaningful if [`Self::is_v4`]).
    #[inline(always)]
    pub const fn v4_word(&self) -> u32 {
        self.0[3]
    }

    /// Its two halves, each as it lies in memory.
    #[inline(always)]
    pub const fn halves(&self) -> [u64; 2] {
        let [a, b, c, d] = self.0;
        [a as u64 | (b as u64) << 32, c as u64 | (d as u64) << 32]
    }

    /// Its words in one, by different odd factors: what tables of addresses pick a place by.
    #[inline(always)]
    pub const fn folded(&self) -> u32 {
        let [a, b, c, d] = self.0;
        a.wrapping_mul(3) ^ b.wrapping_mul(5) ^ c.wrapping_mul(9) ^ d
    }

    /// Whether no address is set.
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        self.0[0] | self.0[1] | self.0[2] | self.0[3] == 0
    }

    /// The 16 bytes in network order.
    pub fn octets(&self) -> [u8; 16] {
        bytemuck::cast(self.0)
    }
}

impl From<core::net::IpAddr> for Ip {
    fn from(addr: core::net::IpAddr) -> Self {
        let octets = match addr {
            core::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            core::net::IpAddr::V6(v6) => v6.octets(),
        };
        Self(bytemuck::cast(octets))
    }
}

impl From<Ip> for core::net::IpAddr {
    fn from(ip: Ip) -> Self {
        core::net::Ipv6Addr::from(ip.octets()).to_canonical()
    }
}

/// A MAC address in wire order.
pub type Mac = [u8; 6];
