//! The flow key and its keyed hash.
//!
//! The hash is a multilinear family over 32-bit words (Lemire and Kaser, "Strongly universal string hashing
//! is fast", 2014): strongly universal in the high half of each 64-bit sum, two multiplications a word, and
//! nothing the BPF instruction set lacks (it has neither rotate nor wide multiply).

use crate::addr::Ip;
use bytemuck::{Pod, Zeroable};

/// Random keys of the flow hash: two sums, one key a word each, plus the two initial values.
pub const SECRET_WORDS: usize = 14;
/// The secret of the flow hash, made once per instance from the kernel's random source and pinned.
pub type Secret = [u64; SECRET_WORDS];

/// What makes two packets one flow.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Pod, Zeroable, Debug, Default)]
pub struct FlowKey {
    /// The client.
    pub src: Ip,
    /// The VIP.
    pub dst: Ip,
    /// Client port, then service port, each in network order: the first word of the TCP or UDP header.
    pub ports: u32,
    /// Protocol (bits 0-7), VLAN (8-19), switch (20-31); see [`scope`].
    pub scope: u32,
}

/// Packs protocol, VLAN (12 bits, 0 untagged without filtering) and switch (12 bits) into a word of the key.
#[inline(always)]
pub const fn scope(protocol: u8, vlan: u16, switch: u16) -> u32 {
    protocol as u32 | ((vlan as u32 & 0xfff) << 8) | ((switch as u32 & 0xfff) << 20)
}

