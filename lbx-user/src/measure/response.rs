//! Response times that the datapath takes of targets, onto the board.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::board::{Reading, Shared};
use super::catalogue::find;
use crate::datapath::{Error, Maps};

/// Time between two looks.
const EVERY: Duration = Duration::from_millis(50);

/// A target to look at.
#[derive(Debug, Clone)]
pub struct Of {
    /// Its full name.
    pub name: String,
    /// Its index in the maps.
    pub index: u16,
    /// Its answers do not pass lbx.
    pub remote: bool,
}

/// Remembers what was counted.
#[derive(Debug, Default)]
pub struct Responses {
    next: Option<Instant>,
    counts: BTreeMap<String, u64>,
}

/// How a time came about.
pub fn source(remote: bool) -> &'static str {
    if remote { "handshake, with the client's round trip" } else { "request to answer at the tap" }
}

impl Responses {
    /// Whether it is time to look.
    pub fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| now >= next)
    }

    /// Looks. A target without an answer since the last look has no new reading: the one it has grows old.
    ///
    /// # Errors
    /// The maps could not be read.
    pub fn look(&mut self, maps: &Maps, of: &[Of], board: &Shared) -> Result<(), Error> {
        let Some(metric) = find("response") else { return Ok(()) };
        let started = Instant::now();
        self.next = Some(started + EVERY);
        let mut fresh = Vec::new();
        for one in of {
            let count = maps.responses_counted(one.index.into())?;
            // What was counted before the first look may be from long ago.
            let before = self.counts.insert(one.name.clone(), count);
            if before.is_some_and(|before| before != count) && count > 0 {
                fresh.push((one, maps.response(one.index.into())?));
            }
        }
        self.counts.retain(|name, _| of.iter().any(|one| one.name == *name));
        if fresh.is_empty() {
            return Ok(());
        }
        let (at, cost) = (Instant::now(), started.elapsed());
        let mut board = board.lock();
        for (one, response) in fresh {
            let value = response.smoothed as f64 / 1e6;
            board.put(metric, &one.name, Reading { value, at, source: source(one.remote), cost });
        }
        Ok(())
    }
}
