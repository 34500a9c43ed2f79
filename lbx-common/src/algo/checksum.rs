//! The Internet checksum: incremental updates (RFC 1624, equation 3) and full sums.
//!
//! **Byte order.** Every word here is the raw load of network-order bytes; nothing is ever swapped. The one's
//! complement sum does not depend on byte order (RFC 1071, section 2 B) as long as all words of one sum are
//! loaded alike, and a 32-bit raw load counts as its two 16-bit halves. A number that is not in the packet
//! yet (a length, a protocol) goes in as `x.to_be()`.
//!
//! **Sums** are plain `u64`: up to 2^32 words fit before [`fold`], so carries are never looked at on the way.
//! A *delta* is such a sum of (not old) + new; deltas of several fields add up and are applied once:
//! `apply(csum, delta_v4(..) + delta16(..))`.
//!
//! **Zero.** Applied to a valid checksum of data that are not all zero (every IP, TCP and UDP header), the
//! result is bit for bit what computing it anew gives: `0xffff` never turns up for `0` (RFC 1624, section 3).

/// Folds a sum into 16 bits. No branches.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let s = (sum & 0xffff_ffff) + (sum >> 32); // 33 bits
    let s = (s & 0xffff) + (s >> 16); // at most 0x2_fffe
    let s = (s & 0xffff) + (s >> 16); // at most 0x1_0000
    ((s & 0xffff) + (s >> 16)) as u16
}

/// Folds a 32-bit sum, such as `bpf_csum_diff` returns, into 16 bits.
#[inline(always)]
pub const fn fold32(sum: u32) -> u16 {
    let s = (sum & 0xffff) + (sum >> 16);
    ((s & 0xffff) + (s >> 16)) as u16
}

/// What replacing one 16-bit field does to a sum.
#[inline(always)]
pub const fn delta16(old: u16, new: u16) -> u64 {
    !old as u64 + new as u64
}

/// What replacing one 32-bit field (an IPv4 address, both ports) does to a sum.
///
/// A field must begin at an even offset of what is summed, as all of them do.
#[inline(always)]
pub const fn delta32(old: u32, new: u32) -> u64 {
    !old as u64 + new as u64
}

/// What replacing an IPv6 address does to a sum.
#[inline(always)]
pub const fn delta128(old: &[u32; 4], new: &[u32; 4]) -> u64 {
    delta32(old[0], new[0]) + delta32(old[1], new[1]) + delta32(old[2], new[2]) + delta32(old[3], new[3])
}

/// Address and port of IPv4, for the checksum of TCP or UDP. The IPv4 header's own wants [`delta32`] alone.
#[inline(always)]
pub const fn delta_v4(old: u32, new: u32, old_port: u16, new_port: u16) -> u64 {
    delta32(old, new) + delta16(old_port, new_port)
}

/// Address and port of IPv6, for the checksum of TCP, UDP or ICMPv6 (port: pass 0, 0).
#[inline(always)]
pub const fn delta_v6(old: &[u32; 4], new: &[u32; 4], old_port: u16, new_port: u16) -> u64 {
    delta128(old, new) + delta16(old_port, new_port)
}

/// The checksum field after a delta (RFC 1624: `HC' = ~(~HC + ~m + m')`).
#[inline(always)]
pub const fn apply(csum: u16, delta: u64) -> u16 {
    // !csum is at most 16 bits and a delta far from 64, so this cannot overflow.
    !fold(!csum as u64 + delta)
}

/// The same for UDP (RFC 768): 0 means that the sender computed none and stays so (over IPv6 that is the
/// zero-checksum mode of RFC 6936, the receiver's to judge); a computed 0 is sent as `0xffff`.
#[inline(always)]
pub const fn apply_udp(csum: u16, delta: u64) -> u16 {
    if csum == 0 {
        return 0;
    }
    udp(apply(csum, delta))
}

/// A computed checksum as UDP sends it: never 0.
#[inline(always)]
pub const fn udp(csum: u16) -> u16 {
    if csum == 0 { 0xffff } else { csum }
}

