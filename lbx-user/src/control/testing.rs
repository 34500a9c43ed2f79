//! The maps in memory, and small desired states, for the unit tests of this folder.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context, Result};
use bytemuck::Zeroable;
use lbx_common::control::{AddressSelect, Control};
use lbx_common::flow::{IdleLimits, TargetWord};
use lbx_common::limits::ADDRESS_SLOTS;
use lbx_common::port::Port;
use lbx_common::service::{AddressEntry, Back, Rule, Service};
use lbx_common::target::{Deliver, Forward, State, StateWord, Target, Weight, weight_index};

use super::desired::{
    ControlWant, Desired, PortWant, ServiceWant, StateWant, SwitchWant, TargetWant, VipWant,
};
use super::store::{Named, Sizes, Store};

/// A service with one IPv4 VIP on `br0` and targets of weight 100.
pub fn service(name: &str, port: u16, targets: &[&str]) -> ServiceWant {
    ServiceWant {
        name: name.to_owned(),
        switch: "br0".to_owned(),
        vlan: 0,
        vips: vec![VipWant { addr: [192, 0, 2, 10].into(), answer: false }],
        protocol: 6,
        ports: (port, port),
        forward: Forward::Dsr,
        algorithm: 0,
        reject: true,
        suspended: None,
        new_flow_rate: 0,
        table_size: 251,
        targets: targets.iter().enumerate().map(|(n, name)| target(name, 10 + n as u32)).collect(),
    }
}

/// A target behind an interface.
pub fn target(name: &str, ifindex: u32) -> TargetWant {
    TargetWant {
        name: name.to_owned(),
        ifindex,
        mac: [2, 0, 0, 0, 0, ifindex as u8],
        addr4: None,
        addr6: None,
        port: 0,
        vlan: 0,
        mtu: 1500,
        exclusive: false,
        deliver: Deliver::Redirect,
        weights: vec![Weight { weight: 100, configured: 100 }],
        state: StateWant::lasting(State::Active),
    }
}

/// These services on `br0` with its ports 1 (switch), 2 (uplink), and one per target.
pub fn desired(services: Vec<ServiceWant>) -> Desired {
    let mut ifindexes: Vec<u32> = vec![1, 2];
    ifindexes.extend(services.iter().flat_map(|service| &service.targets).map(|target| target.ifindex));
    ifindexes.sort_unstable();
    ifindexes.dedup();
    ifindexes.retain(|ifindex| *ifindex != 0);
    Desired {
        switches: vec![SwitchWant { name: "br0".to_owned(), ifindex: 1 }],
        ports: ifindexes
            .into_iter()
            .map(|ifindex| PortWant {
                name: format!("port{ifindex}"),
                switch: "br0".to_owned(),
                entry: Port { ifindex, mtu: 1500, ..Port::default() },
            })
            .collect(),
        services,
        control: ControlWant::default(),
    }
}

/// The maps, and how often something was stored.
pub struct Memory {
    pub writes: usize,
    pub jiffies: u64,
    pub flows: HashSet<TargetWord>,
    pub names: BTreeMap<(Named, u16), String>,
    pub services: Vec<Service>,
    pub targets: Vec<Target>,
    pub weights: Vec<Weight>,
    pub members: Vec<u16>,
    pub slots: Vec<TargetWord>,
    pub addresses: Vec<AddressEntry>,
    pub more_rules: Vec<Rule>,
    pub backs: Vec<Back>,
    pub ports: Vec<Port>,
    pub control: Control,
}

impl Memory {
    /// Room for a few of everything.
    pub fn new() -> Self {
        Self {
            writes: 0,
            jiffies: 1_000,
            flows: HashSet::new(),
            names: BTreeMap::new(),
            services: vec![Service::default(); 8],
            targets: vec![Target::default(); 6],
            weights: vec![Weight::default(); 6 * 16],
            members: vec![0; 16],
            slots: vec![TargetWord::default(); 4 * 251],
            addresses: vec![AddressEntry::default(); 2 * ADDRESS_SLOTS as usize],
            more_rules: vec![Rule::default(); 16],
            backs: vec![Back::default(); 8],
            ports: vec![Port::default(); 16],
            control: Control { hz: 100, ..Zeroable::zeroed() },
        }
    }

    /// The table of a service.
    pub fn table(&self, service: usize) -> &[TargetWord] {
        let service = self.services[service];
        &self.slots[service.table_base as usize..][..service.table_len as usize]
    }
}

fn read<T: Copy>(all: &[T], index: impl TryInto<usize>) -> Result<T> {
    index.try_into().ok().and_then(|index| all.get(index)).copied().context("out of range")
}

