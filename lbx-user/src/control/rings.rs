//! Where the ring of a target's vNIC is, for programs that read its depth themselves.

use std::collections::BTreeMap;

use anyhow::Result;
use lbx_common::limits::MAX_QUEUES;
use lbx_common::target::Target;

use super::index::Names;
use super::reconcile::Reconciler;
use super::store::Store;

/// Addresses of the rings of a vNIC, queue by queue, by interface index; 0 where one is not known.
pub type RingsByPort = BTreeMap<u32, Vec<u64>>;

impl Reconciler {
    /// Enters into every target the address of the ring it is behind, or that there is none known.
    ///
    /// # Errors
    /// A store that failed.
    pub fn apply_rings(&self, store: &mut impl Store, rings: &RingsByPort) -> Result<()> {
        for index in Names::adopt(store)?.targets.into_values() {
            let old = store.target(index)?;
            // Only a VM's own port has a ring; one behind an uplink is not in the list.
            let own = rings.get(&old.ifindex).map_or(&[][..], Vec::as_slice);
            let of = |queue: u8| own.get(usize::from(queue)).copied().unwrap_or(0);
            let ring = of(0);
            if old.ring != ring {
                // One word differs, and one word is stored.
                store.write_target(index, &Target { ring, ..old })?;
            }
            for queue in 1..MAX_QUEUES as u8 {
                store.write_ring(index, queue, of(queue))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Memory;
    use super::*;

    #[test]
    fn targets_know_the_ring_of_their_port_and_lose_it() {
        let mut store = Memory::new();
        for (index, (name, ifindex)) in [("web/a", 7), ("web/b", 8), ("api/a", 7)].into_iter().enumerate() {
            store.write_target_name(index as u16, name).unwrap();
            let target = Target { ifindex, generation: 1, ..Target::default() };
            store.write_target(index as u16, &target).unwrap();
        }
        let reconciler = Reconciler::default();
        let rings =
            |store: &Memory| (0..3).map(|index| store.target(index).unwrap().ring).collect::<Vec<_>>();
        reconciler
            .apply_rings(&mut store, &BTreeMap::from([(7, vec![0xffff_8000, 3]), (9, vec![1])]))
            .unwrap();
        assert_eq!(rings(&store), [0xffff_8000, 0, 0xffff_8000]);
        assert_eq!([(0, 1), (0, 2), (1, 1), (2, 1)].map(|place| store.rings[&place]), [3, 0, 0, 3]);
        reconciler.apply_rings(&mut store, &BTreeMap::from([(8, vec![5])])).unwrap();
        assert_eq!(rings(&store), [0, 5, 0]);
        assert_eq!(store.target(1).unwrap().ifindex, 8);
    }
}
