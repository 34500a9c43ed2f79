//! What the reconciler needs of the datapath: the typed maps, or the same in memory for unit tests.

use std::collections::HashSet;

use anyhow::Result;
use lbx_common::addr::Ip;
use lbx_common::addresses::AddressSpec;
use lbx_common::elsewhere::Elsewhere;
use lbx_common::flow::{IdleLimits, TargetWord};
use lbx_common::limits::{MAX_ELSEWHERE, MAX_SERVICES, MAX_TARGETS};
use lbx_common::port::Port;
use lbx_common::service::Service;
use lbx_common::target::{StateWord, Target, Weight};
use lbx_common::tunnel::{TunnelWord, VmKey, VmPort};

use crate::datapath::{Maps, Region};

/// Access to the maps by index. Reads and writes out of range are errors.
pub trait Store {
    /// Service entries.
    fn max_services(&self) -> u16;
    /// Target entries.
    fn max_targets(&self) -> u16;
    /// Port entries.
    fn max_ports(&self) -> u16;
    /// The jiffies64 that is `after` from now.
    fn deadline(&self, after: std::time::Duration) -> Result<u64>;
    /// Idle times in force.
    fn idle(&self) -> Result<IdleLimits>;
    /// Stores idle times.
    fn set_idle(&mut self, idle: IdleLimits) -> Result<()>;
    /// Epochs after which a client's MAC is shown to the bridge again.
    fn learn(&self) -> Result<u16>;
    /// Stores that.
    fn set_learn(&mut self, epochs: u16) -> Result<()>;

    /// Name of a service; empty in a free entry.
    fn service_name(&self, index: u16) -> Result<String>;
    /// Gives a service a name, or takes it away.
    fn write_service_name(&mut self, index: u16, name: &str) -> Result<()>;
    /// Name of a target; empty in a free entry.
    fn target_name(&self, index: u16) -> Result<String>;
    /// Gives a target a name, or takes it away.
    fn write_target_name(&mut self, index: u16, name: &str) -> Result<()>;

    /// A service.
    fn service(&self, index: u16) -> Result<Service>;
    /// Writes a service whose table and members are in place.
    fn write_service(&mut self, index: u16, service: &Service) -> Result<()>;
    /// A target.
    fn target(&self, index: u16) -> Result<Target>;
    /// Writes a target.
    fn write_target(&mut self, index: u16, target: &Target) -> Result<()>;
    /// Flips a state: one store.
    fn set_state(&mut self, index: u16, state: StateWord) -> Result<()>;
    /// Stores where the ring of a queue is, of the second queue on; 0 unknown.
    fn write_ring(&mut self, target: u16, queue: u8, ring: u64) -> Result<()>;
    /// Weight of a queue of a target.
    fn weight(&self, target: u16, queue: u8) -> Result<Weight>;
    /// Writes a weight.
    fn write_weight(&mut self, target: u16, queue: u8, weight: Weight) -> Result<()>;

    /// Target indices of a service.
    fn members(&self, region: Region) -> Result<Vec<u32>>;
    /// Puts target indices in place for a service to name.
    fn place_members(&mut self, service: u16, targets: &[u32]) -> Result<Region>;
    /// A table.
    fn table(&self, region: Region) -> Result<Vec<TargetWord>>;
    /// Puts a table in place: over one of the same length, else for the service to name.
    fn place_table(&mut self, service: u16, table: &[TargetWord]) -> Result<Region>;
    /// Writes single slots of a table that is in place.
    fn write_slots(&mut self, region: Region, slots: &[(u32, TargetWord)]) -> Result<()>;
    /// Builds the address table and puts it in force, unless it is; whether it was not.
    fn write_addresses(&mut self, specs: &[AddressSpec]) -> Result<bool>;

    /// A port.
    fn port(&self, index: u16) -> Result<Port>;
    /// Writes a port with all that leads to it; an ifindex of 0 frees it.
    fn write_port(&mut self, index: u16, port: &Port) -> Result<()>;

    /// Places for moved flows.
    fn max_elsewhere(&self) -> u16;
    /// A place for moved flows.
    fn elsewhere(&self, index: u16) -> Result<Elsewhere>;
    /// Writes one that no target names.
    fn write_elsewhere(&mut self, index: u16, place: &Elsewhere) -> Result<()>;

    /// What comes out of tunnels here: network and port, the peers' ends, and the VMs. Whether anything changed.
    fn write_tunnel(
        &mut self,
        word: TunnelWord,
        peers: &[(Ip, u32)],
        vms: &[(VmKey, VmPort)],
    ) -> Result<bool>;

    /// Sets the counters of an index to zero: it passes to another target.
    fn clear_target_stats(&mut self, index: u16) -> Result<()>;
    /// The same for a service.
    fn clear_service_stats(&mut self, index: u16) -> Result<()>;
    /// Targets that a live flow names.
    fn targets_in_flows(&self) -> Result<HashSet<TargetWord>>;
}

