//! The instance and its services.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::stats::ServiceCounters;

/// Where an answer was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The daemon gave it.
    Daemon,
    /// The CLI read the pinned maps.
    #[default]
    Maps,
}

/// GET /v1/status.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Status {
    /// Who answers.
    pub source: Source,
    /// Version of lbx that answers.
    pub version: String,
    /// Version of the maps' layout.
    pub abi: u32,
    /// Name of the instance, unless it is the default one.
    pub instance: Option<String>,
    /// Process id of the daemon.
    pub pid: Option<u32>,
    /// Since the daemon started.
    pub uptime: Option<u64>,
    /// The config file the daemon read.
    pub config: Option<String>,
    /// When it read it last, in seconds since 1970.
    pub config_read: Option<u64>,
    /// Every packet passes as on a plain bridge.
    pub bypass: bool,
    /// Verdicts are computed and counted, packets pass.
    pub observe: bool,
    /// The ports, by switch and name.
    pub ports: Vec<Port>,
    /// The flow table.
    pub flows: FlowTable,
    /// Services that are steered.
    pub services_active: u32,
    /// All services.
    pub services: u32,
    /// Targets that take new flows.
    pub targets_active: u32,
    /// All targets.
    pub targets: u32,
    /// An attach that waits for its confirmation.
    pub pending: Option<PendingAttach>,
    /// The libvirt daemons that are listened to (only from the daemon).
    #[serde(default)]
    pub libvirt: Vec<LibvirtDaemon>,
    /// What an operator should know: suspended services, targets not found, ports that failed.
    pub notes: Vec<String>,
}

/// A libvirt daemon whose news of migrations are followed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LibvirtDaemon {
    /// Its socket.
    pub socket: String,
    /// Its version while it is connected.
    pub version: Option<String>,
    /// Why it is not.
    pub error: Option<String>,
    /// How often it was connected.
    pub connects: u64,
    /// What it said of VMs, migrated or not.
    pub notices: u64,
    /// Events of migrations that came of it.
    pub events: u64,
}

/// A port of a switch.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Port {
    /// Interface name.
    pub name: String,
    /// Interface index.
    pub ifindex: u32,
    /// The switch it belongs to, by name.
    pub switch: String,
    /// `uplink`, `vnic` or `switch`.
    pub role: String,
    /// What is attached: `xdp native`, `tcx ingress`, ...
    pub attached: Vec<String>,
    /// Verdicts are computed here, packets pass.
    pub observe: bool,
    /// Largest IP packet in bytes.
    pub mtu: u32,
    /// Why it is attached the way it is (only from the daemon).
    pub reason: Option<String>,
    /// Why nothing is attached, though it should be (only from the daemon).
    pub error: Option<String>,
}

/// How full the flow table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FlowTable {
    /// Recorded flows that have not expired.
    pub live: u64,
    /// Flows there is room for: so many that fewer than one new flow in ten thousand finds no slot.
    pub capacity: u64,
    /// Slots of the table, of which a flow can be in eight.
    #[serde(default)]
    pub slots: u64,
    /// Bytes of memory that the slots take in the kernel: what every packet looks at, and what inspection does.
    #[serde(default)]
    pub memory: u64,
    /// New flows that were recorded.
    #[serde(default)]
    pub recorded: u64,
    /// New flows that were not: no slot, or more of them than the service allows.
    #[serde(default)]
    pub unrecorded: u64,
}

impl FlowTable {
    /// Share of the new flows that were not recorded.
    pub fn unrecorded_share(&self) -> f64 {
        self.unrecorded as f64 / (self.recorded + self.unrecorded).max(1) as f64
    }
}

/// An attach that is undone unless it is confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingAttach {
    /// The switches it attached.
    pub switches: Vec<String>,
    /// Until it is undone.
    pub undone_in: u64,
}

/// GET /v1/services.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Services {
    /// In the order of the config, or of their indices.
    pub services: Vec<Service>,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its index in the maps.
    pub index: u16,
    /// The switch it is on, by name.
    pub switch: String,
    /// VLAN as its rules have it; 0 untagged.
    pub vlan: u16,
    /// Its addresses.
    pub vips: Vec<IpAddr>,
    /// Those of them that ARP, neighbour solicitation and ping are answered for here and now.
    pub answered: Vec<IpAddr>,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// First port.
    pub port_first: u16,
    /// Last port.
    pub port_last: u16,
    /// `dsr` or `nat`.
    pub forward: String,
    /// `maglev`.
    pub algorithm: String,
    /// `reject` or `drop`.
    pub no_target: String,
    /// Slots of its table.
    pub table_size: u32,
    /// Its packets are steered; otherwise they pass untouched.
    pub active: bool,
    /// Why they are not (only from the daemon).
    pub suspended: Option<String>,
    /// Its targets.
    pub targets: u32,
    /// Targets that take new flows.
    pub targets_active: u32,
    /// Recorded flows to its targets.
    pub live_flows: u64,
    /// What was counted.
    pub counters: ServiceCounters,
}
