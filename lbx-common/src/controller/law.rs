//! The parts of a factor, each a pure function.

use super::Reading;

/// Below this availability a reading says "full" and not how much more than full.
const FULL: f64 = 0.02;
/// Least value of the slow part: it has to find its way back.
const SLOW_MIN: f64 = 0.01;
/// Response times are compared as if each were this much longer, milliseconds: nobody moves for less.
const GRAIN: f64 = 1.0;
/// Longer than any response time, milliseconds: what is beyond would not be told from it.
const ENDLESS: f64 = 1e12;
/// Response times that stay this close are the same.
const QUIET: f64 = 0.1;
/// A deviation beyond this, and beyond twice the noise, is a jump.
const JUMP: f64 = 0.3;
/// Gain of the integral part, per second.
const INTEGRAL: f64 = 0.3;
/// Gain of the proportional part.
const PROPORTIONAL: f64 = 0.5;
/// Gain of the square of what of it is proven: who is several times slower is left at once.
const SQUARE: f64 = 1.0;
/// A jump is proven from here on: so far beyond the noise, times seconds;
const PROVEN: f64 = 0.5;
/// in full from here on;
const SURE: f64 = 1.5;
/// and no more than this is remembered.
const SUREST: f64 = 2.0;
/// Without a jump proof is forgotten with this time constant, seconds.
const DOUBT: f64 = 0.3;
/// What was learnt is forgotten with this time constant, seconds.
const FORGET: f64 = 20.0;
/// Bounds of what is learnt.
const LEARNT: (f64, f64) = (0.02, 4.0);
/// A queue up to this share of its ring is a burst, not a queue.
pub const SHALLOW: f64 = 0.05;
/// A queue counts as at least this much above it: who is told of one at its first frame too many sees hardly any of it,
/// and the weight is to fall by more than the dead band then and not at the next look.
const LEAST: f64 = 0.005;
/// A queue one part in this above [`SHALLOW`] halves the weight.
const STEEP: f64 = 20.0;
/// A queue that is gone is forgotten with this time constant, seconds.
const RELEASE: f64 = 1.0;

/// One step of an exponential smoothing, backward Euler: never overshoots, whatever `dt`.
pub fn toward(from: f64, to: f64, dt: f64, time: f64) -> f64 {
    from + (to - from) * share_of(dt, time)
}

fn share_of(dt: f64, time: f64) -> f64 {
    if dt <= 0.0 { 0.0 } else { dt / (time + dt) }
}

/// The slow part after `dt` seconds at an availability.
///
/// If use is proportional to the share, then a target that has `slow` and is `availability` free would be as
/// free as its share at slow / (slow + 1 - availability): that is where it goes. If use does not follow, the
/// same rule arrives at slow = availability, only later.
pub fn slow(slow: f64, availability: f64, dt: f64, time: f64) -> f64 {
    toward(slow, meet(slow, availability), dt, time).clamp(SLOW_MIN, 1.0)
}

fn meet(slow: f64, availability: f64) -> f64 {
    let free = availability.clamp(0.0, 1.0);
    if free < FULL { slow / 2.0 } else { slow / (slow + 1.0 - free) }
}

/// How far an availability pulls the slow part up or down, as a share of it.
pub fn pull(slow: f64, availability: f64) -> f64 {
    let meet = meet(slow, availability);
    2.0 * (meet - slow) / (meet + slow)
}

/// A response time, smoothed twice, with its noise.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Response {
    /// Smoothed over the fast time, milliseconds: sees jumps.
    pub value: f64,
    /// Smoothed over ten times as long, and taken along by jumps: sees small differences.
    pub calm: f64,
    /// Mean deviation of readings from the fast one, as a share of it.
    pub noise: f64,
    /// When the last reading that entered was taken.
    at: f64,
}

impl Response {
    /// With another reading, if it is another one. `now` is the time its age is counted from.
    pub fn hear(this: Option<Self>, reading: Reading, now: f64, fast: f64) -> Self {
        let (heard, at) = (reading.value.clamp(0.0, ENDLESS), now - reading.age);
        let Some(before) = this else { return Self { value: heard, calm: heard, noise: 0.0, at } };
        let since = at - before.at;
        // The same reading again, its age counted a rounding error differently.
        if since < 1e-6 {
            return before;
        }
        let value = toward(before.value, heard, since, fast);
        let off = deviation(heard, before.value).abs();
        let noise = toward(before.noise, off, since, 4.0 * fast);
        let calm = toward(before.calm, value, since, 10.0 * fast);
        let jumped = beyond(deviation(value, calm), JUMP.max(2.0 * noise)) != 0.0;
        Self { value, calm: if jumped { value } else { calm }, noise, at }
    }

