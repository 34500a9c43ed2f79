//! Slots that nobody holds, while a table is built or repaired.

use super::permutation::Permutation;

/// Free slots, as bits for walking a permutation and as a list for ranking them.
pub(super) struct Pool {
    size: u32,
    free: u32,
    bits: Vec<u64>,
    list: Vec<u32>,
    /// Whether `list` is what `bits` say.
    listed: bool,
}

/// Where a walk goes on: a rank and its slot.
#[derive(Clone, Copy)]
pub(super) struct Cursor {
    pub(super) rank: u32,
    pub(super) slot: u32,
}

impl Cursor {
    pub(super) fn start(order: &Permutation) -> Self {
        Self { rank: 0, slot: order.slot(0) }
    }
}

impl Pool {
    /// All slots of a table.
    pub(super) fn full(size: u32) -> Self {
        let mut bits = vec![u64::MAX; size as usize / 64];
        bits.push((1 << (size % 64)) - 1);
        Self { size, free: size, bits, list: Vec::new(), listed: false }
    }

    /// These slots.
    pub(super) fn of(list: Vec<u32>, size: u32) -> Self {
        let mut bits = vec![0; size as usize / 64 + 1];
        for &slot in &list {
            bits[slot as usize / 64] |= 1 << (slot % 64);
        }
        Self { size, free: list.len() as u32, bits, list, listed: true }
    }

    /// Number of free slots.
    pub(super) fn len(&self) -> u32 {
        self.free
    }

    /// Whether finding `n` slots by walking, `size / free` steps each, is cheaper than looking at every free
    /// slot once. A step costs about three times a look. The result is the same.
    #[inline]
    fn walks(&self, n: u32) -> bool {
        let free = u64::from(self.free);
        3 * u64::from(n) * u64::from(self.size) < free * free
    }

    /// Takes the free slot that ranks best, given that none before the cursor is free; moves the cursor on.
    #[inline]
    pub(super) fn take_one(&mut self, order: &Permutation, cursor: &mut Cursor) -> Cursor {
        if self.walks(1) {
            return self.walk(order, cursor);
        }
        let rank = self.best(order);
        let found = Cursor { rank, slot: order.slot(rank) };
        *cursor = Cursor { rank: rank + 1, slot: order.after(found.slot, self.size) };
        found
    }

    /// Takes the `n` free slots that rank best and returns their ranks. There must be as many.
    pub(super) fn take(&mut self, order: &Permutation, n: u32) -> Vec<u32> {
        debug_assert!(n <= self.free);
        if self.walks(n) {
            let mut cursor = Cursor::start(order);
            return (0..n).map(|_| self.walk(order, &mut cursor).rank).collect();
        }
        if n <= FEW {
            return self.few(order, n);
        }
        self.bring_up_to_date();
        let mut ranked: Vec<(u32, u32)> = self.list.iter().map(|&slot| (order.rank(slot), slot)).collect();
        if (n as usize) < ranked.len() {
            ranked.select_nth_unstable(n as usize - 1);
        }
        for &(_, slot) in &ranked[..n as usize] {
            self.bits[slot as usize / 64] &= !(1 << (slot % 64));
        }
        self.list.clear();
        self.list.extend(ranked[n as usize..].iter().map(|&(_, slot)| slot));
        self.free -= n;
        ranked[..n as usize].iter().map(|&(rank, _)| rank).collect()
    }

    #[inline]
    fn walk(&mut self, order: &Permutation, cursor: &mut Cursor) -> Cursor {
        let Cursor { mut rank, mut slot } = *cursor;
        while self.bits[slot as usize / 64] >> (slot % 64) & 1 == 0 {
            slot = order.after(slot, self.size);
            rank += 1;
        }
        self.bits[slot as usize / 64] &= !(1 << (slot % 64));
        self.free -= 1;
        self.listed = false;
        *cursor = Cursor { rank: rank + 1, slot: order.after(slot, self.size) };
        Cursor { rank, slot }
    }

