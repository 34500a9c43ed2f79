//! Notices oscillation: turns of a factor, counted over a window.

/// Turns within this many seconds count together.
pub const WINDOW: f64 = 20.0;
/// So many of them are an oscillation.
pub const TURNS: usize = 4;
/// A turn is one only if the factor went this share of itself back.
const SIZE: f64 = 0.05;
/// Gains are divided by at most this.
const MOST: f64 = 16.0;
/// Half of a damping is given back after so many seconds without a new oscillation.
const CALM: f64 = 60.0;

/// Follows one factor.
#[derive(Clone, Debug)]
pub struct Swing {
    /// The outermost value since the last turn.
    outermost: f64,
    rising: bool,
    turns: [f64; TURNS],
    next: usize,
}

impl Swing {
    /// Nothing seen yet.
    pub fn new(value: f64) -> Self {
        Self { outermost: value, rising: true, turns: [f64::NEG_INFINITY; TURNS], next: 0 }
    }

    /// Sees the next value. Whether it makes an oscillation; the turns that did are used up then.
    pub fn see(&mut self, value: f64, now: f64) -> bool {
        let further = if self.rising { value >= self.outermost } else { value <= self.outermost };
        if further {
            self.outermost = value;
            return false;
        }
        if (value - self.outermost).abs() <= SIZE * self.outermost {
            return false;
        }
        (self.outermost, self.rising) = (value, !self.rising);
        self.turns[self.next] = now;
        self.next = (self.next + 1) % TURNS;
        let swings = self.turns(now) == TURNS;
        if swings {
            self.turns = [f64::NEG_INFINITY; TURNS];
        }
        swings
    }

    /// Turns within the window.
    pub fn turns(&self, now: f64) -> usize {
        self.turns.iter().filter(|at| now - **at <= WINDOW).count()
    }
}

/// What is done about it: gains are divided.
#[derive(Clone, Copy, Debug)]
pub struct Damping {
    factor: f64,
    changed: f64,
}

impl Default for Damping {
    fn default() -> Self {
        Self { factor: 1.0, changed: f64::NEG_INFINITY }
    }
}

impl Damping {
    /// Gains are divided by this.
    pub fn factor(&self) -> f64 {
        self.factor
    }

    /// Takes note of an oscillation, or of none. Whether damping rose.
    pub fn see(&mut self, swings: bool, now: f64) -> bool {
        // Targets of a service swing against each other: that is one oscillation.
        if swings && now - self.changed > WINDOW / 4.0 && self.factor < MOST {
            (self.factor, self.changed) = (self.factor * 2.0, now);
            return true;
        }
        if swings {
            self.changed = now;
        } else if self.factor > 1.0 && now - self.changed > CALM {
            (self.factor, self.changed) = (self.factor / 2.0, now);
        }
        false
    }
}
