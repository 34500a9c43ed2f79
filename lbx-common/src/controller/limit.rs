//! Bounds: how far and how fast a factor goes.

/// No target gets more than this many times its configured weight.
pub const CEILING: f64 = 8.0;
/// Where a slow start begins.
pub const START: f64 = 0.1;
/// Below this factor the dead band is as wide as here: slots of tiny shares are not worth a write each.
const BAND_FROM: f64 = 0.25;

/// Bounds the speed of a factor. After quiet a whole second's worth of change may be used at once.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Limiter {
    /// The factor as it came out last.
    pub value: f64,
    budget: f64,
}

impl Limiter {
    /// A limiter at rest.
    pub fn new(value: f64) -> Self {
        Self { value, budget: f64::INFINITY }
    }

    /// Moves towards `wanted` as far as `step` (a share a second) allows. Whether it was held back.
    pub fn go(&mut self, wanted: f64, dt: f64, step: f64) -> bool {
        self.budget = (self.budget + step * dt).min(step);
        let most = 1.0 + self.budget;
        let reached = wanted.clamp(self.value / most, self.value * most);
        let ratio = if reached > self.value { reached / self.value } else { self.value / reached };
        self.budget -= ratio - 1.0;
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