    /// Takes the best slot by looking at all.
    #[inline]
    fn best(&mut self, order: &Permutation) -> u32 {
        self.bring_up_to_date();
        let (mut best, mut at) = (u32::MAX, 0);
        for (i, &slot) in self.list.iter().enumerate() {
            let rank = order.rank(slot);
            if rank < best {
                (best, at) = (rank, i);
            }
        }
        let slot = self.list.swap_remove(at);
        self.bits[slot as usize / 64] &= !(1 << (slot % 64));
        self.free -= 1;
        best
    }

    /// Takes the `n` best slots in one look at all: few enough that a better one than those is rare.
    fn few(&mut self, order: &Permutation, n: u32) -> Vec<u32> {
        self.bring_up_to_date();
        // Best first: rank in the high half, position in the list in the low one.
        let mut found: Vec<u64> = Vec::with_capacity(n as usize + 1);
        let mut worst = u32::MAX;
        for (i, &slot) in self.list.iter().enumerate() {
            let rank = order.rank(slot);
            if rank < worst {
                let key = u64::from(rank) << 32 | i as u64;
                found.insert(found.partition_point(|&k| k < key), key);
                found.truncate(n as usize);
                if found.len() == n as usize {
                    worst = found.last().map_or(worst, |&k| (k >> 32) as u32);
                }
            }
        }
        // From the back of the list, so that the positions still to come stay what they are.
        found.sort_unstable_by_key(|&k| core::cmp::Reverse(k as u32));
        for &key in &found {
            let slot = self.list.swap_remove(key as u32 as usize);
            self.bits[slot as usize / 64] &= !(1 << (slot % 64));
        }
        self.free -= n;
        found.into_iter().map(|k| (k >> 32) as u32).collect()
    }

    fn bring_up_to_date(&mut self) {
        if self.listed {
            return;
        }
        self.list.clear();
        for (i, &word) in self.bits.iter().enumerate() {
            let mut rest = word;
            while rest != 0 {
                self.list.push(i as u32 * 64 + rest.trailing_zeros());
                rest &= rest - 1;
            }
        }
        self.listed = true;
    }
}

/// Up to so many slots are found faster by insertion than by selection.
const FEW: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_finds_the_same() {
        let size = 1009;
        for seed in 0..50u64 {
            let order = Permutation::new(seed, size);
            let free: Vec<u32> = (0..size).filter(|s| (s * 7 + seed as u32) % 5 < 2).collect();
            for n in [1, 2, FEW, FEW + 1, 100, free.len() as u32] {
                let mut expected: Vec<u32> = free.iter().map(|&s| order.rank(s)).collect();
                expected.sort_unstable();
                expected.truncate(n as usize);

                let mut pool = Pool::of(free.clone(), size);
                let mut cursor = Cursor::start(&order);
                let walked: Vec<u32> = (0..n).map(|_| pool.walk(&order, &mut cursor).rank).collect();
                assert_eq!(walked, expected);

                let mut pool = Pool::of(free.clone(), size);
                let looked: Vec<u32> = (0..n).map(|_| pool.best(&order)).collect();
                assert_eq!(looked, expected);

                let mut pool = Pool::of(free.clone(), size);
                let mut taken = pool.take(&order, n);
                taken.sort_unstable();
                assert_eq!(taken, expected);
                pool.listed = false;
                pool.bring_up_to_date();
                assert_eq!((pool.list.len(), pool.len()), (free.len() - n as usize, pool.free));
                assert_eq!(pool.list.len() as u32, pool.free);
            }
        }
    }

    #[test]
    fn a_full_pool_has_every_slot() {
        for size in [1, 63, 64, 65, 1009] {
            let mut pool = Pool::full(size);
            pool.bring_up_to_date();
            assert_eq!(pool.list, (0..size).collect::<Vec<_>>());
        }
    }
}