/// The two ports of a key from values in host order.
#[inline(always)]
pub const fn ports(client: u16, service: u16) -> u32 {
    let [a, b] = client.to_be_bytes();
    let [c, d] = service.to_be_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

impl FlowKey {
    /// Protocol number (IANA).
    #[inline(always)]
    pub const fn protocol(&self) -> u8 {
        self.scope as u8
    }
    /// VLAN of the service the flow belongs to.
    #[inline(always)]
    pub const fn vlan(&self) -> u16 {
        (self.scope >> 8) as u16 & 0xfff
    }
    /// Switch the flow came in by.
    #[inline(always)]
    pub const fn switch(&self) -> u16 {
        (self.scope >> 20) as u16
    }
    /// Client port in host order.
    pub const fn client_port(&self) -> u16 {
        let b = self.ports.to_ne_bytes();
        u16::from_be_bytes([b[0], b[1]])
    }
    /// Service port in host order.
    pub const fn service_port(&self) -> u16 {
        let b = self.ports.to_ne_bytes();
        u16::from_be_bytes([b[2], b[3]])
    }

    /// The keyed hash: the table slot and the two buckets are picked by it ([`slot`], [`crate::flow::bucket_one`]), and
    /// the whole is the fingerprint (64 bits, of which the bucket is implied by the place). Never 0.
    #[inline(always)]
    pub fn hash(&self, secret: &Secret) -> u64 {
        let mut a = secret[0];
        let mut b = secret[1];
        macro_rules! step {
            ($i:expr, $word:expr) => {
                let word = $word as u64;
                a = a.wrapping_add(secret[$i].wrapping_mul(word));
                b = b.wrapping_add(secret[$i + 1].wrapping_mul(word));
            };
        }
        step!(2, self.src.0[3]);
        step!(3, self.dst.0[3]);
        step!(4, self.ports);
        step!(5, self.scope);
        if !self.src.is_v4() {
            step!(6, self.src.0[0]);
            step!(7, self.src.0[1]);
            step!(8, self.src.0[2]);
            step!(9, self.dst.0[0]);
            step!(10, self.dst.0[1]);
            step!(11, self.dst.0[2]);
        }
        let hash = (a >> 32) | (b & 0xffff_ffff_0000_0000);
        // 0 seals an empty entry with an empty target; moving one value of 2^64 costs nothing.
        hash | (hash == 0) as u64
    }
}

impl FlowKey {
    /// [`Self::hash`] of a key whose source is known to be IPv4.
    #[inline(always)]
    pub const fn hash_v4(&self, secret: &Secret) -> u64 {
        let words = [self.src.0[3], self.dst.0[3], self.ports, self.scope];
        let (mut a, mut b) = (secret[0], secret[1]);
        let mut n = 0;
        while n < words.len() {
            let word = words[n] as u64;
            a = a.wrapping_add(secret[n + 2].wrapping_mul(word));
            b = b.wrapping_add(secret[n + 3].wrapping_mul(word));
            n += 1;
        }
        let hash = (a >> 32) | (b & 0xffff_ffff_0000_0000);
        hash | (hash == 0) as u64
    }
}

/// Index into a table of `len` slots by the low half of the hash, without a division: the high word of a 32 × 32
/// multiplication (Lemire, "Fast random integer generation in an interval", 2019).
///
/// Folded and multiplied before: each half of the hash is linear in every word of the key, so the ports that a client
/// takes one after the other lie evenly spaced on its circle, and under a few secrets crowd on a few places of it.
/// Shares of 6000 such flows were then off by up to 4 points, where chance alone allows 2.5.
#[inline(always)]
pub const fn slot(hash: u64, len: u32) -> u32 {
    let folded = (hash ^ (hash >> 32)) as u32;
    let mixed = (folded ^ (folded >> 15)).wrapping_mul(0x9E37_79B1);
    ((mixed as u64 * len as u64) >> 32) as u32
}

/// The hash for the `n`-th re-hash of a flow whose slot names a target that takes no new flows.
#[inline(always)]
pub const fn rehash(hash: u64, n: u32) -> u64 {
    // An odd multiplier per round permutes the 64-bit space; folding brings the high half down.
    let mixed = (hash ^ (n as u64)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ (mixed >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{bucket_one, bucket_two};

    /// Marsaglia's xorshift64.
    fn next(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    /// The largest error, in points, of the shares of three tenths and seven tenths that every other port of three
    /// clients gets.
    fn error(secret: &Secret) -> f64 {
        let mut of_three = 0;
        for client in 0..3_u32 {
            for port in (20_000..24_000).step_by(2) {
                let key = FlowKey {
                    src: Ip::v4((0x0a4d_00c9 + client).to_be()),
                    dst: Ip::v4(0xc000_020a_u32.to_be()),
                    ports: ports(port, 80),
                    scope: scope(6, 0, 0),
                };
                // A Maglev table scatters its targets; here a slot's own number is scattered instead.
                let slot = u64::from(slot(key.hash(secret), 65_537));
                let scattered = slot.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
                of_three += u32::from(scattered % 10 < 3);
            }
        }
        (f64::from(of_three) / 6000.0 - 0.3).abs() * 100.0
    }

    #[test]
    fn ports_in_a_row_get_their_shares_under_every_secret() {
        let mut state = 88_172_645_463_325_252;
        for q in 2..200 {
            let mut secret: Secret = std::array::from_fn(|_| next(&mut state));
            let random = error(&secret);
            // Steps of two ports, of which this many come to a whole turn: one half of the hash has as many values.
            secret[4] = u64::MAX / (512 * q);
            let unlucky = error(&secret);
            // Five standard deviations of 6000 flows are 3 points.
            assert!(random < 3.0 && unlucky < 3.0, "q {q}: {random:.2} and {unlucky:.2} points");
        }
    }

    /// How many of the flows that a table of `1 << bits` buckets is for (half its ways) find both buckets full.
    fn homeless(secret: &Secret, bits: u32) -> u32 {
        let mask = (1_u32 << bits) - 1;
        let mut used = vec![0_u8; 1 << bits];
        let mut homeless = 0;
        for flow in 0..2_u32 << bits {
            let (client, port) = crate::measure::client(flow);
            let key = FlowKey {
                src: Ip::v4(client),
                dst: Ip::v4(0xc000_020a_u32.to_be()),
                ports: u32::from(port) | u32::from(80_u16.to_be()) << 16,
                scope: scope(6, 0, 0),
            };
            let hash = key.hash(secret);
            let [one, two] = [bucket_one(hash, mask), bucket_two(hash, mask)].map(|bucket| bucket as usize);
            let emptier = if used[two] < used[one] { two } else { one };
            if used[emptier] == 4 {
                homeless += 1;
            } else {
                used[emptier] += 1;
            }
        }
        homeless
    }

    #[test]
    fn flows_in_a_row_find_room_under_every_secret() {
        let mut state = 88_172_645_463_325_252;
        for q in 2..60 {
            let mut secret: Secret = std::array::from_fn(|_| next(&mut state));
            let random = homeless(&secret, 14);
            // The half of the hash that picks the first bucket has few values for the ports of a client.
            secret[5] = u64::MAX / (512 * q);
            let unlucky = homeless(&secret, 14);
            // Of 32,768 flows two choices leave some half a one without a place; plain bits of the hash left up to 63.
            assert!(random <= 6 && unlucky <= 6, "q {q}: {random} and {unlucky}");
        }
    }
}
