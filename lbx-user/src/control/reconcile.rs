//! The one writer of the maps: reads what they say, compares with what they should say, writes the difference.
//!
//! The order of the writes keeps every packet in between right: what is referred to is written before what
//! refers to it, states come before tables, and what is gone is cleared last.

mod elsewhere;
mod target;
mod weights;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use lbx_common::addresses::AddressSpec;
use lbx_common::algo::maglev::{Entry, Table};
use lbx_common::limits::{MAX_QUEUES, MAX_SERVICE_TARGETS};
use lbx_common::port;
use lbx_common::service::{self, Service};
use lbx_common::target::{Forward, State, StateWord, Target, Weight};

use super::addresses::{self, Placed};
use super::desired::{Desired, ServiceWant, StateWant, TargetWant};
use super::index::{FlowTargets, Names, map_name};
use super::store::Store;
use super::tables::{self, Repair};
use crate::datapath::{members_of, table_of};

/// What a pass did.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// One line for each change, for the log.
    pub changes: Vec<String>,
}

/// Keeps what cannot be read back from the maps: what each table was last built from.
#[derive(Debug, Default)]
pub struct Reconciler {
    built: BTreeMap<String, Vec<Entry>>,
    repairs: BTreeMap<String, Repair>,
    addresses: Option<Vec<AddressSpec>>,
    /// Where services and targets are (index; index and generation), since the last whole pass.
    placed: BTreeMap<String, (u16, Vec<(u16, u8)>)>,
    /// Tables as they are in the maps, so that a change of weights need not read them again.
    kept: BTreeMap<String, Table>,
    /// Targets whose flows cannot go yet where they are to go once the target is moved, and why.
    unready: BTreeMap<String, String>,
}

/// What a pass knows while it runs.
struct Pass<'a, S> {
    store: &'a mut S,
    names: Names,
    in_flows: FlowTargets,
    /// Index by ifindex.
    ports: BTreeMap<u32, u16>,
    /// Number by name.
    switches: BTreeMap<String, u16>,
    elsewhere: Option<elsewhere::Places>,
    unready: BTreeMap<String, String>,
    changes: Vec<String>,
}

impl Reconciler {
    /// The last change of a service's table, if this process made one.
    pub fn repair(&self, service: &str) -> Option<Repair> {
        self.repairs.get(service).copied()
    }

    /// Makes the maps say what is wanted.
    ///
    /// # Errors
    /// The first write that failed, or what did not fit. What was written before it stays: every prefix of
    /// the writes leaves the datapath working, and the next pass goes on from there.
    pub fn apply(&mut self, store: &mut impl Store, want: &Desired) -> Result<Outcome> {
        self.placed.clear();
        let mut pass = Pass::adopt(store)?;
        pass.number_switches(want)?;
        pass.put_ports(want)?;
        let mut indices = Vec::with_capacity(want.services.len());
        for service in &want.services {
            let index = pass.names.service(pass.store, &service.name)?;
            let targets =
                pass.put_targets(service, index).with_context(|| format!("service {}", service.name))?;
            indices.push((index, targets));
        }
        self.unready = std::mem::take(&mut pass.unready);
        for (service, (index, targets)) in want.services.iter().zip(&indices) {
            self.put_service(&mut pass, service, *index, targets)
                .with_context(|| format!("service {}", service.name))?;
        }
        let places: Vec<Vec<u16>> =
            indices.iter().map(|(_, targets)| targets.iter().map(|(index, _)| *index).collect()).collect();
        let mut placed = Vec::with_capacity(places.len());
        for ((want, (index, _)), targets) in want.services.iter().zip(&indices).zip(&places) {
            placed.push(Placed { want, index: *index, switch: pass.switch(&want.switch)?, targets });
        }
        let mut specs = addresses::specs(&placed);
        if let Some(tunnel) = &want.tunnel {
            addresses::tunnel(&mut specs, tunnel.own);
        }
        if self.addresses.as_ref() != Some(&specs) {
            if pass.store.write_addresses(&specs)? {
                pass.changes.push(format!("address table: {} addresses in force", specs.len()));
            }
            self.addresses = Some(specs);
        }
        pass.put_tunnel(want.tunnel.as_ref())?;
        if pass.store.idle()? != want.control.idle {
            pass.store.set_idle(want.control.idle)?;
            pass.changes.push("idle times changed".to_owned());
        }
        if pass.store.learn()? != want.control.learn {
            pass.store.set_learn(want.control.learn)?;
            pass.changes.push("learn time changed".to_owned());
        }
        pass.retire(want)?;
        self.placed = want.services.iter().map(|service| service.name.clone()).zip(indices).collect();
        self.kept.retain(|name, _| want.service(name).is_some());
        self.built.retain(|name, _| want.service(name).is_some());
        self.repairs.retain(|name, _| want.service(name).is_some());
        Ok(Outcome { changes: pass.changes })
    }

