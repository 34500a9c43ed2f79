//! What is stored the moment a VM stops or resumes, by whoever hears its monitor.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::datapath::{Flip, Flips};

/// What a monitor hears that must not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The VM's CPUs are stopped.
    Stop,
    /// They run again.
    Resume,
}

/// What follows for the targets of one VM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Armed {
    /// From a stop.
    pub stop: Vec<Flip>,
    /// From a resumption.
    pub resume: Vec<Flip>,
}

/// By process id and start time.
pub type ByVm = BTreeMap<(u32, u64), Armed>;

/// What the core has worked out beforehand, shared with those who hear monitors.
#[derive(Debug, Clone, Default)]
pub struct Fast(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    flips: Option<Flips>,
    armed: ByVm,
}

impl Fast {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on stores go into these maps.
    pub fn open(&self, flips: Flips) {
        self.lock().flips = Some(flips);
    }

    /// What is to be stored from now on.
    pub fn arm(&self, armed: ByVm) {
        self.lock().armed = armed;
    }

    /// It happened: stores what follows. The targets that were written, to be released once the core knows.
    pub fn fire(&self, pid: u32, start_time: u64, trigger: Trigger) -> Vec<u32> {
        let inner = self.lock();
        let (Some(flips), Some(armed)) = (&inner.flips, inner.armed.get(&(pid, start_time))) else {
            return Vec::new();
        };
        let which = match trigger {
            Trigger::Stop => &armed.stop,
            Trigger::Resume => &armed.resume,
        };
        flips.flip(which).unwrap_or_else(|error| {
            tracing::warn!("{error}: the core writes it");
            Vec::new()
        })
    }

    /// The core knows what was stored.
    pub fn release(&self, indices: &[u32]) {
        if let Some(flips) = &self.lock().flips {
            flips.release(indices);
        }
    }
}
