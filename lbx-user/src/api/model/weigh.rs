//! A weight that follows what is measured, and every value on the way.

use serde::{Deserialize, Serialize};

use super::load::Measured;

/// How an adaptive weight came about (only from the daemon). Factors are of the configured weight.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Weighed {
    /// The formula of availability.
    pub formula: String,
    /// The same with values in the place of names.
    pub arithmetic: String,
    /// What it came to, 0 to 1.
    pub availability: Option<f64>,
    /// How old the oldest reading in it is.
    pub availability_age_ms: Option<u64>,
    /// Why it has no value.
    pub problem: Option<String>,
    /// What the VM itself has left, 0 to 1.
    pub vm: Option<f64>,
    /// Its share of what the host has left, 0 to 1.
    pub host: Option<f64>,
    /// Metrics that the two were made without.
    pub missing: Vec<String>,
    /// Every reading that was looked for.
    pub inputs: Vec<Measured>,
    /// Factor from availability.
    pub slow: f64,
    /// Response time, smoothed.
    pub response_ms: Option<f64>,
    /// The same over ten times as long.
    pub response_calm_ms: Option<f64>,
    /// Mean deviation of its readings, as a share.
    pub response_noise: Option<f64>,
    /// The service's median response time.
    pub response_median_ms: Option<f64>,
    /// How much slower than that, beyond noise; below 0 is faster.
    pub error: f64,
    /// Factor from response times, integrated.
    pub learnt: f64,
    /// Factor from response times, at once.
    pub prompt: f64,
    /// The part of its ring that counts as a queue.
    pub depth: f64,
    /// Factor from that.
    pub queue: f64,
    /// The product of the four.
    pub product: f64,
    /// The service's mean product.
    pub mean: f64,
    /// Product over mean, or what it is held at.
    pub wanted: f64,
    /// `no`, `pinned`, `step`, `floor`, `ceiling`, `stale`, `decaying` or `unmeasured`.
    pub held: String,
    /// After bounds and steps.
    pub limited: f64,
    /// Slow start, up to 1.
    pub slow_start: f64,
    /// The factor that follows.
    pub factor: f64,
    /// The factor that is written.
    pub written: f64,
    /// Gains are divided by this, because the service's weights swing; 1 if they do not.
    pub damping: f64,
    /// Gains of this target are divided by this too, because nothing new is known of it.
    #[serde(default)]
    pub calm: f64,
    /// Turns of the weight within the last 20 seconds.
    pub turns: usize,
}
