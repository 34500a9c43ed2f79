//! How far the gains of a target are turned down because nothing new is known of it.
//!
//! What response times and use do by themselves under constant load is noise, and who follows it moves weights for
//! nothing. Gains are turned down rather than weights held back: a loop that is late swings where it is steep. What
//! noise does not bring about has them back: a jump that is proven, at once; something small that stays, over seconds.

use super::law;

/// Gains are in full for so much quiet, seconds:
const AWAKE: f64 = 4.0;
/// then they are divided by this much more each second,
const QUIETER: f64 = 3.0;
/// up to this.
const CALMEST: f64 = 64.0;
/// Availability that pulls a weight by no more than this, as a share of it, is not a jump.
const NEAR: f64 = 0.15;
/// A jump of availability is proven when it has been so far beyond that, times seconds.
const STRAIN: f64 = 0.15;
/// Noise is gone from a mean over so many seconds:
const MEMORY: f64 = 10.0;
/// what is learnt wants to move by this share of itself in a second,
const DRIFT: f64 = 0.028;
/// or availability pulls by this: then the weight is not yet where it belongs.
const PULL: f64 = 0.03;
/// So many seconds of quiet are taken back in each of those.
const BACK: f64 = 2.0;

/// Follows one target.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Calm {
    /// Seconds of quiet.
    since: f64,
    /// How far availability has jumped, summed up.
    strain: f64,
    /// How it pulls, and what is learnt drifts, in the mean.
    pull: f64,
    drift: f64,
}

impl Calm {
    /// Gains are divided by this.
    pub fn factor(&self) -> f64 {
        (1.0 + QUIETER * (self.since - AWAKE)).clamp(1.0, CALMEST)
    }

    /// `dt` seconds pass with an availability that pulls so far ([`law::pull`]), or none that does.
    pub fn pull(&mut self, pull: f64, dt: f64) {
        self.pull = law::toward(self.pull, pull, dt, MEMORY);
        self.strain = law::proof(self.strain, law::beyond(pull, NEAR), dt);
        if self.strain.abs() >= STRAIN {
            self.wake();
        }
    }

    /// `dt` seconds pass in which what is learnt would drift so fast ([`law::drift`]).
    pub fn drift(&mut self, drift: f64, dt: f64) {
        self.drift = law::toward(self.drift, drift, dt, MEMORY);
        if self.drift.abs() > DRIFT || self.pull.abs() > PULL {
            self.since = (self.since - BACK * dt).max(0.0);
        } else {
            self.since = (self.since + dt).min(AWAKE + CALMEST / QUIETER);
        }
    }

    /// Something is new, and proven.
    pub fn wake(&mut self) {
        self.since = 0.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many seconds of the same.
    fn pass(calm: &mut Calm, seconds: f64, pull: f64, drift: f64) {
        for _ in 0..(seconds * 100.0) as usize {
            calm.pull(pull, 0.01);
            calm.drift(drift, 0.01);
        }
    }

    #[test]
    fn gains_go_down_in_quiet_and_are_back_at_once_for_what_is_proven() {
        let mut calm = Calm::default();
        pass(&mut calm, AWAKE, 0.0, 0.0);
        assert!(calm.factor() < 1.1, "{calm:?}");
        pass(&mut calm, 60.0, 0.0, 0.0);
        assert!((calm.factor() - CALMEST).abs() < 1e-9, "{calm:?}");
        // A reading of use that is off for a moment, and one that stays.
        pass(&mut calm, 0.5, 0.3, 0.0);
        assert!(calm.factor() > CALMEST / 2.0, "{calm:?}");
        pass(&mut calm, 0.6, 0.3, 0.0);
        assert!(calm.factor() < 1.1, "{calm:?}");
        pass(&mut calm, 60.0, 0.0, 0.0);
        calm.wake();
        assert!(calm.factor() < 1.1, "{calm:?}");
    }

    #[test]
    fn noise_leaves_them_down_and_a_small_error_that_stays_does_not() {
        let mut calm = Calm::default();
        pass(&mut calm, 60.0, 0.0, 0.0);
        for _ in 0..100 {
            pass(&mut calm, 1.0, 0.1, -0.1);
            pass(&mut calm, 1.0, -0.1, 0.1);
        }
        assert!((calm.factor() - CALMEST).abs() < 1e-9, "{calm:?}");
        let mut other = calm;
        pass(&mut calm, 30.0, 0.0, -0.04);
        pass(&mut other, 30.0, 0.05, 0.0);
        assert!(calm.factor() < 1.1 && other.factor() < 1.1, "{calm:?} {other:?}");
    }
}
