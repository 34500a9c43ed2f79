//! Where the flows of moved targets go: entries are shared, and one that a target names is never changed.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use lbx_common::elsewhere::Elsewhere;

use super::Pass;
use crate::control::desired::{Moves, Place};
use crate::control::store::Store;

/// All entries, as they were when the first of a pass was looked for.
#[derive(Debug)]
pub(super) struct Places {
    /// Index by content.
    known: BTreeMap<[u64; 8], u16>,
    /// Those that no target names: unused ones last, which are taken first.
    free: Vec<u16>,
}

impl<S: Store> Pass<'_, S> {
    /// Index of the entry that says where a target's flows go while it is moved, 0 nowhere. `before`: what the target
    /// names now, if it is not a new one.
    pub(super) fn elsewhere(&mut self, moves: &Moves, before: Option<u16>) -> Result<u16> {
        let place = match moves {
            Moves::Nowhere => return Ok(0),
            Moves::AsBefore => return Ok(before.unwrap_or(0)),
            Moves::To(place) => place,
        };
        let Some(entry) = self.entry(place) else { return Ok(before.unwrap_or(0)) };
        if let Some(before) = before.filter(|before| *before != 0)
            && self.store.elsewhere(before)? == entry
        {
            return Ok(before);
        }
        if self.elsewhere.is_none() {
            self.elsewhere = Some(self.places()?);
        }
        let Some(places) = &mut self.elsewhere else { return Ok(0) };
        let key: [u64; 8] = bytemuck::cast(entry);
        if let Some(index) = places.known.get(&key) {
            let index = *index;
            // From now on a target names it.
            places.free.retain(|free| *free != index);
            return Ok(index);
        }
        let Some(index) = places.free.pop() else {
            self.changes.push("no room to say where moved flows go".to_owned());
            return Ok(0);
        };
        places.known.retain(|_, known| *known != index);
        places.known.insert(key, index);
        self.store.write_elsewhere(index, &entry)?;
        Ok(index)
    }

    /// As the kernel sees it; `None` if the port is none of ours.
    fn entry(&self, place: &Place) -> Option<Elsewhere> {
        let port_index = *self.ports.get(&place.ifindex)?;
        Some(Elsewhere {
            ifindex: place.ifindex,
            port_index,
            vlan: place.vlan,
            mtu: place.mtu,
            mac: place.mac,
            deliver: place.deliver as u8,
            ..Elsewhere::default()
        })
    }

    fn places(&self) -> Result<Places> {
        let mut named = BTreeSet::from([0]);
        for index in self.names.targets.values() {
            named.insert(self.store.target(*index)?.elsewhere);
        }
        let (mut known, mut free, mut unused) = (BTreeMap::new(), Vec::new(), Vec::new());
        for index in 0..self.store.max_elsewhere() {
            let entry = self.store.elsewhere(index)?;
            if named.contains(&index) {
                known.insert(bytemuck::cast(entry), index);
            } else if entry == Elsewhere::default() {
                unused.push(index);
            } else {
                known.insert(bytemuck::cast(entry), index);
                free.push(index);
            }
        }
        unused.reverse();
        free.extend(unused);
        Ok(Places { known, free })
    }
}