impl Memory {
    fn write<T: Copy>(&mut self, all: fn(&mut Self) -> &mut Vec<T>, index: usize, value: T) -> Result<()> {
        self.writes += 1;
        *all(self).get_mut(index).context("out of range")? = value;
        Ok(())
    }
}

impl Store for Memory {
    fn sizes(&self) -> Sizes {
        Sizes {
            services: self.services.len() as u32,
            targets: self.targets.len() as u32,
            members: self.members.len() as u32,
            slots: self.slots.len() as u32,
            ports: self.ports.len() as u32,
            more_rules: self.more_rules.len() as u32,
            backs: self.backs.len() as u32,
        }
    }
    fn jiffies(&self) -> u64 {
        self.jiffies
    }
    fn names(&self) -> Result<Vec<(Named, u16, String)>> {
        Ok(self.names.iter().map(|((kind, index), name)| (*kind, *index, name.clone())).collect())
    }
    fn put_name(&mut self, kind: Named, index: u16, name: &str) -> Result<()> {
        self.writes += 1;
        self.names.insert((kind, index), name.to_owned());
        Ok(())
    }
    fn remove_name(&mut self, kind: Named, index: u16) -> Result<()> {
        self.writes += 1;
        self.names.remove(&(kind, index));
        Ok(())
    }
    fn service(&self, index: u16) -> Result<Service> {
        read(&self.services, index)
    }
    fn put_service(&mut self, index: u16, service: &Service) -> Result<()> {
        self.write(|all| &mut all.services, index.into(), *service)
    }
    fn target(&self, index: u16) -> Result<Target> {
        read(&self.targets, index)
    }
    fn put_target(&mut self, index: u16, target: &Target) -> Result<()> {
        let state = self.target(index)?.state;
        self.write(|all| &mut all.targets, index.into(), Target { state, ..*target })
    }
    fn put_state(&mut self, index: u16, state: StateWord) -> Result<()> {
        let target = self.target(index)?;
        self.write(|all| &mut all.targets, index.into(), Target { state, ..target })
    }
    fn weight(&self, target: u16, queue: u8) -> Result<Weight> {
        read(&self.weights, weight_index(target.into(), queue.into()) as usize)
    }
    fn put_weight(&mut self, target: u16, queue: u8, weight: Weight) -> Result<()> {
        self.write(|all| &mut all.weights, weight_index(target.into(), queue.into()) as usize, weight)
    }
    fn members(&self, first: u32, len: u32) -> Result<Vec<u16>> {
        (first..first + len).map(|index| read(&self.members, index as usize)).collect()
    }
    fn put_member(&mut self, index: u32, target: u16) -> Result<()> {
        self.write(|all| &mut all.members, index as usize, target)
    }
    fn slots(&self, first: u32, len: u32) -> Result<Vec<TargetWord>> {
        (first..first + len).map(|index| read(&self.slots, index as usize)).collect()
    }
    fn put_slot(&mut self, index: u32, word: TargetWord) -> Result<()> {
        self.write(|all| &mut all.slots, index as usize, word)
    }
    fn address(&self, index: u32) -> Result<AddressEntry> {
        read(&self.addresses, index as usize)
    }
    fn put_address(&mut self, index: u32, entry: &AddressEntry) -> Result<()> {
        self.write(|all| &mut all.addresses, index as usize, *entry)
    }
    fn more_rule(&self, index: u16) -> Result<Rule> {
        read(&self.more_rules, index)
    }
    fn put_more_rule(&mut self, index: u16, rule: &Rule) -> Result<()> {
        self.write(|all| &mut all.more_rules, index.into(), *rule)
    }
    fn back(&self, index: u16) -> Result<Back> {
        read(&self.backs, index)
    }
    fn put_back(&mut self, index: u16, back: &Back) -> Result<()> {
        self.write(|all| &mut all.backs, index.into(), *back)
    }
    fn port(&self, index: u16) -> Result<Port> {
        read(&self.ports, index)
    }
    fn put_port(&mut self, index: u16, port: &Port) -> Result<()> {
        self.write(|all| &mut all.ports, index.into(), *port)
    }
    fn remove_port(&mut self, index: u16) -> Result<()> {
        self.write(|all| &mut all.ports, index.into(), Port::default())
    }
    fn control(&self) -> Result<Control> {
        Ok(self.control)
    }
    fn select_addresses(&mut self, select: AddressSelect) -> Result<()> {
        self.writes += 1;
        self.control.addresses = select;
        Ok(())
    }
    fn put_idle(&mut self, idle: IdleLimits) -> Result<()> {
        self.writes += 1;
        self.control.idle = idle;
        Ok(())
    }
    fn targets_in_flows(&self) -> Result<HashSet<TargetWord>> {
        Ok(self.flows.clone())
    }
}
