//! The config after checking: types that cannot hold a mistake the checker knows of.

mod health;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

pub use health::{Health, HealthCheck, Probe};

use super::libvirt::Libvirt;
use super::measure::Measure;
use super::migration::Migration;
use super::peers::Peers;
use super::problem::Problem;
use super::weights::{Weighing, Weights};
use crate::availability::Formula;

/// A whole checked config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `[daemon]`.
    pub daemon: Daemon,
    /// `[limits]`: sizes of the maps.
    pub limits: Limits,
    /// `[timeouts]`: how long an idle flow is kept.
    pub timeouts: Timeouts,
    /// `[measure]`: what is measured, and how often.
    pub measure: Measure,
    /// `[weights]`: how weights follow what is measured, where they do.
    pub weights: Weights,
    /// `[peers]` and `[[peer]]`: other hosts that run lbx.
    pub peers: Option<Peers>,
    /// `[migration]`: what is done with the traffic of a VM that is migrated.
    pub migration: Migration,
    /// `[libvirt]`: the libvirt daemons that are listened to.
    pub libvirt: Libvirt,
    /// `[[switch]]`, in the order of the file; names are unique.
    pub switches: Vec<Switch>,
    /// `[[service]]`, in the order of the file; names are unique, no two overlap.
    pub services: Vec<Service>,
    /// What is allowed but looks wrong; not part of what [`Config::diff`] compares.
    pub warnings: Vec<Problem>,
}

impl Config {
    /// The service of that name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }

    /// The switch of that name.
    pub fn switch(&self, name: &str) -> Option<&Switch> {
        self.switches.iter().find(|switch| switch.name == name)
    }

    /// The services on a switch, in the order of the file.
    pub fn services_on<'a>(&'a self, switch: &'a str) -> impl Iterator<Item = &'a Service> {
        self.services.iter().filter(move |service| service.switch == switch)
    }
}

/// `[daemon]`: the process itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Daemon {
    /// The API's unix socket; default `/run/lbx/lbx.sock`.
    pub socket: PathBuf,
    /// Where `/metrics` is served besides the socket; always a loopback address.
    pub metrics_listen: Option<SocketAddr>,
    /// Users, besides root, whose processes may own a tap that a target names (libvirt's `libvirt-qemu`).
    pub vm_users: Vec<String>,
}

/// `[limits]`: sizes of the kernel maps, fixed when they are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Flow entries: a power of two, 65,536 to 8,388,608. A number in between is rounded up.
    pub flows: u32,
    /// Most services.
    pub services: u32,
    /// Most targets of all services together.
    pub targets: u32,
    /// Slots of a service's Maglev table unless the service says otherwise: a prime.
    pub table_size: u32,
}

/// `[timeouts]`: idle times after which a flow is forgotten, and a client's MAC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Timeouts {
    /// A TCP connection seen in both stages of its opening.
    pub tcp_established: Duration,
    /// A TCP connection of which only the first packet was seen.
    pub tcp_new: Duration,
    /// A TCP connection after FIN or RST.
    pub tcp_closed: Duration,
    /// UDP.
    pub udp: Duration,
    /// Anything else.
    pub other: Duration,
    /// After this time a client's MAC is shown to the bridge again, which would forget it otherwise.
    pub learn: Duration,
}

/// `[[switch]]`: a bridge or a NIC that lbx is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Switch {
    /// Interface name.
    pub name: String,
    /// How XDP is attached to its uplinks.
    pub xdp: XdpChoice,
    /// How tc programs are attached.
    pub tc: TcChoice,
    /// The uplinks by name; `None`: found from the bridge.
    pub uplinks: Option<Vec<String>>,
}

/// `switch.xdp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpChoice {
    /// Native where it is correct, else tc.
    Auto,
    /// Native, or an error.
    Native,
    /// The kernel's generic XDP.
    Generic,
    /// tc only.
    Off,
}

/// `switch.tc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TcChoice {
    /// tcx where the kernel has it (6.6), else clsact.
    Auto,
    /// tcx links.
    Tcx,
    /// A clsact qdisc with filters.
    Clsact,
}

