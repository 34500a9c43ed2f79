//! The lab's addresses: 10.77.0.0/24 and fd77::/64, with the same last number written in both.
//!
//! | who | IPv4 | IPv6 |
//! |---|---|---|
//! | client k | 10.77.0.(1+k) | fd77::(1+k) |
//! | bridge of host h | 10.77.0.(10(h+1)) | fd77::(10(h+1)) |
//! | VM n (from 1) of host h | 10.77.0.(10(h+1)+n) | fd77::(10(h+1)+n) |
//! | VIP k | 10.77.0.(100+k) | fd77::(100+k) |
//! | source s of client k | 10.77.0.(200+16k+s) | fd77::(200+16k+s) |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::guest::params::Cidr;

/// An address in both families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

/// Bits of the network part, IPv4.
pub const PREFIX_V4: u8 = 24;
/// Bits of the network part, IPv6.
pub const PREFIX_V6: u8 = 64;

impl Pair {
    /// Number `n` of the lab's networks; IPv6 is written with the same decimal digits.
    pub fn nth(n: u8) -> Self {
        let digits = u16::from(n / 100) * 0x100 + u16::from(n / 10 % 10) * 0x10 + u16::from(n % 10);
        Self { v4: Ipv4Addr::new(10, 77, 0, n), v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, digits) }
    }

    /// Both addresses, IPv4 first.
    pub fn both(self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// Both with their prefixes.
    pub fn cidrs(self) -> [Cidr; 2] {
        [Cidr { addr: self.v4.into(), prefix: PREFIX_V4 }, Cidr { addr: self.v6.into(), prefix: PREFIX_V6 }]
    }
}

/// The address of client `k`, from 0.
pub fn client(k: usize) -> Pair {
    Pair::nth(1 + small(k, 9))
}

/// The bridge of host `h`, from 0.
pub fn host(h: usize) -> Pair {
    Pair::nth(10 * (1 + small(h, 9)))
}

/// VM `n` (from 1) of host `h` (from 0).
pub fn vm(h: usize, n: usize) -> Pair {
    Pair::nth(10 * (1 + small(h, 9)) + small(n, 10))
}

/// VIP `k`, from 0.
pub fn vip(k: usize) -> Pair {
    Pair::nth(100 + small(k, 100))
}

/// Additional source address `s` of client `k`, both from 0.
pub fn source(k: usize, s: usize) -> Pair {
    Pair::nth(200 + 16 * small(k, 3) + small(s, 16))
}

/// A fixed, locally administered MAC: `kind` tells what it belongs to.
pub fn mac(kind: u8, host: usize, n: usize) -> [u8; 6] {
    [0x02, 0x77, 0, kind, host as u8, n as u8]
}

fn small(n: usize, limit: u8) -> u8 {
    assert!(n < limit as usize, "the lab's addressing has room for {limit}, not for number {n}");
    n as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_show_the_same_digits() {
        let vm = vm(1, 3);
        assert_eq!((vm.v4.to_string().as_str(), vm.v6.to_string().as_str()), ("10.77.0.23", "fd77::23"));
        assert_eq!(vip(0).v6.to_string(), "fd77::100");
        assert_eq!(source(1, 2).v6.to_string(), "fd77::218");
    }
}
