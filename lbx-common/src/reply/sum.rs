//! The Internet checksum (RFC 1071) and its incremental form (RFC 1624).

use crate::addr::Ip;
use crate::algo::checksum;

/// A ones' complement sum that is still growing.
///
/// Words are added as they lie in memory: the sum of byte-swapped words is the byte-swapped sum (RFC 1071,
/// section 2 (B)), so no word is ever swapped. 64 bits hold the sum of 2³² 32-bit words without overflow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Nothing summed yet.
    pub const ZERO: Self = Self(0);

    /// The sum behind a checksum field as it lies in the packet.
    #[inline(always)]
    pub const fn behind(field: [u8; 2]) -> Self {
        Self(!u16::from_ne_bytes(field) as u64)
    }

    /// One 16-bit word as it lies in the packet.
    #[inline(always)]
    #[must_use]
    pub const fn add(self, word: [u8; 2]) -> Self {
        Self(self.0 + u16::from_ne_bytes(word) as u64)
    }

    /// One 32-bit word as it lies in the packet.
    #[inline(always)]
    #[must_use]
    pub const fn add_word(self, word: u32) -> Self {
        Self(self.0 + word as u64)
    }

    /// A number in host order.
    #[inline(always)]
    #[must_use]
    pub const fn add_u16(self, number: u16) -> Self {
        self.add(number.to_be_bytes())
    }

    /// A header or part of one. `N` is even, and the part starts at an even offset of what is summed.
    #[inline(always)]
    #[must_use]
    pub fn add_bytes<const N: usize>(self, bytes: &[u8; N]) -> Self {
        const { assert!(N.is_multiple_of(2)) };
        let mut sum = self.0;
        let mut i = 0;
        while i + 1 < N {
            sum += u16::from_ne_bytes([bytes[i], bytes[i + 1]]) as u64;
            i += 2;
        }
        Self(sum)
    }

    /// Another sum.
    #[inline(always)]
    #[must_use]
    pub const fn add_sum(self, other: Self) -> Self {
        Self(self.0 + other.folded() as u64)
    }

    /// Takes another sum out again.
    #[inline(always)]
    #[must_use]
    pub const fn sub_sum(self, other: Self) -> Self {
        Self(self.0 + !other.folded() as u64)
    }

    /// The pseudo-header of TCP and UDP over IPv4 (RFC 9293, section 3.1). `length` of header and payload.
    #[inline(always)]
    pub fn pseudo_v4(src: &[u8; 4], dst: &[u8; 4], protocol: u8, length: u32) -> Self {
        Self::ZERO.add_bytes(src).add_bytes(dst).add([0, protocol]).add_bytes(&length.to_be_bytes())
    }

    /// An IPv6 address.
    #[inline(always)]
    #[must_use]
    pub const fn add_ip(self, Ip([a, b, c, d]): &Ip) -> Self {
        self.add_word(*a).add_word(*b).add_word(*c).add_word(*d)
    }

    /// The pseudo-header of upper layers over IPv6 (RFC 8200, section 8.1).
    #[inline(always)]
    pub fn pseudo_v6(src: &[u8; 16], dst: &[u8; 16], protocol: u8, length: u32) -> Self {
        Self::ZERO.add_bytes(src).add_bytes(dst).add([0, protocol]).add_bytes(&length.to_be_bytes())
    }

    /// The sum in 16 bits, not complemented, as it would lie in memory. What a checksum field holds while
    /// its completion is left to hardware, if this is the sum of the pseudo-header.
    #[inline(always)]
    pub const fn folded(self) -> u16 {
        checksum::fold(self.0)
    }

    /// The checksum field as it lies in the packet.
    #[inline(always)]
    pub const fn checksum(self) -> [u8; 2] {
        (!self.folded()).to_ne_bytes()
    }

    /// The checksum field of UDP, where 0 means "none" (RFC 768).
    #[inline(always)]
    pub const fn checksum_udp(self) -> [u8; 2] {
        match self.checksum() {
            [0, 0] => [0xff, 0xff],
            field => field,
        }
    }

    /// The field that is its own checksum: `x` with `x = !(self + x)`, as it lies in the packet.
    ///
    /// If the stack may still complete a checksum field that lies inside a packet lbx has summed already,
    /// this value makes the completion change nothing. 2 is invertible modulo 2¹⁶ − 1, and its inverse is
    /// 2¹⁵, so there always is one.
    #[inline(always)]
    pub const fn fixed_point(self) -> [u8; 2] {
        let half = (!self.folded()) as u64 * 0x8000;
        // The value is small enough for folding to be the remainder.
        Self(half).folded().to_ne_bytes()
    }
}

/// The sum of a header as an update of a checksum that covers it: what `after` has more than `before`.
#[inline(always)]
pub fn change<const N: usize>(before: &[u8; N], after: &[u8; N]) -> Sum {
    Sum::ZERO.add_bytes(after).sub_sum(Sum::ZERO.add_bytes(before))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// By the letter of RFC 1071: big-endian words, carry folded at each step.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum: u32 = 0;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from);
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    proptest! {
        #[test]
        fn matches_the_reference(bytes: [u8; 32], more: [u8; 20]) {
            let all = [bytes.as_slice(), more.as_slice()].concat();
            let sum = Sum::ZERO.add_bytes(&bytes).add_sum(Sum::ZERO.add_bytes(&more));
            prop_assert_eq!(sum.checksum(), reference(&all).to_be_bytes());
        }

        #[test]
        fn incremental_is_full(bytes in any::<[u8; 20]>(), new: [u8; 20]) {
            let field = Sum::ZERO.add_bytes(&bytes).checksum();
            let updated = Sum::behind(field).add_sum(change(&bytes, &new));
            // +0 and −0 are the same number: equal as checksums, not always as bits.
            let full = Sum::ZERO.add_bytes(&new);
            prop_assert_eq!(updated.folded() % 0xffff, full.folded() % 0xffff);
        }

        #[test]
        fn completing_a_fixed_point_changes_nothing(bytes: [u8; 20]) {
            let sum = Sum::ZERO.add_bytes(&bytes);
            let field = sum.fixed_point();
            let completed = sum.add(field).checksum();
            prop_assert_eq!(u16::from_ne_bytes(field) % 0xffff, u16::from_ne_bytes(completed) % 0xffff);
        }
    }

    #[test]
    fn udp_never_sends_none() {
        assert_eq!(Sum::ZERO.add([0xff, 0xff]).checksum(), [0, 0]);
        assert_eq!(Sum::ZERO.add([0xff, 0xff]).checksum_udp(), [0xff, 0xff]);
    }
}