    /// Stores only the states: what a change of a wish needs, before anything slower.
    ///
    /// # Errors
    /// A store that failed.
    pub fn apply_states(&self, store: &mut impl Store, want: &Desired) -> Result<()> {
        let names = Names::adopt(store)?;
        for (service, target) in want.targets() {
            if let Some(index) = names.targets.get(&map_name(&target.full_name(&service.name))) {
                target::put_state(store, *index, self.state(service, target))?;
            }
        }
        Ok(())
    }

    /// What the datapath is told of a target: not that it moved before it can be followed.
    pub fn state(&self, service: &ServiceWant, target: &TargetWant) -> StateWant {
        match self.unready(&target.full_name(&service.name)) {
            Some(_) => target.state.until_the_way_is_known(),
            None => target.state,
        }
    }

    /// Why flows of a target (full name) could not follow it to its new host now, if they could not.
    pub fn unready(&self, target: &str) -> Option<&str> {
        self.unready.get(target).map(String::as_str)
    }

    /// Whether there are such targets.
    pub fn any_unready(&self) -> bool {
        !self.unready.is_empty()
    }

    fn put_service(
        &mut self,
        pass: &mut Pass<'_, impl Store>,
        want: &ServiceWant,
        index: u16,
        targets: &[(u16, u8)],
    ) -> Result<()> {
        let old = pass.store.service(index)?;
        let mut new = Service {
            flags: if want.suspended.is_none() { service::flags::ACTIVE } else { 0 }
                | if want.reject { service::flags::REJECT } else { 0 },
            algorithm: want.algorithm,
            forward: want.forward as u8,
            vlan: want.vlan,
            new_flow_rate: want.new_flow_rate,
            kept_ways: want.kept_ways,
            switch: pass.switch(&want.switch)?,
            ..old
        };
        let list: Vec<u32> = targets.iter().map(|(index, _)| u32::from(*index)).collect();
        ensure!(
            list.len() <= MAX_SERVICE_TARGETS as usize,
            "{} targets; at most {MAX_SERVICE_TARGETS} are possible",
            list.len(),
        );
        if pass.store.members(members_of(&old))? != list {
            let region = pass.store.place_members(index, &list)?;
            (new.members_first, new.members) = (region.base, region.len as u16);
        }
        self.put_table(pass, want, (index, targets), &old, &mut new)?;
        if new != old {
            pass.store.write_service(index, &new)?;
            let about = want.suspended.as_deref().map_or(String::new(), |why| format!(" (suspended: {why})"));
            pass.changes.push(format!("service {} written{about}", want.name));
        }
        Ok(())
    }

    fn put_table(
        &mut self,
        pass: &mut Pass<'_, impl Store>,
        want: &ServiceWant,
        (index, targets): (u16, &[(u16, u8)]),
        old: &Service,
        new: &mut Service,
    ) -> Result<()> {
        let entries = tables::entries(want, targets);
        let in_place = old.table_len == want.table_size;
        if entries.is_empty() {
            // Nobody takes new flows. The slots stay: their targets' states say the same, and whoever comes
            // back finds its share where it was. Without any target there is nothing to keep.
            if want.targets.is_empty() {
                (new.table_base, new.table_len) = (0, 0);
            }
            self.built.remove(&want.name);
            return Ok(());
        }
        if in_place && self.built.get(&want.name) == Some(&entries) {
            return Ok(());
        }
        self.kept.remove(&want.name);
        let current = if in_place { Some(pass.store.table(table_of(old))?) } else { None };
        let (table, repair) = tables::next(current.as_deref(), &entries, want.table_size);
        if current.as_ref() != Some(&table) {
            let region = pass.store.place_table(index, &table)?;
            (new.table_base, new.table_len) = (region.base, region.len);
        }
        if repair.moved > 0 {
            pass.changes.push(format!(
                "table of {}: {} of {} slots moved ({} necessary) in {} µs",
                want.name, repair.moved, want.table_size, repair.necessary, repair.micros
            ));
            self.repairs.insert(want.name.clone(), repair);
        }
        self.built.insert(want.name.clone(), entries);
        Ok(())
    }
}

