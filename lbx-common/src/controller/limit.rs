//! Bounds: how far and how fast a factor goes.

/// No target gets more than this many times its configured weight.
pub const CEILING: f64 = 8.0;
/// Where a slow start begins.
pub const START: f64 = 0.1;
/// Below this factor the dead band is as wide as here: slots of tiny shares are not worth a write each.
const BAND_FROM: f64 = 0.25;

/// Bounds the speed of a factor. After quiet a whole second's worth of change may be used at once.
///
/// Falls that a queue asks for have a second's worth of their own: a target that is on its way back when it gets a queue
/// is not to wait for what the way back has used, and one whose gains are damped not for what they leave.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Limiter {
    /// The factor as it came out last.
    pub value: f64,
    budget: f64,
    urgent: f64,
}

impl Limiter {
    /// A limiter at rest.
    pub fn new(value: f64) -> Self {
        Self { value, budget: f64::INFINITY, urgent: f64::INFINITY }
    }

    /// Moves towards `wanted` as far as `step` (a share a second) over `damping` allows, or down, with a queue, as far
    /// as `step` does. Whether it was held back.
    pub fn go(&mut self, wanted: f64, dt: f64, step: f64, damping: f64, queue: bool) -> bool {
        let refill = |budget: f64, step: f64| (budget + step * dt).min(step);
        (self.budget, self.urgent) = (refill(self.budget, step / damping), refill(self.urgent, step));
        let down = if queue { self.budget.max(self.urgent) } else { self.budget };
        let reached = wanted.clamp(self.value / (1.0 + down), self.value * (1.0 + self.budget));
        let used = if reached > self.value { reached / self.value } else { self.value / reached } - 1.0;
        self.budget = (self.budget - used).max(0.0);
        if reached < self.value {
            self.urgent = (self.urgent - used).max(0.0);
        }
        self.value = reached;
        // A difference in the last bits is none.
        (wanted - reached).abs() > 1e-9 * wanted
    }
}

/// How much of its share a target has `since` seconds after it came back.
pub fn ramp(since: f64, slow_start: f64) -> f64 {
    if slow_start <= 0.0 || since >= slow_start {
        return 1.0;
    }
    START + (1.0 - START) * (since.max(0.0) / slow_start)
}

/// Whether a factor is far enough from the one that was written, or is back at the configured weight.
pub fn worth(value: f64, written: f64, dead_band: f64) -> bool {
    let back = |factor: f64| (factor - 1.0).abs() < 1e-6;
    if back(value) {
        return !back(written);
    }
    (value - written).abs() > dead_band * written.max(BAND_FROM)
}