/// `[[service]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Service {
    /// Unique name: letters, digits, `.`, `_`, `-`, at most 63.
    pub name: String,
    /// The name of one of the config's switches.
    pub switch: String,
    /// VLAN id, 1 to 4094; `None` is untagged.
    pub vlan: Option<u16>,
    /// One or more virtual addresses, without doubles.
    pub vips: Vec<IpAddr>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// The ports that belong to it.
    pub ports: Ports,
    /// How packets are changed.
    pub forward: Forward,
    /// How packets reach the target's port.
    pub deliver: Delivery,
    /// How new flows choose a target.
    pub algorithm: Algorithm,
    /// Frames at XDP go into the queue of the vNIC that their flow is bound to, whatever CPU they come in on.
    pub choose_queue: bool,
    /// Whether lbx answers ARP, neighbour solicitation and ping for the VIPs.
    pub answer: Answer,
    /// What happens to a packet when no target is left.
    pub no_target: NoTarget,
    /// Redirect past the filters of a target's port, if it has any.
    pub bypass_filters: bool,
    /// The targets' ports serve nothing but this service, so their replies are translated without a flow (nat).
    pub exclusive: bool,
    /// Most new flows a second that are accepted.
    pub max_new_flows_per_second: Option<u32>,
    /// Share of the flow table, in percent, above which new flows are served but not recorded: of the places that a
    /// flow can take, where it could be.
    pub max_flow_table_percent: Option<u32>,
    /// Slots of the Maglev table: a prime.
    pub table_size: u32,
    /// Whether weights follow what is measured.
    pub weights: Weighing,
    /// Its own formula of availability; `None`: that of `[weights]`.
    pub availability: Option<Formula>,
    /// Where its flows go, in the order of the file.
    pub targets: Vec<Target>,
    /// How targets are probed.
    pub health: Health,
}

/// Transport protocol of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP (6).
    Tcp,
    /// UDP (17).
    Udp,
}

impl Protocol {
    /// The number in the IP header (IANA protocol numbers).
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// A range of ports, both ends included; `0-65535` is every port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Ports {
    /// The lowest.
    pub first: u16,
    /// The highest; never below `first`.
    pub last: u16,
}

impl Ports {
    /// Every port (`port = 0`).
    pub const ALL: Self = Self { first: 0, last: u16::MAX };

    /// The port, when it is only one.
    pub const fn single(self) -> Option<u16> {
        if self.first == self.last { Some(self.first) } else { None }
    }

    /// Whether the port belongs to it.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// Whether a port belongs to both.
    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// `service.forward`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Forward {
    /// Only the MAC addresses change; the VM owns the VIP.
    Dsr,
    /// Address and port change, and change back on the way out.
    Nat,
}

/// `service.deliver`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Delivery {
    /// `bridge` where the port has filters, VLANs or shaping; else `redirect`.
    Auto,
    /// Straight into the target's port.
    Redirect,
    /// Rewritten, then forwarded by the bridge.
    Bridge,
}

/// `service.algorithm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// Weighted Maglev hash.
    Maglev,
    /// Power of two choices: the shorter queue of two places in the table.
    P2c,
}

/// `service.answer`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// Somebody else owns the VIP.
    Off,
    /// Answer once probing found that nobody else does.
    Probe,
    /// Answer while this interface of the host holds the VIP (keepalived).
    Link(String),
}

/// `service.no_target`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NoTarget {
    /// TCP reset or ICMP unreachable, rate limited.
    Reject,
    /// Silence.
    Drop,
}

/// `[[service.target]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Target {
    /// What is to receive the flows.
    pub place: Place,
    /// The port on it (`nat` only); `None` keeps the port of the packet.
    pub port: Option<u16>,
    /// Share of new flows relative to the service's other targets; 0 takes none.
    pub weight: u32,
    /// Relative weight of each of the vNIC's queues; empty: all the same.
    pub queues: Vec<u32>,
    /// The VM's own IPv4 address: `nat` rewrites to it, health checks connect to it.
    pub address: Option<Ipv4Addr>,
    /// The VM's own IPv6 address.
    pub address6: Option<Ipv6Addr>,
    /// Its VM's QMP socket for lbx; `None`: as `measure.qmp` says.
    pub qmp: Option<PathBuf>,
}

impl Target {
    /// What the target is called within its service: `web-1`, or `web-1:8080` where it has a port of its own.
    pub fn name(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.place),
            None => self.place.to_string(),
        }
    }
}

/// Where a target is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// A virtual machine by its name: its tap is found, and found again.
    Vm(String),
    /// An interface of this host by name.
    Nic(String),
    /// A machine on the uplink's segment.
    Mac([u8; 6]),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Vm(name) | Self::Nic(name) => f.write_str(name),
            Self::Mac(mac) => f.write_str(&format_mac(mac)),
        }
    }
}

/// `52:54:00:12:34:56`.
pub fn format_mac(mac: &[u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
