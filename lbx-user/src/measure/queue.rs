//! Queues of vNICs: how many frames wait for each VM, how fast it takes them, how many found no room.
//!
//! ```text
//! Core ── follow(vNICs of targets) ──> Sampler, a thread of its own
//!                                        │ every 5 ms, and when the kernel tells of a queue: Reader::read
//!                                        │   rings.rs    the rings themselves, by programs in the kernel
//!                                        │   counted.rs  counters, where the kernel does not let us
//!                                        ├─> Board       queue_depth, queue_fill, queue_rate, queue_drops
//!                                        └─> Shown       each queue, for `lbx queues`
//! ```

mod bell;
mod counted;
mod devices;
mod history;
mod looks;
mod places;
mod rings;
mod sampler;
mod shown;

use std::os::fd::BorrowedFd;
use std::time::Instant;

use crate::control::RingsByPort;

pub use devices::room;
pub use sampler::{Sampler, Watch};
pub use shown::{Queue, Seen, Shown};

/// A vNIC of this host that targets are behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vnic {
    /// Interface index of its tap.
    pub ifindex: u32,
    /// The tap's name.
    pub name: String,
    /// The VM, as its process calls itself.
    pub vm: Option<String>,
    /// That process.
    pub pid: Option<u32>,
    /// Full names of the targets behind it.
    pub targets: Vec<String>,
}

/// One queue at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Place of its vNIC in the list that is followed.
    pub vnic: usize,
    /// Its number; `None`: all queues of the vNIC together.
    pub queue: Option<u32>,
    /// Frames that wait.
    pub depth: u32,
    /// Frames that have room.
    pub size: u32,
    /// The deepest since the last look, where that is seen.
    pub peak: Option<u32>,
    /// Frames taken out since it is followed.
    pub taken: u64,
    /// Frames that found no room since it is followed.
    pub drops: u64,
}

/// A way to look at queues.
pub(crate) trait Reader: Send {
    /// Its name, as the source of readings.
    fn source(&self) -> &'static str;

    /// These are the vNICs to read from now on. Counters of one that stays go on.
    fn follow(&mut self, vnics: &[Vnic]) -> anyhow::Result<()>;

    /// Reads every queue that is there, those of a vNIC one after the other.
    ///
    /// # Errors
    /// None could be read.
    fn read(&mut self, now: Instant, samples: &mut Vec<Sample>) -> anyhow::Result<()>;

    /// Addresses of the rings of queue 0, by interface index, if they have changed since they were asked for.
    fn rings(&mut self) -> Option<RingsByPort> {
        None
    }

    /// Readable when a queue has just become more than a burst, where the kernel tells.
    fn told(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Takes note of what was told; whether there was anything.
    fn hear(&mut self) -> bool {
        false
    }

    /// Whether a vNIC without a sample is as it was: empty, and nothing came.
    fn is_quiet(&self, _vnic: usize) -> bool {
        false
    }

    /// Why there is no sample of a vNIC.
    fn missing(&self, vnic: usize) -> Option<&'static str>;
}
