//! One target.

use std::net::IpAddr;

use anyhow::Result;
use lbx_common::addr::Ip;
use lbx_common::limits::MAX_QUEUES;
use lbx_common::target::{self, State, StateWord, Target};

use super::Pass;
use crate::control::desired::{ServiceWant, StateWant, TargetWant};
use crate::control::index::next_generation;
use crate::control::store::Store;

impl<S: Store> Pass<'_, S> {
    /// Writes a target; its index and generation.
    pub(super) fn put_target(
        &mut self,
        service: &ServiceWant,
        service_index: u16,
        want: &TargetWant,
    ) -> Result<(u16, u8)> {
        let name = want.full_name(&service.name);
        let index = self.names.target(self.store, &mut self.in_flows, &name)?;
        let old = self.store.target(index)?;
        let fresh = old.flags & target::flags::IN_USE == 0;
        let generation = if fresh { next_generation(old.generation) } else { old.generation };
        let port = self.ports.get(&want.ifindex).copied();
        let (elsewhere, unready) = self.elsewhere(&want.moves, if fresh { 0 } else { old.elsewhere })?;
        let follows = elsewhere != 0 || unready.is_some();
        let mut state = if port.is_some() { want.state } else { want.state.without_port(follows) };
        if let Some(why) = unready {
            state = state.until_the_way_is_known();
            self.unready.insert(name.clone(), why);
        }
        if fresh {
            self.store.set_state(index, StateWord::new(State::Down))?;
        } else {
            if elsewhere != old.elsewhere {
                // Before a state that sends flows there.
                self.store.write_target(index, &Target { elsewhere, ..old })?;
            }
            put_state(self.store, index, state)?;
        }
        let new = Target {
            state: self.store.target(index)?.state,
            ring: if fresh { 0 } else { old.ring },
            addr6: want.addr6.map_or(Ip::UNSPECIFIED, |addr| IpAddr::V6(addr).into()),
            addr4: want.addr4.map_or(0, |addr| u32::from_ne_bytes(addr.octets())),
            ifindex: want.ifindex,
            mac: want.mac,
            port: want.port.to_be(),
            port_index: port.unwrap_or(0),
            vlan: want.vlan,
            mtu: want.mtu,
            flags: target::flags::IN_USE
                | if want.exclusive { target::flags::EXCLUSIVE } else { 0 }
                | if want.choose_queue { target::flags::QUEUES } else { 0 },
            service: service_index,
            elsewhere,
            forward: service.forward as u8,
            queues: want.weights.len().min(MAX_QUEUES as usize) as u8,
            generation,
            deliver: want.deliver as u8,
        };
        if new != (Target { state: new.state, ..old }) {
            self.store.write_target(index, &new)?;
            self.changes.push(format!("target {name} written (index {index}, generation {generation})"));
        }
        if fresh {
            put_state(self.store, index, state)?;
        }
        for queue in 0..MAX_QUEUES as u8 {
            let weight = want.weights.get(usize::from(queue)).copied().unwrap_or_default();
            if self.store.weight(index, queue)? != weight {
                self.store.write_weight(index, queue, weight)?;
            }
        }
        Ok((index, generation))
    }
}

/// Stores a state, with its deadline counted from now. A lasting state that already stands is left alone.
pub(super) fn put_state(store: &mut impl Store, index: u16, want: StateWant) -> Result<()> {
    let word = match want.deadline {
        None => StateWord::new(want.state),
        Some(after) => StateWord::until(want.state, want.fallback, store.deadline(after)?),
    };
    if store.target(index)?.state != word {
        store.set_state(index, word)?;
    }
    Ok(())
}
