//! Load of host and VMs.

use serde::{Deserialize, Serialize};

/// GET /v1/load.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Load {
    /// A reading older than this is stale.
    pub stale_after_ms: u64,
    /// The physical host.
    pub host: Vec<Measured>,
    /// Every VM with a vNIC in this namespace.
    pub vms: Vec<VmLoad>,
}

/// The load of a VM.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct VmLoad {
    /// What it calls itself.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// Its vNICs.
    pub nics: Vec<String>,
    /// The targets that are it, by their full names.
    pub targets: Vec<String>,
    /// What was measured.
    pub metrics: Vec<Measured>,
}

/// One measured value, or why there is none.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Measured {
    /// The metric's name, as in formulas.
    pub name: String,
    /// `share`, `count`, `per_second`, `bytes_per_second`, `bytes` or `milliseconds`.
    pub unit: String,
    /// The last value, however old; absent if there never was one.
    pub value: Option<f64>,
    /// How old it is.
    pub age_ms: Option<u64>,
    /// It is older than a reading may be.
    pub stale: bool,
    /// Where it comes from.
    pub source: Option<String>,
    /// What taking it cost, in microseconds; readings taken together share the cost of one.
    pub cost_us: Option<u64>,
    /// Why there is no (newer) value.
    pub why: Option<String>,
}

impl VmLoad {
    /// One of its metrics.
    pub fn metric(&self, name: &str) -> Option<&Measured> {
        self.metrics.iter().find(|metric| metric.name == name)
    }
}