impl<'a, S: Store> Pass<'a, S> {
    fn adopt(store: &'a mut S) -> Result<Self> {
        let names = Names::adopt(store)?;
        let mut ports = BTreeMap::new();
        for index in 0..store.max_ports() {
            let port = store.port(index)?;
            if port.ifindex != 0 {
                ports.insert(port.ifindex, index);
            }
        }
        Ok(Self {
            store,
            names,
            in_flows: FlowTargets::default(),
            ports,
            switches: BTreeMap::new(),
            elsewhere: None,
            unready: BTreeMap::new(),
            changes: Vec::new(),
        })
    }

    fn switch(&self, name: &str) -> Result<u16> {
        self.switches
            .get(name)
            .copied()
            .with_context(|| format!("switch {name} is not among the wanted ones"))
    }

    /// A switch keeps the number its ports have: the number is part of every flow's key.
    fn number_switches(&mut self, want: &Desired) -> Result<()> {
        let mut taken = BTreeSet::new();
        for index in self.ports.values() {
            taken.insert(self.store.port(*index)?.switch);
        }
        for switch in &want.switches {
            let own = want.ports.iter().filter(|port| port.switch == switch.name);
            let known =
                own.map(|port| port.entry.ifindex).find_map(|ifindex| self.ports.get(&ifindex).copied());
            let claimed: BTreeSet<u16> = self.switches.values().copied().collect();
            let number = match known {
                Some(index) => {
                    Some(self.store.port(index)?.switch).filter(|number| !claimed.contains(number))
                }
                None => None,
            };
            let number = number
                .or_else(|| (0..0xfff).find(|number| !taken.contains(number) && !claimed.contains(number)))
                .context("too many switches")?;
            self.switches.insert(switch.name.clone(), number);
        }
        Ok(())
    }

    fn put_ports(&mut self, want: &Desired) -> Result<()> {
        let nat: BTreeSet<u32> = want
            .targets()
            .filter(|(service, _)| service.forward == Forward::Nat)
            .map(|(_, target)| target.ifindex)
            .collect();
        for port in &want.ports {
            let mut entry = port.entry;
            entry.switch = self.switch(&port.switch)?;
            if nat.contains(&entry.ifindex) {
                entry.flags |= port::flags::NAT_TARGETS;
            }
            let index = if let Some(index) = self.ports.get(&entry.ifindex) {
                *index
            } else {
                let taken: BTreeSet<u16> = self.ports.values().copied().collect();
                (0..self.store.max_ports())
                    .find(|index| !taken.contains(index))
                    .with_context(|| format!("there is room for {} ports", self.store.max_ports()))?
            };
            if self.store.port(index)? != entry {
                self.store.write_port(index, &entry).with_context(|| format!("port {}", port.name))?;
                self.changes.push(format!("port {} (ifindex {}) written", port.name, entry.ifindex));
            }
            self.ports.insert(entry.ifindex, index);
        }
        Ok(())
    }

    fn put_targets(&mut self, service: &ServiceWant, index: u16) -> Result<Vec<(u16, u8)>> {
        service
            .targets
            .iter()
            .map(|target| {
                self.put_target(service, index, target).with_context(|| format!("target {}", target.name))
            })
            .collect()
    }

    /// Clears what is no longer wanted. Indices of targets keep their generation, so that the next owner is
    /// told apart from this one.
    fn retire(&mut self, want: &Desired) -> Result<()> {
        let services: BTreeSet<String> =
            want.services.iter().map(|service| map_name(&service.name)).collect();
        let targets: BTreeSet<String> =
            want.targets().map(|(service, target)| map_name(&target.full_name(&service.name))).collect();
        for (name, index) in &self.names.services {
            if !services.contains(name) {
                self.store.write_service(*index, &Service::default())?;
                self.store.write_service_name(*index, "")?;
                self.changes.push(format!("service {name} removed"));
            }
        }
        for (name, index) in &self.names.targets {
            if !targets.contains(name) {
                let (generation, state) =
                    (self.store.target(*index)?.generation, StateWord::new(State::Down));
                self.store.set_state(*index, state)?;
                self.store.write_target(*index, &Target { generation, state, ..Target::default() })?;
                for queue in 0..MAX_QUEUES as u8 {
                    self.store.write_weight(*index, queue, Weight::default())?;
                }
                self.store.write_target_name(*index, "")?;
                self.changes.push(format!("target {name} removed"));
            }
        }
        let wanted: BTreeSet<u32> = want.ports.iter().map(|port| port.entry.ifindex).collect();
        for (ifindex, index) in &self.ports {
            if !wanted.contains(ifindex) {
                self.store.write_port(*index, &port::Port::default())?;
                self.changes.push(format!("port with ifindex {ifindex} removed"));
            }
        }
        Ok(())
    }
}
