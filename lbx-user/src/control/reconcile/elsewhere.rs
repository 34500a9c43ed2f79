//! Where the flows of moved targets go: entries are shared, and one that a target names is never changed.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use lbx_common::elsewhere::Elsewhere;
use lbx_common::tunnel::{TunnelWord, VmKey, VmPort};

use super::Pass;
use crate::control::desired::{Moves, Place, TunnelWant};
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
    /// Index of the entry that says where a target's flows go while it is moved, 0 nowhere; and why they cannot go there
    /// yet. `before`: what the target names now, 0 if that is nothing.
    pub(super) fn elsewhere(&mut self, moves: &Moves, before: u16) -> Result<(u16, Option<String>)> {
        let (index, end, why) = match moves {
            Moves::Nowhere => return Ok((0, None)),
            Moves::AsBefore => return Ok((before, None)),
            Moves::Waiting { end, why } => (before, *end, why.as_str()),
            Moves::To(place) => {
                let index = self.place(place, before)?;
                let Some(through) = place.through else { return Ok((index, None)) };
                (
                    index,
                    through.end,
                    "there is no room to say where its flows go, or no port that they leave by",
                )
            }
        };
        let known = self.store.elsewhere(index)?;
        let there = index != 0 && known.is_tunnel() && known.dst == end.into();
        Ok((index, (!there).then(|| why.to_owned())))
    }

    /// Index of the entry of a place; what was before if it cannot be said, and 0 without room.
    fn place(&mut self, place: &Place, before: u16) -> Result<u16> {
        let Some(entry) = self.entry(place) else { return Ok(before) };
        if before != 0 && self.store.elsewhere(before)? == entry {
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

    /// What comes out of tunnels here.
    pub(super) fn put_tunnel(&mut self, want: Option<&TunnelWant>) -> Result<()> {
        let (mut word, mut peers, mut vms) = (TunnelWord::default(), Vec::new(), Vec::new());
        if let Some(want) = want {
            word = want.word;
            peers.extend(want.peers.iter().map(|end| ((*end).into(), 0)));
            for vm in &want.vms {
                // A switch that is gone has no VMs.
                let Some(switch) = self.switches.get(&vm.switch) else { continue };
                let port = match self.ports.get(&vm.ifindex).filter(|_| vm.straight) {
                    Some(port_index) => VmPort::straight(vm.ifindex, *port_index),
                    None => VmPort::by_the_bridge(vm.ifindex),
                };
                vms.push((VmKey { mac: vm.mac, switch: *switch }, port));
            }
        }
        if self.store.write_tunnel(word, &peers, &vms)? {
            self.changes.push(format!("tunnels of {} hosts, to {} VMs here", peers.len(), vms.len()));
        }
        Ok(())
    }

    /// As the kernel sees it; `None` if the port is none of ours.
    fn entry(&self, place: &Place) -> Option<Elsewhere> {
        let port_index = *self.ports.get(&place.ifindex)?;
        let through = place.through.map_or_else(Elsewhere::default, |through| Elsewhere {
            tunnel: 1,
            hop: through.hop,
            src: through.own.into(),
            dst: through.end.into(),
            vni: through.vni,
            udp_port: through.port,
            ..Elsewhere::default()
        });
        Some(Elsewhere {
            ifindex: place.ifindex,
            port_index,
            vlan: place.vlan,
            mtu: place.mtu,
            mac: place.mac,
            deliver: place.deliver as u8,
            ..through
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