impl Store for &Maps {
    fn max_services(&self) -> u16 {
        MAX_SERVICES as u16
    }
    fn max_targets(&self) -> u16 {
        Maps::max_targets(self).min(MAX_TARGETS) as u16
    }
    fn max_ports(&self) -> u16 {
        Maps::max_ports(self) as u16
    }
    fn deadline(&self, after: std::time::Duration) -> Result<u64> {
        Ok(self.clock()?.deadline(after)?)
    }
    fn idle(&self) -> Result<IdleLimits> {
        Ok(self.control()?.idle)
    }
    fn set_idle(&mut self, idle: IdleLimits) -> Result<()> {
        Ok(self.write_idle(idle)?)
    }
    fn learn(&self) -> Result<u16> {
        Ok(self.control()?.learn_epochs)
    }
    fn set_learn(&mut self, epochs: u16) -> Result<()> {
        Ok(self.write_learn(epochs)?)
    }
    fn service_name(&self, index: u16) -> Result<String> {
        Ok(Maps::service_name(self, index.into())?)
    }
    fn write_service_name(&mut self, index: u16, name: &str) -> Result<()> {
        Ok(Maps::write_service_name(self, index.into(), name)?)
    }
    fn target_name(&self, index: u16) -> Result<String> {
        Ok(Maps::target_name(self, index.into())?)
    }
    fn write_target_name(&mut self, index: u16, name: &str) -> Result<()> {
        Ok(Maps::write_target_name(self, index.into(), name)?)
    }
    fn service(&self, index: u16) -> Result<Service> {
        Ok(Maps::service(self, index.into())?)
    }
    fn write_service(&mut self, index: u16, service: &Service) -> Result<()> {
        Ok(Maps::write_service(self, index.into(), service)?)
    }
    fn target(&self, index: u16) -> Result<Target> {
        Ok(Maps::target(self, index.into())?)
    }
    fn write_target(&mut self, index: u16, target: &Target) -> Result<()> {
        Ok(Maps::write_target(self, index.into(), target)?)
    }
    fn set_state(&mut self, index: u16, state: StateWord) -> Result<()> {
        Ok(Maps::set_state(self, index.into(), state)?)
    }
    fn write_ring(&mut self, target: u16, queue: u8, ring: u64) -> Result<()> {
        Ok(self.write_live_ring(target.into(), queue, ring)?)
    }
    fn weight(&self, target: u16, queue: u8) -> Result<Weight> {
        Ok(Maps::weight(self, target.into(), queue.into())?)
    }
    fn write_weight(&mut self, target: u16, queue: u8, weight: Weight) -> Result<()> {
        Ok(Maps::write_weight(self, target.into(), queue.into(), weight)?)
    }
    fn members(&self, region: Region) -> Result<Vec<u32>> {
        Ok(Maps::members(self, region)?)
    }
    fn place_members(&mut self, service: u16, targets: &[u32]) -> Result<Region> {
        Ok(Maps::place_members(self, service.into(), targets)?)
    }
    fn table(&self, region: Region) -> Result<Vec<TargetWord>> {
        Ok(Maps::table(self, region)?)
    }
    fn place_table(&mut self, service: u16, table: &[TargetWord]) -> Result<Region> {
        Ok(Maps::place_table(self, service.into(), table)?.0)
    }
    fn write_slots(&mut self, region: Region, slots: &[(u32, TargetWord)]) -> Result<()> {
        Ok(Maps::write_slots(self, region, slots)?)
    }
    fn write_addresses(&mut self, specs: &[AddressSpec]) -> Result<bool> {
        Ok(Maps::write_addresses(self, specs)?)
    }
    fn port(&self, index: u16) -> Result<Port> {
        Ok(Maps::port(self, index.into())?)
    }
    fn write_port(&mut self, index: u16, port: &Port) -> Result<()> {
        Ok(Maps::write_port(self, index.into(), port)?)
    }
    fn max_elsewhere(&self) -> u16 {
        MAX_ELSEWHERE as u16
    }
    fn elsewhere(&self, index: u16) -> Result<Elsewhere> {
        Ok(Maps::elsewhere(self, index.into())?)
    }
    fn write_elsewhere(&mut self, index: u16, place: &Elsewhere) -> Result<()> {
        Ok(Maps::write_elsewhere(self, index.into(), place)?)
    }
    fn write_tunnel(
        &mut self,
        word: TunnelWord,
        peers: &[(Ip, u32)],
        vms: &[(VmKey, VmPort)],
    ) -> Result<bool> {
        let other = self.control()?.tunnel != word;
        let (peers, vms) = (self.write_tunnel_peers(peers)?, self.write_tunnel_vms(vms)?);
        Maps::write_tunnel(self, word)?;
        Ok(other || peers || vms)
    }
    fn clear_target_stats(&mut self, index: u16) -> Result<()> {
        Ok(Maps::clear_target_stats(self, index.into())?)
    }
    fn clear_service_stats(&mut self, index: u16) -> Result<()> {
        Ok(Maps::clear_service_stats(self, index.into())?)
    }
    fn targets_in_flows(&self) -> Result<HashSet<TargetWord>> {
        Ok(self.flows_by_target()?.into_keys().collect())
    }
}
