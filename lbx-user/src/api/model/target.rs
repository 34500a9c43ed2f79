//! Targets, weights, flows, counters, health.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

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
    /// What was counted since it got its index.
    pub counters: Counters,
    /// Why it is not there, or refused (only from the daemon).
    pub problem: Option<String>,
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

/// Counters of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Packets steered to it.
    pub packets: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// New flows bound to it.
    pub flows: u64,
    /// Packets dropped because of its state.
    pub drops: u64,
}

/// Counters of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ServiceCounters {
    /// Packets steered to its targets.
    pub packets: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// New flows recorded.
    pub flows_recorded: u64,
    /// Packets of new flows served without a record.
    pub flows_unrecorded: u64,
    /// Packets dropped.
    pub drops: u64,
    /// Packets answered with a reset or unreachable.
    pub rejects: u64,
    /// Answers of nat targets translated back.
    pub returns: u64,
    /// Packets that would have been steered while observing.
    pub observed: u64,
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

/// GET /v1/flows.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Flows {
    /// As many as were asked for, in no particular order.
    pub flows: Vec<Flow>,
    /// There are more.
    pub more: bool,
    /// Where a listing in portions goes on; absent at the end of the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A recorded flow.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Flow {
    /// `tcp` or `udp`; absent until its second packet, like everything else that the tuple says.
    pub protocol: Option<String>,
    /// The client.
    pub client: Option<SocketAddr>,
    /// The VIP.
    pub vip: Option<SocketAddr>,
    /// VLAN it came on; 0 untagged.
    pub vlan: Option<u16>,
    /// The service.
    pub service: Option<String>,
    /// The port it came in by.
    pub port: Option<String>,
    /// Since it was recorded.
    pub age: Option<u64>,
    /// The target by its full name.
    pub target: String,
    /// Queue of its vNIC.
    pub queue: u8,
    /// What idle time it is subject to.
    pub state: FlowState,
    /// Since its last packet.
    pub idle: u64,
    /// It is translated.
    pub nat: bool,
}

/// State of a flow, by its idle class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum FlowState {
    /// One packet seen, or a handshake that did not finish
    #[default]
    New,
    /// An established TCP connection
    Established,
    /// A TCP connection that was closed
    Closed,
    /// UDP and other traffic without a state
    Datagram,
}

/// What of the flows is asked for; the query of GET /v1/flows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowQuery {
    /// Only flows of this service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Only flows to this target (`web-1` or `web/web-1`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Only clients in this prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<ipnet::IpNet>,
    /// Only flows in this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<FlowState>,
    /// Only flows at least this old.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older: Option<u64>,
    /// Only flows at most this old.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub younger: Option<u64>,
    /// At most this many; 100 unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// For a listing in portions: 0, then `next` of the answer before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
}

/// GET /v1/stats.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Every reason, in the order of its number.
    pub reasons: Vec<ReasonCount>,
    /// By service.
    pub services: Vec<ServiceStats>,
    /// By target.
    pub targets: Vec<TargetStats>,
    /// The last packets that something happened to: a sample, the oldest first (only from the daemon).
    #[serde(default)]
    pub recent: Vec<Sampled>,
}

/// A packet that something happened to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sampled {
    /// Milliseconds since.
    pub ago_ms: u64,
    /// What: the name of a reason.
    pub reason: String,
    /// `drop`, `answer`, `pass` or `event`.
    pub kind: String,
    /// The service, where it was known.
    pub service: Option<String>,
    /// The target, where there was one.
    pub target: Option<String>,
    /// The port it came in by.
    pub port: Option<String>,
    /// `tcp`, `udp`, ..., where it was known.
    pub protocol: Option<String>,
    /// Its source, where it was known.
    pub client: Option<IpAddr>,
    /// Its source port.
    pub client_port: u16,
    /// Its destination.
    pub vip: Option<IpAddr>,
    /// Its destination port.
    pub vip_port: u16,
    /// Its VLAN; 0 untagged.
    pub vlan: u16,
    /// Its TCP flags, as the byte in the header.
    pub tcp_flags: u8,
}

/// How often something happened for a reason.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReasonCount {
    /// Its name, the same everywhere.
    pub name: String,
    /// `drop`, `answer`, `pass` or `event`.
    pub kind: String,
    /// Packets.
    pub count: u64,
}

/// What was counted for a service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ServiceStats {
    /// Its name.
    pub service: String,
    /// The counters.
    #[serde(flatten)]
    pub counters: ServiceCounters,
}

/// What was counted for a target.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TargetStats {
    /// Its full name.
    pub target: String,
    /// The counters.
    #[serde(flatten)]
    pub counters: Counters,
}

/// GET /v1/health.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Health {
    /// One for each check of each target.
    pub checks: Vec<HealthCheck>,
}

/// One health check of a target.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HealthCheck {
    /// The target by its full name.
    pub target: String,
    /// `tcp`, `http`, `icmp` or `command`.
    #[serde(default)]
    pub kind: String,
    /// What is probed: `tcp 10.0.0.5:80`.
    pub check: String,
    /// `up`, `down` or `unknown`.
    pub state: String,
    /// The target is new (or came back) and not used until all of its checks have succeeded once.
    #[serde(default)]
    pub new: bool,
    /// Successes or failures in a row.
    pub streak: u32,
    /// Since the state last changed.
    pub since: Option<u64>,
    /// Milliseconds since the last probe that says something about the target.
    #[serde(default)]
    pub age_ms: Option<u64>,
    /// The last result in words.
    #[serde(default)]
    pub detail: String,
    /// What went wrong last.
    pub error: Option<String>,
    /// Why failures do not count for now: the checker itself is in doubt.
    #[serde(default)]
    pub held: Option<String>,
    /// How long the last successful probe took, in microseconds.
    pub micros: Option<u64>,
}
