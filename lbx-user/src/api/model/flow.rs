//! Flows, and what of them is asked for.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

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
