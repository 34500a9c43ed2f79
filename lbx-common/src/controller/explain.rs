//! Why a factor is what it is: every value on the way.

use super::{Inputs, law};

/// What kept a factor from being what was wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Held {
    /// Nothing.
    #[default]
    No,
    /// Somebody else decides the weight.
    Pinned,
    /// It changes as fast as it may.
    Step,
    /// The lower bound.
    Floor,
    /// The upper bound.
    Ceiling,
    /// No reading is young enough; it stays where it was.
    Stale,
    /// The same for longer; it returns to the configured weight.
    Decaying,
    /// Nothing was ever measured of it.
    Unmeasured,
}

impl Held {
    /// Its name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Pinned => "pinned",
            Self::Step => "step",
            Self::Floor => "floor",
            Self::Ceiling => "ceiling",
            Self::Stale => "stale",
            Self::Decaying => "decaying",
            Self::Unmeasured => "unmeasured",
        }
    }
}

/// One step of one target.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Explained {
    /// What went in.
    pub inputs: Inputs,
    /// From availability.
    pub slow: f64,
    /// Its response time.
    pub response: Option<law::Response>,
    /// The service's median, weighted by share.
    pub middle: Option<law::Response>,
    /// How far apart the two are beyond noise; above 0 is slower than the others.
    pub error: f64,
    /// From response times, integrated.
    pub learnt: f64,
    /// From response times, at once.
    pub prompt: f64,
    /// The depth of its queue that counts, 0 to 1.
    pub depth: f64,
    /// From that.
    pub queue: f64,
    /// The product of the parts.
    pub product: f64,
    /// The mean of the products of the service, weighted by configured weight.
    pub mean: f64,
    /// What follows from all this, before bounds and steps: the product over the mean, unless it is held.
    pub wanted: f64,
    /// What keeps it from being that.
    pub held: Held,
    /// After bounds and steps.
    pub limited: f64,
    /// Slow start, up to 1.
    pub ramp: f64,
    /// The factor.
    pub factor: f64,
    /// The factor that was written: the dead band keeps the two apart.
    pub written: f64,
    /// Gains of the service are divided by this, because its weights swing,
    pub damping: f64,
    /// and those of the target by this too, because nothing new is known of it.
    pub calm: f64,
    /// Turns within [`super::swing::WINDOW`].
    pub turns: usize,
}
