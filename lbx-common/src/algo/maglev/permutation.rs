//! The order in which an entry wants the slots: `slot(rank) = offset + rank * skip (mod size)`.

/// A permutation of the slots, and its inverse.
#[derive(Clone, Copy, Debug)]
pub(super) struct Permutation {
    size: u32,
    offset: u32,
    skip: Factor,
    /// `skip * unskip = 1 (mod size)`.
    unskip: Factor,
}

/// A constant to multiply by modulo `size` without a division (Shoup): `scaled = floor(by * 2^32 / size)`.
#[derive(Clone, Copy, Debug)]
struct Factor {
    by: u32,
    scaled: u32,
}

impl Factor {
    fn new(by: u32, size: u32) -> Self {
        Self { by, scaled: ((u64::from(by) << 32) / u64::from(size)) as u32 }
    }

    /// `x * by (mod size)`, for `by < size < 2^31`: the quotient is at most one too small.
    #[inline(always)]
    fn times(self, x: u32, size: u32) -> u32 {
        let quotient = (u64::from(x) * u64::from(self.scaled)) >> 32;
        let rest = (u64::from(x) * u64::from(self.by) - quotient * u64::from(size)) as u32;
        if rest >= size { rest - size } else { rest }
    }
}

impl Permutation {
    /// The permutation of a seed. Part of the agreement between hosts: it must never change.
    pub(super) fn new(seed: u64, size: u32) -> Self {
        if size < 2 {
            let still = Factor { by: 0, scaled: 0 };
            return Self { size, offset: 0, skip: still, unskip: still };
        }
        let (a, b) = (mix(seed), mix(mix(seed) ^ 0x9e37_79b9_7f4a_7c15));
        let offset = below(a, size);
        let mut skip = 1 + below(b, size - 1);
        // At once if the size is prime.
        let unskip = loop {
            match inverse(skip, size) {
                Some(inverse) => break inverse,
                None => skip = if skip + 1 < size { skip + 1 } else { 1 },
            }
        };
        Self { size, offset, skip: Factor::new(skip, size), unskip: Factor::new(unskip, size) }
    }

    /// The slot of a rank.
    #[inline(always)]
    pub(super) fn slot(&self, rank: u32) -> u32 {
        let slot = self.skip.times(rank, self.size) + self.offset;
        if slot >= self.size { slot - self.size } else { slot }
    }

    /// The rank of a slot.
    #[inline(always)]
    pub(super) fn rank(&self, slot: u32) -> u32 {
        let from = if slot >= self.offset { slot - self.offset } else { slot + self.size - self.offset };
        self.unskip.times(from, self.size)
    }

    /// The slot one rank after that of `slot`.
    #[inline(always)]
    pub(super) fn after(&self, slot: u32, size: u32) -> u32 {
        let next = slot + self.skip.by;
        if next >= size { next - size } else { next }
    }
}

/// Finalizer of SplitMix64: spreads seeds that differ in a few bits.
fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number below `n`, from the high half of a hash.
fn below(hash: u64, n: u32) -> u32 {
    (((hash >> 32) * u64::from(n)) >> 32) as u32
}

/// The inverse modulo `n` (extended Euclid), if there is one.
fn inverse(a: u32, n: u32) -> Option<u32> {
    let (mut rest, mut next_rest) = (i64::from(n), i64::from(a));
    let (mut factor, mut next_factor) = (0i64, 1i64);
    while next_rest != 0 {
        let times = rest / next_rest;
        (rest, next_rest) = (next_rest, rest - times * next_rest);
        (factor, next_factor) = (next_factor, factor - times * next_factor);
    }
    (rest == 1).then(|| factor.rem_euclid(i64::from(n)) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_and_slots_are_each_others_inverse() {
        for size in [1, 2, 3, 7, 8, 12, 251, 256, 65_537] {
            for seed in 0..20 {
                let p = Permutation::new(seed, size);
                let mut seen = vec![false; size as usize];
                let mut slot = p.slot(0);
                for rank in 0..size {
                    assert_eq!(p.slot(rank), slot, "stepping agrees (size {size}, seed {seed})");
                    assert_eq!(p.rank(slot), rank);
                    assert!(!core::mem::replace(&mut seen[slot as usize], true));
                    slot = p.after(slot, size);
                }
            }
        }
    }

    #[test]
    fn products_at_the_largest_size() {
        let size = super::super::MAX_SIZE;
        for by in [1, 2, 12_345, size / 2, size - 1] {
            let f = Factor::new(by, size);
            for x in [0, 1, 2, size / 3, size - 2, size - 1] {
                assert_eq!(u64::from(f.times(x, size)), u64::from(x) * u64::from(by) % u64::from(size));
            }
        }
    }

    #[test]
    fn permutations_are_what_other_hosts_have() {
        // Changing these numbers breaks the agreement with hosts that run an older lbx.
        let p = Permutation::new(super::super::seed("web-1/0"), 65_537);
        assert_eq!((p.offset, p.skip.by), GOLDEN);
    }

    const GOLDEN: (u32, u32) = (43027, 63787);
}