    /// Slower (above 0) or faster than another, in jumps: what noise can explain is taken off.
    pub fn jump(&self, than: &Self) -> f64 {
        beyond(deviation(self.value, than.value), JUMP.max(2.0 * self.noise))
    }

    /// Slower or faster than another in the long run.
    pub fn apart(&self, than: &Self) -> f64 {
        deviation(self.calm, than.calm)
    }
}

/// How far a response time is from another, -2 to 2: the logarithm of their ratio where they are close.
pub fn deviation(of: f64, from: f64) -> f64 {
    2.0 * (of - from) / (of + from + 2.0 * GRAIN)
}

/// What is left of a deviation when the quiet part is taken off.
pub fn beyond(deviation: f64, quiet: f64) -> f64 {
    if deviation > quiet {
        deviation - quiet
    } else if deviation < -quiet {
        deviation + quiet
    } else {
        0.0
    }
}

/// The error that is integrated: a jump, else what is apart for long.
pub fn error(jump: f64, apart: f64, noise: f64) -> f64 {
    if jump == 0.0 { beyond(apart, QUIET.max(noise)) } else { jump }
}

/// How freely what was learnt is forgotten at a deviation: fully by a target that is no slower than the others, not
/// at all by one that is nearly slow enough to lose more. It is tried up to there, not beyond.
pub fn forgetting(deviation: f64) -> f64 {
    (1.0 - deviation / QUIET).clamp(0.0, 1.0)
}

/// The integral part after `dt` seconds with an error, [`forgetting`]; `damping` divides its gain.
pub fn learnt(learnt: f64, error: f64, forgetting: f64, dt: f64, damping: f64) -> f64 {
    let gain = 1.0 + INTEGRAL * error.abs() * dt / damping;
    let moved = if error > 0.0 { learnt / gain } else { learnt * gain };
    toward(moved, 1.0, dt * forgetting, FORGET * damping).clamp(LEARNT.0, LEARNT.1)
}

/// How fast what is learnt would move, a second, as a share of itself, with gains in full.
pub fn drift(learnt: f64, error: f64, forgetting: f64) -> f64 {
    forgetting * (1.0 - learnt) / (learnt * FORGET) - INTEGRAL * error
}

/// What proves a jump, `dt` seconds on: its size summed up over time. What is far off is proven soon, bursts that come
/// and go never are.
pub fn proof(before: f64, jump: f64, dt: f64) -> f64 {
    if jump == 0.0 {
        return toward(before, 0.0, dt, DOUBT);
    }
    (before + jump * dt).clamp(-SUREST, SUREST)
}

/// How much of a jump is believed, 0 to 1.
pub fn belief(proof: f64) -> f64 {
    ((proof.abs() - PROVEN) / (SURE - PROVEN)).clamp(0.0, 1.0)
}

/// The proportional part for a jump, and for what of it is believed.
pub fn prompt(jump: f64, belief: f64, damping: f64) -> f64 {
    let (error, proven) = (jump, belief * jump);
    let gain = 1.0 + (PROPORTIONAL * error.abs() + SQUARE * proven * proven) / damping;
    if error > 0.0 { 1.0 / gain } else { gain }
}

/// The depth of a queue that counts, after `dt` seconds: up at once, by no less than [`LEAST`], and down over a second.
pub fn envelope(before: f64, fill: Option<f64>, dt: f64) -> f64 {
    let deep = |fill: f64| ((fill - SHALLOW) / (1.0 - SHALLOW)).clamp(LEAST, 1.0);
    let over = fill.filter(|fill| *fill > SHALLOW).map_or(0.0, deep);
    if over >= before { over } else { toward(before, over, dt, RELEASE) }
}

/// The queue part for that depth.
pub fn queue(envelope: f64) -> f64 {
    1.0 / (1.0 + STEEP * envelope)
}

/// What is learnt from a queue that rose: who queues again and again has too much. A guest that stood still once has
/// its weight back soon.
pub fn risen(learnt: f64, rise: f64) -> f64 {
    (learnt / (1.0 + rise.max(0.0) / 2.0)).max(LEARNT.0)
}
