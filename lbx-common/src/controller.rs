//! From readings to weights: a loop that is smooth, bounded and does not swing (user space only).
//!
//! One [`Controller`] for each service. [`Controller::step`] is a pure function of the time, the settings, the
//! inputs and what the controller remembers; nothing here reads a clock. A target's weight is its configured
//! weight times a factor:
//!
//! ```text
//! factor = limit( slow * learnt * prompt * queue / their mean ) * slow start
//! ```
//!
//! [`law`] has the parts, [`limit`] the bounds, [`swing`] what notices oscillation, and `calm` turns gains down while
//! nothing is new. No function of libm is used: exponential smoothing is taken as dt / (time + dt), which is stable for
//! any dt, and deviations as the difference over the mean of two, which is their logarithm where they are close and
//! bounded where not.

mod calm;
mod explain;
pub mod law;
pub mod limit;
mod step;
pub mod swing;

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::string::String;

pub use explain::{Explained, Held};
use limit::Limiter;
pub use step::Outcome;
use swing::{Damping, Swing};

/// How the loop is set. Times in seconds, shares from 0 to 1.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Settings {
    /// Smoothing of response times.
    pub fast: f64,
    /// Time constant of following availability.
    pub slow: f64,
    /// Largest change of a weight in a second, as a share of itself.
    pub step: f64,
    /// Changes below this share of a weight are not worth a write.
    pub dead_band: f64,
    /// Measuring leaves a target at least this share of its configured weight.
    pub floor: f64,
    /// How long a target takes to its share after it came back; 0 none.
    pub slow_start: f64,
    /// A reading older than this is none.
    pub stale_after: f64,
    /// Time constant of the way back to the configured weight.
    pub decay: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            fast: 0.5,
            slow: 2.0,
            step: 0.5,
            dead_band: 0.02,
            floor: 0.05,
            slow_start: 10.0,
            stale_after: 5.0,
            decay: 10.0,
        }
    }
}

/// A value and its age in seconds.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Reading {
    /// In the unit of what it is.
    pub value: f64,
    /// Seconds since it was true.
    pub age: f64,
}

impl Reading {
    /// This reading if it is young enough and a number.
    fn fresh(this: Option<Self>, stale_after: f64) -> Option<Self> {
        this.filter(|reading| reading.age <= stale_after && reading.value.is_finite())
    }
}

/// What is known of a target at one moment.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Inputs {
    /// Its configured weight.
    pub configured: f64,
    /// It takes new flows.
    pub active: bool,
    /// Somebody else decides its weight: it is followed but neither moved nor counted.
    pub pinned: bool,
    /// The factor it is known to have had, where the controller is new and the target is not.
    pub before: Option<f64>,
    /// Availability, 0 to 1.
    pub availability: Option<Reading>,
    /// Response time, milliseconds.
    pub response: Option<Reading>,
    /// Fill of its vNIC's deepest queue, 0 to 1.
    pub fill: Option<Reading>,
}

/// What is remembered of a target.
#[derive(Clone, Debug)]
struct Track {
    slow: f64,
    learnt: f64,
    /// That it is much slower, or faster, than the others for long enough to be believed.
    proof: f64,
    queue: f64,
    /// How quiet it is.
    calm: calm::Calm,
    response: Option<law::Response>,
    /// When it last had a reading.
    fresh_at: f64,
    /// What followed from its readings, before bounds and steps.
    wanted: f64,
    /// When its slow start began; at infinity while it is not active.
    started: Option<f64>,
    limiter: Limiter,
    written: f64,
    swing: Swing,
}

/// The weights of one service.
#[derive(Clone, Debug, Default)]
pub struct Controller {
    tracks: BTreeMap<String, Track>,
    damping: Damping,
    last: Option<f64>,
}

impl Controller {
    /// By how much its gains are divided because it swung; 1 if it does not.
    pub fn damping(&self) -> f64 {
        self.damping.factor()
    }
}