/// The checksum field after one 16-bit field was replaced.
#[inline(always)]
pub const fn replace16(csum: u16, old: u16, new: u16) -> u16 {
    apply(csum, delta16(old, new))
}

/// The checksum field after one 32-bit field was replaced.
#[inline(always)]
pub const fn replace32(csum: u16, old: u32, new: u32) -> u16 {
    apply(csum, delta32(old, new))
}

/// Sum of the words of a header or message of a fixed size, as the kernel program has it on its stack.
#[inline(always)]
pub const fn sum_words<const N: usize>(words: &[u32; N]) -> u64 {
    let mut sum = 0;
    let mut i = 0;
    while i < N {
        sum += words[i] as u64;
        i += 1;
    }
    sum
}

/// Sum of bytes as they are on the wire; an odd last one is padded with zero.
///
/// Parts can be summed apart and added if all but the last have an even length.
pub fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(2);
    let odd = words.remainder().first().map_or(0, |&b| u16::from_ne_bytes([b, 0]) as u64);
    words.fold(odd, |sum, w| sum + u16::from_ne_bytes([w[0], w[1]]) as u64)
}

/// Sum of the IPv4 pseudo-header (RFC 793): raw addresses, protocol number, length of segment in bytes.
#[inline(always)]
pub const fn pseudo_v4(src: u32, dst: u32, protocol: u8, len: u16) -> u64 {
    src as u64 + dst as u64 + (protocol as u16).to_be() as u64 + len.to_be() as u64
}

/// Sum of the IPv6 pseudo-header (RFC 8200, section 8.1): raw addresses, the upper layer's protocol number,
/// length of the upper layer in bytes.
#[inline(always)]
pub const fn pseudo_v6(src: &[u32; 4], dst: &[u32; 4], protocol: u8, len: u32) -> u64 {
    sum_words(src) + sum_words(dst) + (protocol as u32).to_be() as u64 + len.to_be() as u64
}

/// The checksum field that a sum (taken with the field itself zero) asks for.
#[inline(always)]
pub const fn finish(sum: u64) -> u16 {
    !fold(sum)
}

