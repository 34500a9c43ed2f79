//! Other hosts that run lbx.

use serde::{Deserialize, Serialize};

use crate::peers::message::VmHere;

/// GET /v1/peers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Peers {
    /// What this host is called; none: the config has no `[peers]`.
    pub name: Option<String>,
    /// Where it listens.
    pub listen: Option<String>,
    /// Why there are no peers, or no listening, although the config has them.
    pub problem: Option<String>,
    /// The peers by name.
    pub peers: Vec<Peer>,
    /// Connections that were refused, or closed for what came over them.
    pub refused: Vec<RefusedPeers>,
    /// The last of these: from where, when, why.
    pub last_refusal: Option<String>,
}

/// A peer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// `up`; `told`: this host reaches it and does not hear it; `heard`: the other way round; `down`.
    pub state: String,
    /// The connection by which it is told.
    pub told: Line,
    /// The connection by which it is heard.
    pub heard: Line,
    /// Milliseconds since it was heard last.
    pub heard_ms: Option<u64>,
    /// Its version of lbx.
    pub version: Option<String>,
    /// What is wrong, for people.
    pub problem: Option<String>,
    /// The VMs it has, or had when it was heard last.
    pub vms: Vec<PeerVm>,
}

/// One direction.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Line {
    /// Whether it is there.
    pub up: bool,
    /// Since when it is, or is not.
    pub since: Option<u64>,
    /// Why it is not.
    pub error: Option<String>,
    /// How often it came up.
    pub times: u64,
    /// Messages over it.
    pub messages: u64,
}

/// A VM on a peer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PeerVm {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: Option<String>,
    /// The MACs of its vNICs.
    pub macs: Vec<String>,
    /// Packets for it that come through a tunnel wait there until it runs.
    #[serde(default)]
    pub holds: bool,
}

impl From<&VmHere> for PeerVm {
    fn from(vm: &VmHere) -> Self {
        Self { name: vm.name.clone(), uuid: vm.uuid.clone(), macs: vm.macs.clone(), holds: vm.holds }
    }
}

/// Refused connections of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RefusedPeers {
    /// `tls` (no certificate of the CA), `unlisted`, `silent`, `busy`, `version`, `oversized` or `malformed`.
    pub reason: String,
    /// How many.
    pub count: u64,
}
