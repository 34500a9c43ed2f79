//! Migrations.

use serde::{Deserialize, Serialize};

/// GET /v1/migrations.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Migrations {
    /// The last ones, the oldest first.
    pub migrations: Vec<Migration>,
}

/// One migration of one VM, as this host saw it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Migration {
    /// Counts up.
    pub id: u64,
    /// The VM.
    pub vm: String,
    /// Its UUID, if that is known.
    pub uuid: Option<String>,
    /// What this host is to it: `source`, `destination` or `bystander`.
    pub role: String,
    /// `announced`, `transferring`, `stopped`, `resumed`, `done`, `failed` or `cancelled`.
    pub phase: String,
    /// Where the VM runs, once it was resumed: `here` or `there`.
    pub place: Option<String>,
    /// The other host, if anybody said.
    pub host: Option<String>,
    /// The VM was stopped, and nobody spoke of a migration.
    pub pause: bool,
    /// It ended, and wants nothing more of any target.
    pub over: bool,
    /// Milliseconds in this phase.
    pub phase_ms: u64,
    /// Milliseconds from the first event to the end, or to now.
    pub took_ms: u64,
    /// Milliseconds that the VM stood still, as far as this host knows.
    pub stopped_ms: Option<f64>,
    /// When nobody says anything more: milliseconds until it is looked into.
    pub watchdog_ms: Option<u64>,
    /// Its targets by their full names.
    pub targets: Vec<MigratingTarget>,
    /// What was heard of it.
    pub events: Vec<MigrationEvent>,
}

/// A target of a VM that migrates.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MigratingTarget {
    /// Its full name.
    pub target: String,
    /// What migration wants of it, and why.
    pub wants: String,
    /// It goes on getting new flows: its service has nobody else.
    pub last: bool,
    /// Its flows that are not closed.
    pub open_flows: u64,
    /// While the VM is stopped its packets wait at its new host, if that is configured and it stays as it is.
    #[serde(default)]
    pub can_wait: bool,
}

/// One thing that was heard of a migration.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct MigrationEvent {
    /// When, in microseconds since 1970.
    pub unix_us: u64,
    /// Milliseconds after the first.
    pub after_ms: f64,
    /// What: a phase, `expected` (awaited here) or `handed_over`.
    pub event: String,
    /// `here` or `there`, of `resumed` and `done`.
    pub place: Option<String>,
    /// Who says so: `qmp`, `libvirt`, `operator`, `peer` or `watchdog`.
    pub source: String,
    /// The other host, if it says.
    pub host: Option<String>,
    /// `news`, `repeated`, `late` or `contradicted` (by the VM's monitor).
    pub heard: String,
    /// Microseconds from when it happened to when it was heard, if its source says when it did.
    pub lag_us: Option<u64>,
    /// Microseconds from when it was heard to when the maps said what follows.
    pub written_us: Option<u64>,
    /// So many times in a row.
    pub times: u32,
}

/// POST /v1/migration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MigrationRequest {
    /// The VM by its name or UUID, or one of its targets.
    pub vm: String,
    /// `announced`, `transferring`, `stopped`, `resumed`, `done`, `failed` or `cancelled`.
    pub phase: String,
    /// `here` (without) or `there`: where it runs, of `resumed` and `done`.
    #[serde(default)]
    pub place: Option<String>,
    /// The other host, by its name in the config.
    #[serde(default)]
    pub host: Option<String>,
}

/// The answer to it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MigrationChanged {
    /// The VM.
    pub vm: String,
    /// Its targets by their full names.
    pub targets: Vec<String>,
    /// It was news.
    pub changed: bool,
    /// The phase now; absent if no migration is under way.
    pub phase: Option<String>,
    /// What holds now, in words.
    pub now: String,
    /// Milliseconds that `announce --wait` waits unless it is told otherwise.
    pub drain_ms: u64,
}
