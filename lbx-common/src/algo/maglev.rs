//! Weighted Maglev tables with exact shares and minimal-move repair (user space only).
//!
//! After Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016), section
//! 3.4: every entry ranks all slots in a permutation of its own and takes them in that order. Two things
//! differ. An entry takes exactly the slots that [`quotas`] gives it, so shares do not depend on luck; and a
//! change does not build the table anew but moves only slots that must move ([`Table::repair`]).
//!
//! Permutations follow from [`Entry::seed`] alone, so hosts that share names build the same table whatever
//! their local target numbers are. The kernel reads [`Table::slots`] at [`crate::algo::slot`].

mod permutation;
mod pool;
mod quota;
mod repair;
#[cfg(test)]
mod tests;

use permutation::Permutation;
use pool::{Cursor, Pool};
pub use quota::quotas;
pub use repair::RepairStats;
use std::collections::{BTreeMap, BinaryHeap};

/// Default number of slots: prime, and at 100 equal targets one slot is 0.15 % of a target's share.
pub const DEFAULT_SIZE: u32 = 65_537;

/// Largest number of slots: ranks and products stay within the arithmetic of a permutation.
pub const MAX_SIZE: u32 = (1 << 31) - 1;

/// Who takes slots: a queue of a target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// What its slots hold, a `TargetWord`. Must be unique: of two entries with one id the second is left out.
    pub id: u32,
    /// Its name on every host, from [`seed`].
    pub seed: u64,
    /// Its share relative to the others; 0 takes no slots.
    pub weight: u32,
}

