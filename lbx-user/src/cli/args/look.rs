//! Words of the verbs that only look.

use std::net::SocketAddr;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};

use super::values::{prefix, seconds};
use super::{TargetName, Watch};
use crate::api::model::FlowState;

/// `lbx targets`.
#[derive(Debug, ClapArgs)]
pub struct Targets {
    /// Only this service
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// Show it again and again
    #[command(flatten)]
    pub watch: Watch,
}

/// `lbx weights`.
#[derive(Debug, ClapArgs)]
pub struct Weights {
    /// Only this service
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// Also each queue, and the last repair of each table
    #[arg(long, short)]
    pub verbose: bool,
    /// Show it again and again
    #[command(flatten)]
    pub watch: Watch,
}

/// `lbx flows`.
#[derive(Debug, ClapArgs)]
pub struct Flows {
    /// What to show
    #[command(flatten)]
    pub filter: FlowFilter,
    /// Most flows to show
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub limit: usize,
    /// Only how many there are, by target
    #[arg(long)]
    pub count: bool,
    /// Show it again and again
    #[command(flatten)]
    pub watch: Watch,
}

/// Which flows.
#[derive(Debug, Clone, Default, ClapArgs)]
pub struct FlowFilter {
    /// Only flows of this service
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// Only flows to this target (`web-1`, or `web/web-1`)
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    /// Only clients in this prefix (`203.0.113.0/24`, or an address)
    #[arg(long, value_name = "PREFIX", value_parser = prefix)]
    pub client: Option<ipnet::IpNet>,
    /// Only flows in this state: new, established, closed, datagram
    #[arg(long, value_name = "STATE")]
    pub state: Option<FlowState>,
    /// Only flows at least this old (`10s`, `5m`)
    #[arg(long, value_name = "AGE", value_parser = seconds)]
    pub older: Option<u64>,
    /// Only flows at most this old
    #[arg(long, value_name = "AGE", value_parser = seconds)]
    pub younger: Option<u64>,
}

/// `lbx queues`.
#[derive(Debug, ClapArgs)]
pub struct Queues {
    /// Only this target (`web-1`, or `web/web-1`), VM or vNIC
    pub target: Option<String>,
    /// Show it again and again
    #[command(flatten)]
    pub watch: Watch,
}

/// `lbx load`.
#[derive(Debug, ClapArgs)]
pub struct Load {
    /// Only this VM (or the VM of this target), every metric with its age, source and cost
    #[arg(long, value_name = "NAME", conflicts_with = "host")]
    pub vm: Option<String>,
    /// Only the host, every metric with its age, source and cost
    #[arg(long)]
    pub host: bool,
    /// Show it again and again
    #[command(flatten)]
    pub watch: Watch,
}

/// `lbx why`.
#[derive(Debug, ClapArgs)]
pub struct Why {
    /// What to explain
    #[command(subcommand)]
    pub what: WhyWhat,
}

/// What `lbx why` explains.
#[derive(Debug, Clone, Subcommand)]
pub enum WhyWhat {
    /// Where a flow goes, or would go: `why flow tcp 203.0.113.7:5555 192.0.2.10:80`
    Flow(WhyFlow),
    /// Why a target has the share it has
    Weight(TargetName),
}

/// A flow.
#[derive(Debug, Clone, ClapArgs)]
pub struct WhyFlow {
    /// Transport protocol
    pub protocol: Transport,
    /// Client address and port
    #[arg(value_name = "SRC:PORT")]
    pub client: SocketAddr,
    /// VIP and port
    #[arg(value_name = "DST:PORT")]
    pub vip: SocketAddr,
    /// VLAN the client's packets come on
    #[arg(long)]
    pub vlan: Option<u16>,
    /// Switch they come in by, if the VIP is on several
    #[arg(long)]
    pub switch: Option<String>,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// TCP (6)
    Tcp,
    /// UDP (17)
    Udp,
}

impl Transport {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// `lbx stats`.
#[derive(Debug, ClapArgs)]
pub struct Stats {
    /// Only what was dropped, and why
    #[arg(long)]
    pub drops: bool,
    /// Also counters that are zero
    #[arg(long)]
    pub all: bool,
    /// Show it again and again
    #[command(flatten)]
    pub watch: Watch,
}
