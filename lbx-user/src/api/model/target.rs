//! Targets and weights.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::stats::Counters;

/// GET /v1/targets.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Targets {
    /// By service, in the order of the config.
    pub targets: Vec<Target>,
}

/// A target.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Target {
    /// Service and name: `web/web-1`, unique in the instance.
    pub name: String,
    /// Its service.
    pub service: String,
    /// Its name within the service.
    pub target: String,
    /// Its index in the maps.
    pub index: u16,
    /// Generation of the index.
    pub generation: u8,
    /// The interface it is reached by; absent while there is none.
    pub port: Option<String>,
    /// MAC of its vNIC.
    pub mac: String,
    /// Its own addresses (nat).
    pub addresses: Vec<IpAddr>,
    /// Its own port (nat); 0 keeps the packet's.
    pub nat_port: u16,
    /// Queues of its vNIC.
    pub queues: u8,
    /// `redirect`, `bridge` or `uplink`.
    pub deliver: String,
    /// Why it is delivered to that way (only from the daemon).
    pub deliver_reason: Option<String>,
    /// The state as stored.
    pub state: String,
    /// The state now: the stored one, or what it falls back to after its deadline.
    pub effective: String,
    /// Whose wish that is (only from the daemon).
    pub by: Option<String>,
    /// What the state falls back to at its deadline.
    pub fallback: Option<String>,
    /// Milliseconds until then; 0 if it has passed.
    pub deadline_ms: Option<u64>,
    /// What every owner wishes (only from the daemon).
    pub wishes: Vec<Wish>,
    /// The operator overrides its state.
    pub state_override: bool,
    /// The operator overrides its weight.
    pub weight_override: bool,
    /// The weight in force, over all queues.
    pub weight: u64,
    /// The configured one, in the same unit.
    pub weight_configured: u64,
    /// Recorded flows.
    pub live_flows: u64,
    /// Of these, those that are not closed: what a drain waits for.
    pub open_flows: u64,
    /// From a request to its first answer, smoothed, in milliseconds, of the flows that are timed; absent if none was.
    #[serde(default)]
    pub response_ms: Option<f64>,
    /// How many answers were timed since it got its index.
    #[serde(default)]
    pub responses: u64,
    /// The handshake was timed, from SYN to ACK: the client's round trip is in it.
    #[serde(default)]
    pub response_by_handshake: bool,
    /// What was counted since it got its index.
    pub counters: Counters,
    /// Why it is not there, or refused (only from the daemon).
    pub problem: Option<String>,
    /// Why its packets are dropped although it moved (only from the daemon).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_up: Option<String>,
}

/// One owner's wish for a target.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Wish {
    /// `operator`, `health`, `migration` or `presence`.
    pub owner: String,
    /// The state it asks for.
    pub state: String,
    /// Why, if the owner says.
    pub reason: Option<String>,
}

/// GET /v1/weights.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Weights {
    /// One for each service.
    pub tables: Vec<Table>,
    /// One for each target.
    pub weights: Vec<WeightRow>,
}

/// The table of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Table {
    /// The service.
    pub service: String,
    /// Its slots.
    pub size: u32,
    /// The last change of it (only from the daemon, if it made one).
    pub repair: Option<Repair>,
}

/// A change of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Repair {
    /// Slots that changed.
    pub moved: u32,
    /// Slots that had to change, whatever the method.
    pub necessary: u32,
    /// How long working it out took, in microseconds.
    pub micros: u64,
    /// When, in seconds since 1970.
    pub at: u64,
}

/// The weight of a target and what became of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct WeightRow {
    /// Its service.
    pub service: String,
    /// Its name within the service.
    pub target: String,
    /// The state now.
    pub state: String,
    /// The weight in force, over all queues, in units of the maps.
    pub weight: u64,
    /// The configured one, in the same.
    pub configured: u64,
    /// Units of the maps for one of a configured weight: more than 1 with several queues, and for adaptive services
    /// (only from the daemon).
    #[serde(default)]
    pub scale: Option<f64>,
    /// The weight that follows from measuring, before bounds and steps, in units of the config (only from the daemon,
    /// for adaptive services).
    #[serde(default)]
    pub wished: Option<f64>,
    /// What keeps it from that; `no` if nothing does.
    #[serde(default)]
    pub held: Option<String>,
    /// The operator overrides it (only from the daemon).
    pub overridden: bool,
    /// Its part of the weights of the targets that take new flows; 0 for one that does not.
    pub share: f64,
    /// Its slots in the table.
    pub slots: u32,
    /// Its part of the table.
    pub table_share: f64,
    /// New flows bound to it.
    pub flows: u64,
    /// Its part of the service's new flows.
    pub flow_share: f64,
    /// Queue by queue.
    pub queues: Vec<QueueWeight>,
}

/// The weight of one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QueueWeight {
    /// Its number.
    pub queue: u8,
    /// In force.
    pub weight: u32,
    /// Configured.
    pub configured: u32,
    /// Its slots in the table.
    pub slots: u32,
}
