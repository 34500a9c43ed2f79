//! What the reconciler needs of the datapath: reads and writes of single map entries.
//!
//! The real one is the [`Dataplane`](crate::datapath), see [`super::dataplane`]; unit tests use memory.

use std::collections::HashSet;

use anyhow::Result;
use lbx_common::control::{AddressSelect, Control};
use lbx_common::flow::{IdleLimits, TargetWord};
use lbx_common::port::Port;
use lbx_common::service::{AddressEntry, Back, Rule, Service};
use lbx_common::target::{StateWord, Target, Weight};

/// What a name in the `names` map is a name of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Named {
    /// Index into `services`.
    Service,
    /// Index into `targets`.
    Target,
}

/// Sizes of the maps, in entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// `services`.
    pub services: u32,
    /// `targets`.
    pub targets: u32,
    /// `members`.
    pub members: u32,
    /// The pool of table slots.
    pub slots: u32,
    /// `ports`.
    pub ports: u32,
    /// `more_rules`, both generations.
    pub more_rules: u32,
    /// `backs`.
    pub backs: u32,
}

/// Entry-wise access to the maps. Reads of an index out of range are errors; so are writes.
pub trait Store {
    /// Sizes of the maps.
    fn sizes(&self) -> Sizes;
    /// Now, in jiffies64.
    fn jiffies(&self) -> u64;

    /// All names.
    fn names(&self) -> Result<Vec<(Named, u16, String)>>;
    /// Gives an index a name.
    fn put_name(&mut self, kind: Named, index: u16, name: &str) -> Result<()>;
    /// Takes the name away.
    fn remove_name(&mut self, kind: Named, index: u16) -> Result<()>;

    /// A service.
    fn service(&self, index: u16) -> Result<Service>;
    /// Writes a service; its two leading words (table, members) are stored as one each.
    fn put_service(&mut self, index: u16, service: &Service) -> Result<()>;

    /// A target.
    fn target(&self, index: u16) -> Result<Target>;
    /// Writes all of a target but its state and ring.
    fn put_target(&mut self, index: u16, target: &Target) -> Result<()>;
    /// Stores the state word: one aligned store.
    fn put_state(&mut self, index: u16, state: StateWord) -> Result<()>;
    /// Weight of a queue of a target.
    fn weight(&self, target: u16, queue: u8) -> Result<Weight>;
    /// Stores a weight.
    fn put_weight(&mut self, target: u16, queue: u8, weight: Weight) -> Result<()>;

    /// Target indices `first..first + len` of the members pool.
    fn members(&self, first: u32, len: u32) -> Result<Vec<u16>>;
    /// Stores one member.
    fn put_member(&mut self, index: u32, target: u16) -> Result<()>;

    /// Slots `first..first + len` of the pool.
    fn slots(&self, first: u32, len: u32) -> Result<Vec<TargetWord>>;
    /// Stores one slot.
    fn put_slot(&mut self, index: u32, word: TargetWord) -> Result<()>;

    /// One entry of the address table, both generations counted through.
    fn address(&self, index: u32) -> Result<AddressEntry>;
    /// Writes one entry of the address table.
    fn put_address(&mut self, index: u32, entry: &AddressEntry) -> Result<()>;
    /// A rule that did not fit into its address's line.
    fn more_rule(&self, index: u16) -> Result<Rule>;
    /// Writes one of these.
    fn put_more_rule(&mut self, index: u16, rule: &Rule) -> Result<()>;
    /// A way back.
    fn back(&self, index: u16) -> Result<Back>;
    /// Writes a way back.
    fn put_back(&mut self, index: u16, back: &Back) -> Result<()>;

    /// A port.
    fn port(&self, index: u16) -> Result<Port>;
    /// Writes a port, its slot in the devmap and the way from ifindex to index.
    fn put_port(&mut self, index: u16, port: &Port) -> Result<()>;
    /// Empties a port's entry, devmap slot and index.
    fn remove_port(&mut self, index: u16) -> Result<()>;

    /// The control block.
    fn control(&self) -> Result<Control>;
    /// Puts a generation of the address table in force: one aligned store.
    fn select_addresses(&mut self, select: AddressSelect) -> Result<()>;
    /// Stores idle limits.
    fn put_idle(&mut self, idle: IdleLimits) -> Result<()>;

    /// Targets (index and generation) that a live flow names.
    fn targets_in_flows(&self) -> Result<HashSet<TargetWord>>;
}
