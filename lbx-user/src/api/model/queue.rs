//! Queues of vNICs.

use serde::{Deserialize, Serialize};

/// `lbx queues`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Queues {
    /// Time from one look to the next, in milliseconds; none: the config says `off`.
    pub interval_ms: Option<f64>,
    /// What the last look cost, all queues together, in microseconds.
    pub cost_us: f64,
    /// How often the kernel told of a queue that grows, which is looked at in that moment.
    #[serde(default)]
    pub told: u64,
    /// Why the rings themselves are not read, if they are not.
    pub problem: Option<String>,
    /// The queues, by vNIC and number.
    pub queues: Vec<QueueRow>,
    /// The vNICs there is nothing new of.
    pub missing: Vec<MissingQueues>,
}

/// One queue of a vNIC as it was last seen.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct QueueRow {
    /// Full names of the targets behind it.
    pub targets: Vec<String>,
    /// The VM.
    pub vm: Option<String>,
    /// The vNIC: its tap.
    pub nic: String,
    /// Number of the queue; none: all queues of the vNIC together.
    pub queue: Option<u32>,
    /// Frames that wait.
    pub depth: u32,
    /// Frames that have room.
    pub size: u32,
    /// The deepest it was seen in the last second.
    pub peak: u32,
    /// Frames taken out a second; none while it is watched for less than a moment.
    pub rate: Option<f64>,
    /// Frames that found no room, a second.
    pub drop_rate: Option<f64>,
    /// Frames that found no room since it is watched. Those that did not come by XDP count at the first queue.
    pub drops: u64,
    /// How old this is, in milliseconds.
    pub age_ms: f64,
    /// It is older than three looks.
    pub stale: bool,
    /// How it was seen: `tap ring` or `packet counts`.
    pub source: String,
}

/// A vNIC there is nothing new of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MissingQueues {
    /// Full names of the targets behind it.
    pub targets: Vec<String>,
    /// The VM.
    pub vm: Option<String>,
    /// The vNIC: its tap.
    pub nic: String,
    /// Why.
    pub why: String,
}
