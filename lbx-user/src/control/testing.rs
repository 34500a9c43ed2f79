//! The maps in memory, and small desired states, for the unit tests of this folder.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use anyhow::{Context, Result};
use lbx_common::addr::Ip;
use lbx_common::addresses::AddressSpec;
use lbx_common::elsewhere::Elsewhere;
use lbx_common::flow::{IdleLimits, TargetWord};
use lbx_common::port::Port;
use lbx_common::service::Service;
use lbx_common::target::{Deliver, Forward, State, StateWord, Target, Weight, weight_index};
use lbx_common::tunnel::{TunnelWord, VmKey, VmPort};

use super::desired::{
    ControlWant, Desired, Moves, PortWant, ServiceWant, StateWant, SwitchWant, TargetWant, VipWant,
};
use super::store::Store;
use crate::datapath::{Region, table_of};

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
        kept_ways: 0,
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
        choose_queue: false,
        deliver: Deliver::Redirect,
        moves: Moves::Nowhere,
        host: None,
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
        tunnel: None,
    }
}

/// Network and port of the tunnels, the peers' ends, and the VMs.
type Tunnel = (TunnelWord, Vec<(Ip, u32)>, Vec<(VmKey, VmPort)>);

/// The maps, and how often something was stored.
#[derive(Default)]
pub struct Memory {
    pub writes: usize,
    pub jiffies: u64,
    pub flows: HashSet<TargetWord>,
    pub service_names: Vec<String>,
    pub target_names: Vec<String>,
    pub services: Vec<Service>,
    pub targets: Vec<Target>,
    pub weights: Vec<Weight>,
    /// Members and tables are never given up: a region is a place in an ever growing list.
    pub members: Vec<u32>,
    pub slots: Vec<TargetWord>,
    pub addresses: Vec<AddressSpec>,
    pub ports: Vec<Port>,
    pub elsewhere: Vec<Elsewhere>,
    pub rings: BTreeMap<(u16, u8), u64>,
    pub tunnel: Tunnel,
    pub idle: IdleLimits,
    pub learn: u16,
}

impl Memory {
    /// Room for a few of everything.
    pub fn new() -> Self {
        Self {
            jiffies: 1_000,
            service_names: vec![String::new(); 8],
            target_names: vec![String::new(); 6],
            services: vec![Service::default(); 8],
            targets: vec![Target::default(); 6],
            weights: vec![Weight::default(); 6 * 16],
            ports: vec![Port::default(); 16],
            elsewhere: vec![Elsewhere::default(); 4],
            ..Self::default()
        }
    }

    /// The table of a service.
    pub fn table_of(&self, service: usize) -> &[TargetWord] {
        let service = self.services[service];
        &self.slots[service.table_base as usize..][..service.table_len as usize]
    }

    fn write<T>(&mut self, all: fn(&mut Self) -> &mut Vec<T>, index: usize, value: T) -> Result<()> {
        self.writes += 1;
        *all(self).get_mut(index).context("out of range")? = value;
        Ok(())
    }
}

fn read<T: Clone>(all: &[T], index: u16) -> Result<T> {
    all.get(usize::from(index)).cloned().context("out of range")
}

