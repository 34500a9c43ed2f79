//! Which index a name has: adopted from the maps, kept for as long as the name lives, not given to another
//! while a flow still names it.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use anyhow::{Result, bail};
use lbx_common::flow::TargetWord;

use super::store::Store;

/// Names and their indices, as the maps have them.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// Services by name.
    pub services: BTreeMap<String, u16>,
    /// Targets by full name.
    pub targets: BTreeMap<String, u16>,
}

impl Names {
    /// Reads them. Of two indices with one name the lower is kept: the other was being written by a daemon
    /// that was killed.
    pub fn adopt(store: &impl Store) -> Result<Self> {
        let mut names = Self::default();
        for index in (0..store.max_services()).rev() {
            let name = store.service_name(index)?;
            if !name.is_empty() {
                names.services.insert(name, index);
            }
        }
        for index in (0..store.max_targets()).rev() {
            let name = store.target_name(index)?;
            if !name.is_empty() {
                names.targets.insert(name, index);
            }
        }
        Ok(names)
    }

    /// The index of a service, a new one if it has none.
    pub fn service(&mut self, store: &mut impl Store, name: &str) -> Result<u16> {
        let name = map_name(name);
        if let Some(index) = self.services.get(&name) {
            return Ok(*index);
        }
        let taken: BTreeSet<u16> = self.services.values().copied().collect();
        let Some(index) = (0..store.max_services()).find(|index| !taken.contains(index)) else {
            bail!("there is room for {} services and all are in use", store.max_services());
        };
        store.clear_service_stats(index)?;
        store.write_service_name(index, &name)?;
        self.services.insert(name, index);
        Ok(index)
    }

    /// The index of a target, a new one if it has none.
    ///
    /// An index that was never used comes first; then the one that is free and in no flow. A flow that names
    /// an index keeps it out of use, so that it can never mean another target.
    pub fn target(&mut self, store: &mut impl Store, in_flows: &mut FlowTargets, name: &str) -> Result<u16> {
        let name = map_name(name);
        if let Some(index) = self.targets.get(&name) {
            return Ok(*index);
        }
        let taken: HashSet<u16> = self.targets.values().copied().collect();
        let mut used_before = Vec::new();
        let mut found = None;
        for index in (0..store.max_targets()).filter(|index| !taken.contains(index)) {
            // The generation outlives the target; 0 is an index that never had one.
            if store.target(index)?.generation == 0 {
                found = Some(index);
                break;
            }
            used_before.push(index);
        }
        let index = match found {
            Some(index) => index,
            None => match in_flows.free(store, &used_before)? {
                Some(index) => index,
                None => bail!(
                    "there is room for {} targets and all are in use, or named by flows of targets that are gone",
                    store.max_targets(),
                ),
            },
        };
        store.clear_target_stats(index)?;
        store.write_target_name(index, &name)?;
        self.targets.insert(name, index);
        Ok(index)
    }
}

/// A name as it fits into the map: a long one is cut, and told apart by its seed.
pub fn map_name(name: &str) -> String {
    let most = lbx_common::limits::NAME_LEN - 1;
    if name.len() <= most {
        return name.to_owned();
    }
    let mut end = most - 17;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}~{:016x}", &name[..end], lbx_common::algo::maglev::seed(name))
}

/// The targets that flows name, read once and only if somebody asks.
#[derive(Debug, Default)]
pub struct FlowTargets(Option<HashSet<u32>>);

impl FlowTargets {
    fn free(&mut self, store: &impl Store, candidates: &[u16]) -> Result<Option<u16>> {
        if self.0.is_none() {
            self.0 = Some(store.targets_in_flows()?.into_iter().map(TargetWord::target).collect());
        }
        let named = self.0.as_ref();
        Ok(candidates
            .iter()
            .copied()
            .find(|index| named.is_some_and(|set| !set.contains(&u32::from(*index)))))
    }
}

/// The generation after this one; 0 is never used again.
pub const fn next_generation(generation: u8) -> u8 {
    if generation == u8::MAX { 1 } else { generation + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_stay_apart() {
        let (a, b) = (format!("{}a", "x".repeat(80)), format!("{}b", "x".repeat(80)));
        assert!(map_name(&a).len() < 64 && map_name(&a) != map_name(&b));
        assert_eq!(map_name("web/web-1"), "web/web-1");
        assert_eq!(next_generation(255), 1);
    }
}
