//! Weights alone, many times a second: no name, port or table is read again, and only slots that have to change
//! are written.

use std::time::Instant;

use anyhow::{Context, Result};
use lbx_common::algo::maglev::Table;
use lbx_common::flow::TargetWord;

use super::Reconciler;
use crate::control::desired::ServiceWant;
use crate::control::store::Store;
use crate::control::tables::{self, Repair};
use crate::control::unix_now;
use crate::datapath::table_of;

impl Reconciler {
    /// Indices and generations of a service's targets, as written last; empty if it was not.
    pub fn placed(&self, service: &str) -> &[(u16, u8)] {
        self.placed.get(service).map_or(&[], |(_, targets)| targets)
    }

    /// Makes the maps have a service's weights, and its table the shares that follow. `false`: what else the
    /// service is has to be written first, by [`Reconciler::apply`].
    ///
    /// # Errors
    /// A store that failed; the next pass goes on from there.
    pub fn apply_weights(&mut self, store: &mut impl Store, want: &ServiceWant) -> Result<bool> {
        let Some((service, targets)) = self.placed.get(&want.name) else { return Ok(false) };
        let entry = store.service(*service)?;
        let Some(built) = self.built.get(&want.name) else { return Ok(false) };
        let entries = tables::entries(want, targets);
        if targets.len() != want.targets.len() || entry.table_len != want.table_size || entries.is_empty() {
            return Ok(false);
        }
        for (target, (index, _)) in want.targets.iter().zip(targets) {
            for (queue, weight) in target.weights.iter().enumerate() {
                store.write_weight(*index, queue as u8, *weight)?;
            }
        }
        if *built == entries {
            return Ok(true);
        }
        let started = Instant::now();
        let region = table_of(&entry);
        let mut table = match self.kept.remove(&want.name) {
            Some(table) => table,
            None => {
                let slots: Vec<u32> = store.table(region)?.into_iter().map(|word| word.0).collect();
                Table::adopt(&slots, &entries)
            }
        };
        let mut slots = Vec::new();
        let stats = table.repair_with(&entries, region.len, |slot, id| slots.push((slot, TargetWord(id))));
        let micros = started.elapsed().as_micros() as u64;
        // Until both are known to agree, neither is believed.
        self.built.remove(&want.name);
        store.write_slots(region, &slots).with_context(|| format!("table of {}", want.name))?;
        self.kept.insert(want.name.clone(), table);
        self.built.insert(want.name.clone(), entries);
        let repair = Repair { moved: stats.moved, necessary: stats.necessary, micros, at: unix_now() };
        self.repairs.insert(want.name.clone(), repair);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use lbx_common::target::Weight;

    use super::*;
    use crate::control::testing::{Memory, desired, service};

    #[test]
    fn weights_alone_come_to_what_a_whole_pass_comes_to() {
        let (mut light, mut whole) = (Memory::new(), Memory::new());
        let mut want = desired(vec![service("web", 80, &["a", "b", "c"]), service("api", 81, &["d"])]);
        let (mut first, mut second) = (Reconciler::default(), Reconciler::default());
        assert!(!first.apply_weights(&mut light, &want.services[0]).unwrap(), "nothing is there yet");
        first.apply(&mut light, &want).unwrap();
        second.apply(&mut whole, &want).unwrap();
        let api = light.table_of(1).to_vec();
        for weights in [[100, 50, 100], [100, 51, 100], [1, 800, 100], [300, 300, 300], [300, 300, 300]] {
            let before = light.table_of(0).to_vec();
            for (target, weight) in want.services[0].targets.iter_mut().zip(weights) {
                target.weights[0] = Weight { weight, configured: 100 };
            }
            assert!(first.apply_weights(&mut light, &want.services[0]).unwrap());
            second.apply(&mut whole, &want).unwrap();
            assert_eq!(light.weights, whole.weights);
            assert_eq!(light.table_of(0), whole.table_of(0));
            let repair = first.repair("web").unwrap();
            let moved = light.table_of(0).iter().zip(&before).filter(|(now, then)| now != then).count();
            assert_eq!(repair.moved, repair.necessary);
            assert!(moved == 0 || repair.moved as usize == moved, "{repair:?} {moved}");
        }
        assert_eq!(light.table_of(1), api);
        // A whole pass after it finds nothing to do.
        let writes = light.writes;
        first.apply(&mut light, &want).unwrap();
        assert_eq!(light.writes, writes);
        Reconciler::default().apply(&mut light, &want).unwrap();
        assert_eq!(light.writes, writes, "and neither does one that knows nothing");
    }

    #[test]
    fn other_changes_are_left_to_a_whole_pass() {
        let mut maps = Memory::new();
        let mut want = desired(vec![service("web", 80, &["a", "b"])]);
        let mut reconciler = Reconciler::default();
        reconciler.apply(&mut maps, &want).unwrap();
        want.services[0].targets.pop();
        assert!(!reconciler.apply_weights(&mut maps, &want.services[0]).unwrap());
        reconciler.apply(&mut maps, &want).unwrap();
        assert!(reconciler.apply_weights(&mut maps, &want.services[0]).unwrap());
        want.services[0].targets[0].weights[0].weight = 0;
        assert!(!reconciler.apply_weights(&mut maps, &want.services[0]).unwrap(), "nobody would be left");
    }
}