/// 100 jiffies a second.
impl Store for Memory {
    fn max_services(&self) -> u16 {
        self.services.len() as u16
    }
    fn max_targets(&self) -> u16 {
        self.targets.len() as u16
    }
    fn max_ports(&self) -> u16 {
        self.ports.len() as u16
    }
    fn deadline(&self, after: Duration) -> Result<u64> {
        Ok(self.jiffies + after.as_millis() as u64 / 10)
    }
    fn idle(&self) -> Result<IdleLimits> {
        Ok(self.idle)
    }
    fn learn(&self) -> Result<u16> {
        Ok(self.learn)
    }
    fn set_learn(&mut self, epochs: u16) -> Result<()> {
        self.writes += 1;
        self.learn = epochs;
        Ok(())
    }
    fn set_idle(&mut self, idle: IdleLimits) -> Result<()> {
        self.writes += 1;
        self.idle = idle;
        Ok(())
    }
    fn service_name(&self, index: u16) -> Result<String> {
        read(&self.service_names, index)
    }
    fn write_service_name(&mut self, index: u16, name: &str) -> Result<()> {
        self.write(|all| &mut all.service_names, index.into(), name.to_owned())
    }
    fn target_name(&self, index: u16) -> Result<String> {
        read(&self.target_names, index)
    }
    fn write_target_name(&mut self, index: u16, name: &str) -> Result<()> {
        self.write(|all| &mut all.target_names, index.into(), name.to_owned())
    }
    fn service(&self, index: u16) -> Result<Service> {
        read(&self.services, index)
    }
    fn write_service(&mut self, index: u16, service: &Service) -> Result<()> {
        self.write(|all| &mut all.services, index.into(), *service)
    }
    fn target(&self, index: u16) -> Result<Target> {
        read(&self.targets, index)
    }
    fn write_target(&mut self, index: u16, target: &Target) -> Result<()> {
        self.write(|all| &mut all.targets, index.into(), *target)
    }
    fn set_state(&mut self, index: u16, state: StateWord) -> Result<()> {
        let target = self.target(index)?;
        self.write(|all| &mut all.targets, index.into(), Target { state, ..target })
    }
    fn weight(&self, target: u16, queue: u8) -> Result<Weight> {
        read(&self.weights, weight_index(target.into(), queue.into()) as u16)
    }
    fn write_weight(&mut self, target: u16, queue: u8, weight: Weight) -> Result<()> {
        self.write(|all| &mut all.weights, weight_index(target.into(), queue.into()) as usize, weight)
    }
    fn members(&self, region: Region) -> Result<Vec<u32>> {
        Ok(self.members[region.base as usize..][..region.len as usize].to_vec())
    }
    fn place_members(&mut self, _: u16, targets: &[u32]) -> Result<Region> {
        self.writes += 1;
        let base = self.members.len() as u32;
        self.members.extend(targets);
        Ok(Region { base, len: targets.len() as u32 })
    }
    fn table(&self, region: Region) -> Result<Vec<TargetWord>> {
        Ok(self.slots[region.base as usize..][..region.len as usize].to_vec())
    }
    fn place_table(&mut self, service: u16, table: &[TargetWord]) -> Result<Region> {
        self.writes += 1;
        let now = table_of(&self.services[usize::from(service)]);
        if now.len as usize == table.len() {
            self.slots[now.base as usize..][..table.len()].copy_from_slice(table);
            return Ok(now);
        }
        let base = self.slots.len() as u32;
        self.slots.extend(table);
        Ok(Region { base, len: table.len() as u32 })
    }
    fn write_slots(&mut self, region: Region, slots: &[(u32, TargetWord)]) -> Result<()> {
        for (slot, word) in slots {
            self.write(|all| &mut all.slots, (region.base + slot) as usize, *word)?;
        }
        Ok(())
    }
    fn write_addresses(&mut self, specs: &[AddressSpec]) -> Result<bool> {
        let changed = self.addresses != specs;
        self.writes += usize::from(changed);
        self.addresses = specs.to_vec();
        Ok(changed)
    }
    fn port(&self, index: u16) -> Result<Port> {
        read(&self.ports, index)
    }
    fn write_port(&mut self, index: u16, port: &Port) -> Result<()> {
        self.write(|all| &mut all.ports, index.into(), *port)
    }
    fn max_elsewhere(&self) -> u16 {
        self.elsewhere.len() as u16
    }
    fn elsewhere(&self, index: u16) -> Result<Elsewhere> {
        read(&self.elsewhere, index)
    }
    fn write_elsewhere(&mut self, index: u16, place: &Elsewhere) -> Result<()> {
        self.write(|all| &mut all.elsewhere, index.into(), *place)
    }
    fn write_ring(&mut self, target: u16, queue: u8, ring: u64) -> Result<()> {
        self.rings.insert((target, queue), ring);
        Ok(())
    }
    fn write_tunnel(
        &mut self,
        word: TunnelWord,
        peers: &[(Ip, u32)],
        vms: &[(VmKey, VmPort)],
    ) -> Result<bool> {
        let new = (word, peers.to_vec(), vms.to_vec());
        let changed = self.tunnel != new;
        self.writes += usize::from(changed);
        self.tunnel = new;
        Ok(changed)
    }
    fn clear_target_stats(&mut self, _: u16) -> Result<()> {
        Ok(())
    }
    fn clear_service_stats(&mut self, _: u16) -> Result<()> {
        Ok(())
    }
    fn targets_in_flows(&self) -> Result<HashSet<TargetWord>> {
        Ok(self.flows.clone())
    }
}
