//! Changing a table in place, by the fewest moves there can be.

use super::permutation::Permutation;
use super::pool::Pool;
use super::{Entry, Holder, Table, shares};
use std::collections::{BTreeMap, BinaryHeap};

/// What a repair did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RepairStats {
    /// Slots that hold another id than before (all of them, if the table was or became empty).
    pub moved: u32,
    /// Slots that had to: every entry's loss of quota, added up. `moved` is never more.
    pub necessary: u32,
}

impl Table {
    /// Brings the table to new entries. `size` counts only if the table was empty.
    ///
    /// Entries that shrink (or go) give up the slots they rank worst, entries that grow take the ones they
    /// rank best among those, in the order of seeds. No other slot is touched, so `moved == necessary`, and
    /// the slots each entry keeps are those that a table built anew would most likely give it too.
    pub fn repair(&mut self, entries: &[Entry], size: u32) -> RepairStats {
        self.repair_with(entries, size, |_, _| {})
    }

    /// The same, telling every slot that changed and its new id, for a writer that stores only those. It is
    /// not called when the table becomes empty.
    pub fn repair_with(
        &mut self,
        entries: &[Entry],
        size: u32,
        mut changed: impl FnMut(u32, u32),
    ) -> RepairStats {
        if self.is_empty() {
            *self = Self::build(entries, size);
            for (slot, &id) in self.slots.iter().enumerate() {
                changed(slot as u32, id);
            }
            return RepairStats { moved: self.len(), necessary: self.len() };
        }
        let size = self.len();
        let wanted = shares(entries, size);
        if wanted.is_empty() {
            *self = Self::default();
            return RepairStats { moved: size, necessary: size };
        }
        self.rename(&wanted);
        let mut pool = Pool::of(self.release(&wanted), size);
        let moved = pool.len();
        for &(entry, quota) in &wanted {
            let holder = self.holders.entry(entry.id).or_insert_with(|| Holder {
                seed: entry.seed,
                order: Permutation::new(entry.seed, size),
                ranks: BinaryHeap::new(),
            });
            let Some(more @ 1..) = quota.checked_sub(holder.ranks.len() as u32) else { continue };
            for rank in pool.take(&holder.order, more) {
                let slot = holder.order.slot(rank);
                holder.ranks.push(rank);
                self.slots[slot as usize] = entry.id;
                changed(slot, entry.id);
            }
        }
        RepairStats { moved, necessary: moved }
    }

    /// An id whose name changed keeps its slots, ranked anew.
    fn rename(&mut self, wanted: &[(Entry, u32)]) {
        for &(entry, _) in wanted {
            let Some(holder) = self.holders.get_mut(&entry.id) else { continue };
            if holder.seed != entry.seed {
                let order = Permutation::new(entry.seed, self.slots.len() as u32);
                let ranks = holder.ranks.iter().map(|&r| order.rank(holder.order.slot(r))).collect();
                *holder = Holder { seed: entry.seed, order, ranks };
            }
        }
    }

    /// Takes from every entry what is above its new quota: the slots that are free now.
    fn release(&mut self, wanted: &[(Entry, u32)]) -> Vec<u32> {
        let quotas: BTreeMap<u32, u32> = wanted.iter().map(|&(e, quota)| (e.id, quota)).collect();
        let mut free = Vec::new();
        self.holders.retain(|id, holder| {
            let quota = quotas.get(id).copied().unwrap_or(0);
            if quota == 0 {
                free.extend(holder.ranks.iter().map(|&rank| holder.order.slot(rank)));
                return false;
            }
            while holder.ranks.len() as u32 > quota {
                free.extend(holder.ranks.pop().map(|rank| holder.order.slot(rank)));
            }
            true
        });
        free
    }
}
