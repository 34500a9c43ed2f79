//! Open flows, put right against the flow table.

use std::time::{Duration, Instant};

use super::core::Core;
use crate::config::Algorithm;
use crate::measure::response::Responses;

/// Time between two walks over the flow table.
const EVERY: Duration = Duration::from_secs(5);
/// Of a walk's cost, this many times as long passes until the next.
const SPARING: u32 = 50;

/// What the daemon remembers between two looks at flows.
#[derive(Debug, Default)]
pub struct FlowWatch {
    /// Response times.
    pub(super) responses: Responses,
    /// When counts of open flows are put right again.
    correct_at: Option<Instant>,
}

impl Core {
    /// What passes with time.
    pub(super) fn flows_tick(&mut self) {
        self.correct_open_flows();
        self.look_at_responses();
    }

    /// Puts the counts of open flows right, when it is time and something uses them.
    fn correct_open_flows(&mut self) {
        let started = Instant::now();
        let compared = self.config.services.iter().any(|service| service.algorithm == Algorithm::P2c);
        if !compared || self.flows.correct_at.is_some_and(|at| started < at) {
            return;
        }
        let maps = self.datapath.maps();
        match maps.correct_open_flows(maps.max_targets()) {
            Ok(corrected) if corrected.drift > 0 => {
                tracing::debug!("counts of open flows were {} off, of {}", corrected.drift, corrected.open);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!("open flows are not put right: {error}"),
        }
        self.flows.correct_at = Some(started + EVERY.max(started.elapsed() * SPARING));
    }
}
