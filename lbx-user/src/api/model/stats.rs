//! Counters and sampled events.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

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