/// Seed of a name (say `web-1/0`: VM and queue): FNV-1a, 64 bits. Part of the agreement between hosts: it
/// must never change.
pub fn seed(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

/// An entry that holds slots: its permutation and the ranks it holds, worst on top.
#[derive(Clone, Debug)]
struct Holder {
    seed: u64,
    order: Permutation,
    ranks: BinaryHeap<u32>,
}

/// A table: which entry each slot belongs to. Without an entry of weight there are no slots (`len` 0).
#[derive(Clone, Debug, Default)]
pub struct Table {
    slots: Vec<u32>,
    holders: BTreeMap<u32, Holder>,
}

impl Table {
    /// Builds a table of `size` slots (a prime, for permutations that are independent of each other; any
    /// other size works, less evenly).
    ///
    /// Entries take turns in proportion to their quotas, in the order of their seeds. Panics if `size` is
    /// above [`MAX_SIZE`].
    pub fn build(entries: &[Entry], size: u32) -> Self {
        assert!(size <= MAX_SIZE, "a table has at most {MAX_SIZE} slots");
        let entries = shares(entries, size);
        let Some(most) = entries.iter().map(|&(_, quota)| quota).max() else {
            return Self::default();
        };
        let mut takers: Vec<Taker> =
            entries.iter().map(|&(e, quota)| Taker::new(e, quota, most, size)).collect();
        let mut slots = vec![0; size as usize];
        let mut pool = Pool::full(size);

        // Turn k of an entry falls into round k * most / quota. `first[r]` and `Taker::next` chain those
        // whose turn comes in round r, so that tiny entries cost nothing in the rounds between.
        let mut first = vec![NOBODY; most as usize + 1];
        for (i, taker) in takers.iter_mut().enumerate().rev() {
            taker.next = core::mem::replace(&mut first[0], i as u32);
        }
        for round in 0..most {
            let mut turn = first[round as usize];
            while turn != NOBODY {
                let taker = &mut takers[turn as usize];
                let next = taker.next;
                slots[taker.take(&mut pool)] = taker.id;
                if taker.left > 0 {
                    let later = taker.later(round);
                    taker.next = core::mem::replace(&mut first[later as usize], turn);
                }
                turn = next;
            }
        }
        let holders = takers.into_iter().map(|t| (t.id, t.into_holder())).collect();
        Self { slots, holders }
    }

    /// Takes over a table as it is found in a map: `entries` name the ids it may hold. A [`Table::repair`]
    /// then brings it to the wanted shares, and takes the slots of ids that are not in `entries`.
    pub fn adopt(slots: &[u32], entries: &[Entry]) -> Self {
        let size = slots.len() as u32;
        assert!(size <= MAX_SIZE, "a table has at most {MAX_SIZE} slots");
        let seeds: BTreeMap<u32, u64> = entries.iter().rev().map(|e| (e.id, e.seed)).collect();
        let mut ranks: BTreeMap<u32, (Permutation, Vec<u32>)> = BTreeMap::new();
        for (slot, &id) in slots.iter().enumerate() {
            let seed = seeds.get(&id).copied().unwrap_or_default();
            let (order, ranks) =
                ranks.entry(id).or_insert_with(|| (Permutation::new(seed, size), Vec::new()));
            ranks.push(order.rank(slot as u32));
        }
        let holders = ranks
            .into_iter()
            .map(|(id, (order, ranks))| {
                let seed = seeds.get(&id).copied().unwrap_or_default();
                (id, Holder { seed, order, ranks: ranks.into() })
            })
            .collect();
        Self { slots: slots.to_vec(), holders }
    }

    /// The id in every slot, as the kernel reads it.
    pub fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// Number of slots: 0 if no entry has weight.
    pub fn len(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Whether there is nobody to go to.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Number of slots an id holds.
    pub fn held(&self, id: u32) -> u32 {
        self.holders.get(&id).map_or(0, |h| h.ranks.len() as u32)
    }

    /// The id that the low half of a flow's hash selects.
    pub fn select(&self, hash: u32) -> Option<u32> {
        self.slots.get(super::slot(hash, self.len()) as usize).copied()
    }
}

/// End of a chain of turns.
const NOBODY: u32 = u32::MAX;

/// Entries that get slots, in the order of their seeds, with their quotas.
fn shares(entries: &[Entry], size: u32) -> Vec<(Entry, u32)> {
    let mut seen = std::collections::BTreeSet::new();
    let mut entries: Vec<Entry> =
        entries.iter().copied().filter(|e| seen.insert(e.id) && e.weight > 0).collect();
    entries.sort_by_key(|e| (e.seed, e.id));
    let weights: Vec<u32> = entries.iter().map(|e| e.weight).collect();
    entries.into_iter().zip(quotas(&weights, size)).filter(|&(_, quota)| quota > 0).collect()
}

/// An entry while the table is built.
struct Taker {
    id: u32,
    seed: u64,
    order: Permutation,
    cursor: Cursor,
    ranks: Vec<u32>,
    left: u32,
    quota: u32,
    /// Rounds between two turns, `most / quota`: whole ones, the remainder, and the remainders added up.
    rounds: u32,
    rest: u32,
    part: u32,
    next: u32,
}

impl Taker {
    fn new(entry: Entry, quota: u32, most: u32, size: u32) -> Self {
        let order = Permutation::new(entry.seed, size);
        let ranks = vec![0; quota as usize];
        Self {
            id: entry.id,
            seed: entry.seed,
            order,
            cursor: Cursor::start(&order),
            ranks,
            left: quota,
            quota,
            rounds: most / quota,
            rest: most % quota,
            part: 0,
            next: NOBODY,
        }
    }

    /// Takes the free slot that it ranks best. There is one: quotas add up to the size.
    #[inline]
    fn take(&mut self, pool: &mut Pool) -> usize {
        let found = pool.take_one(&self.order, &mut self.cursor);
        self.left -= 1;
        // From the end: a descending list is a heap as it stands.
        self.ranks[self.left as usize] = found.rank;
        found.slot as usize
    }

    /// The round of its next turn, without a division.
    #[inline]
    fn later(&mut self, round: u32) -> u32 {
        self.part += self.rest;
        let carry = self.part >= self.quota;
        if carry {
            self.part -= self.quota;
        }
        round + self.rounds + u32::from(carry)
    }

    fn into_holder(self) -> Holder {
        Holder { seed: self.seed, order: self.order, ranks: self.ranks.into() }
    }
}
