//! Health checks.

use serde::{Deserialize, Serialize};

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