/// The checksum of bytes in which the field itself is zero. Over bytes with a right checksum: 0.
pub fn full(bytes: &[u8]) -> u16 {
    finish(sum(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Independent of the code above: 16-bit big-endian words, end-around carry after every addition.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for i in (0..bytes.len()).step_by(2) {
            let low = if i + 1 < bytes.len() { bytes[i + 1] } else { 0 };
            sum += u32::from(bytes[i]) << 8 | u32::from(low);
            if sum > 0xffff {
                sum -= 0xffff;
            }
        }
        !(sum as u16)
    }

    fn get16(b: &[u8], at: usize) -> u16 {
        u16::from_ne_bytes([b[at], b[at + 1]])
    }
    fn get32(b: &[u8], at: usize) -> u32 {
        u32::from_ne_bytes(b[at..at + 4].try_into().unwrap())
    }
    fn words<const N: usize>(b: &[u8], at: usize) -> [u32; N] {
        core::array::from_fn(|i| get32(b, at + 4 * i))
    }

    /// Bytes that are often all zeros or all ones, where one's complement has its two zeros.
    fn bytes(len: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(prop_oneof![2 => any::<u8>(), 1 => Just(0u8), 1 => Just(0xffu8)], len)
    }

    #[test]
    fn known_packets() {
        // RFC 1071, section 3: the words 0001 f203 f4f5 f6f7 sum to ddf2.
        let rfc = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(full(&rfc), (!0xddf2u16).to_be());
        // RFC 1624, section 4: 5555 becomes 3285, the checksum dd2f becomes 0000.
        assert_eq!(replace16(0xdd2fu16.to_be(), 0x5555u16.to_be(), 0x3285u16.to_be()), 0);
        assert_eq!(full(&[]), 0xffff);
        assert_eq!(full(&[0xff, 0xff]), 0);
    }

    #[test]
    fn fold_at_its_edges() {
        for (sum, folded) in
            [(0, 0), (0xffff, 0xffff), (0x1_0000, 1), (0xffff_ffff, 0xffff), (u64::MAX, 0xffff)]
        {
            assert_eq!(fold(sum), folded, "{sum:#x}");
        }
        assert_eq!(fold32(0xffff_ffff), 0xffff);
        assert_eq!(fold32(0x0001_ffff), 1);
    }

    #[test]
    fn udp_zero_rule() {
        assert_eq!(apply_udp(0, delta16(1, 2)), 0, "no checksum stays none");
        // The change that makes a checksum come out as 0.
        let before = 0x1234;
        assert_eq!(replace16(before, 0, before), 0);
        assert_eq!(apply_udp(before, delta16(0, before)), 0xffff);
        // And away from the 0 that is sent as ffff.
        assert_eq!(apply_udp(0xffff, delta16(before, 0)), before);
    }

    proptest! {
        #[test]
        fn fold_is_the_remainder(sum in any::<u64>()) {
            // 2^16 is 1 modulo 2^16 - 1; only 0 itself folds to 0.
            prop_assert_eq!(u64::from(fold(sum)) % 0xffff, sum % 0xffff);
            prop_assert_eq!(fold(sum) == 0, sum == 0);
            prop_assert_eq!(fold32(sum as u32), fold(sum & 0xffff_ffff));
        }

        #[test]
        fn full_agrees(b in bytes(0..200)) {
            prop_assert_eq!(full(&b), reference(&b).to_be());
        }

        #[test]
        fn ipv4_header_address(mut h in bytes(20), new in bytes(4), at in prop_oneof![Just(12usize), Just(16)]) {
            h[0] = 0x45; // a header is never all zero
            h[10..12].fill(0);
            let csum = full(&h);
            let old = get32(&h, at);
            h[at..at + 4].copy_from_slice(&new);
            prop_assert_eq!(replace32(csum, old, get32(&h, at)), reference(&h).to_be());
        }

        #[test]
        fn tcp_v4(mut p in bytes(12 + 20..120), new in bytes(4), port in any::<u16>()) {
            // Pseudo-header in front, destination address and port replaced, whole thing summed anew.
            p[8..10].copy_from_slice(&[0, 6]);
            let len = (p.len() - 12) as u16;
            p[10..12].copy_from_slice(&len.to_be_bytes());
            p[28..30].fill(0);
            let csum = finish(pseudo_v4(get32(&p, 0), get32(&p, 4), 6, len) + sum(&p[12..]));
            prop_assert_eq!(csum, reference(&p).to_be());
            let (old, old_port) = (get32(&p, 4), get16(&p, 14));
            p[4..8].copy_from_slice(&new);
            p[14..16].copy_from_slice(&port.to_ne_bytes());
            let got = apply(csum, delta_v4(old, get32(&p, 4), old_port, port));
            prop_assert_eq!(got, reference(&p).to_be());
        }

        #[test]
        fn udp_v6(mut p in bytes(40 + 8..140), new in bytes(16), port in any::<u16>()) {
            let len = (p.len() - 40) as u32;
            p[32..36].copy_from_slice(&len.to_be_bytes());
            p[36..40].copy_from_slice(&[0, 0, 0, 17]);
            p[46..48].fill(0);
            let total = pseudo_v6(&words(&p, 0), &words(&p, 16), 17, len) + sum(&p[40..]);
            let csum = udp(finish(total));
            let (old, old_port) = (words(&p, 16), get16(&p, 42));
            p[16..32].copy_from_slice(&new);
            p[42..44].copy_from_slice(&port.to_ne_bytes());
            let got = apply_udp(csum, delta_v6(&old, &words(&p, 16), old_port, port));
            prop_assert_eq!(got, udp(reference(&p).to_be()));
        }

        #[test]
        fn there_and_back(csum in 0u16..0xffff, old in any::<[u32; 4]>(), new in any::<[u32; 4]>()) {
            // Only a checksum of all-zero data is 0xffff, so a valid one comes back exactly.
            let there = apply(csum.to_be(), delta128(&old, &new));
            prop_assert_eq!(apply(there, delta128(&new, &old)), csum.to_be());
        }
    }
}
