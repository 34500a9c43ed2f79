//! Why a flow goes where it goes, and why a target has its share.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::flow::Flow;
use super::target::{Repair, Wish};
use super::weigh::Weighed;

/// The query of GET /v1/why/flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyFlowQuery {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Client address and port.
    pub client: SocketAddr,
    /// VIP and port.
    pub vip: SocketAddr,
    /// VLAN as the rules have it; absent: the service's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Switch by name, if the VIP is on several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switch: Option<String>,
}

/// GET /v1/why/flow.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct WhyFlow {
    /// The client.
    pub client: String,
    /// The VIP.
    pub vip: String,
    /// `steered`, `passed`, `dropped` or `rejected`.
    pub verdict: String,
    /// The reason's name, if it is not steered.
    pub reason: Option<String>,
    /// The service.
    pub service: Option<String>,
    /// Its algorithm.
    pub algorithm: Option<String>,
    /// The flow is recorded; otherwise its target is what a first packet would select now.
    pub recorded: bool,
    /// The record.
    pub flow: Option<Flow>,
    /// The slot of the table that the flow's hash selects.
    pub slot: Option<u32>,
    /// Slots of the table.
    pub table_size: Option<u32>,
    /// How often it was hashed again because a slot's target takes no new flows.
    pub rehashes: u32,
    /// The target by its full name.
    pub target: Option<String>,
    /// Its state now.
    pub state: Option<String>,
    /// Since the flow was recorded.
    pub age: Option<u64>,
    /// The decision, step by step.
    pub steps: Vec<Step>,
}

/// One step of a decision.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Step {
    /// `service`, `flow`, `select`, `state`, `rewrite`, ...
    pub step: String,
    /// What was found.
    pub text: String,
}

/// The query of GET /v1/why/weight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyWeightQuery {
    /// `web-1`, or `web/web-1`.
    pub target: String,
}

/// GET /v1/why/weight.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct WhyWeight {
    /// The target by its full name.
    pub target: String,
    /// The configured weight, in units of the maps.
    pub configured: u64,
    /// The weight in force, in units of the maps.
    pub weight: u64,
    /// Units of the maps for one of a configured weight (only from the daemon).
    #[serde(default)]
    pub scale: Option<f64>,
    /// How it follows what is measured (only from the daemon, for adaptive services).
    #[serde(default)]
    pub weighed: Option<Weighed>,
    /// The operator overrides it.
    pub overridden: bool,
    /// The state now.
    pub state: String,
    /// Whose wish that is (only from the daemon).
    pub by: Option<String>,
    /// What every owner wishes (only from the daemon).
    pub wishes: Vec<Wish>,
    /// Its part of the weights of the targets that take new flows.
    pub share: f64,
    /// Its slots.
    pub slots: u32,
    /// Slots of the table.
    pub table_size: u32,
    /// Its part of the table.
    pub table_share: f64,
    /// Its part of the service's new flows so far.
    pub flow_share: f64,
    /// The table's last change (only from the daemon).
    pub repair: Option<Repair>,
    /// The same in sentences.
    pub steps: Vec<Step>,
}
