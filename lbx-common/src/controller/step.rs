//! One step of a service's weights.

use std::collections::BTreeMap;
use std::string::String;
use std::vec::Vec;

use super::calm::Calm;
use super::limit::{self, CEILING, Limiter};
use super::swing::Swing;
use super::{Controller, Explained, Held, Inputs, Reading, Settings, Track, law};

/// The longest time one step can be about; a daemon that stood still goes on from there.
const LONGEST: f64 = 1.0;

/// A jump of response times that is believed so far is no noise.
const EVIDENCE: f64 = 0.99;

/// What a step came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Some factor is off what was written by more than the dead band: write all of them.
    pub changed: bool,
    /// Gains were just divided further, because a weight swings.
    pub damped: bool,
    /// Target by target.
    pub targets: BTreeMap<String, Explained>,
}

impl Controller {
    /// Takes in what is known at `now` (seconds, monotonic). Targets that are not among `inputs` are forgotten.
    pub fn step(&mut self, now: f64, settings: &Settings, inputs: &BTreeMap<String, Inputs>) -> Outcome {
        let dt = self.last.map_or(0.0, |last| (now - last).clamp(0.0, LONGEST));
        let first = self.last.replace(now).is_none();
        self.tracks.retain(|name, _| inputs.contains_key(name));
        let damping = self.damping.factor();
        let mean_slow = self.mean_slow(inputs);
        // What was known before is taken as what availability had led to.
        let most = inputs.values().filter_map(|input| input.before).fold(1.0, f64::max);
        for (name, input) in inputs {
            let new = || Track::new(input, now, first, most, settings);
            let track = self.tracks.entry(name.clone()).or_insert_with(new);
            track.read(input, now, dt, mean_slow, damping, settings);
        }
        let middle = self.middle(inputs);
        let mut parts: Vec<Parts> = Vec::with_capacity(inputs.len());
        for (name, input) in inputs {
            let Some(track) = self.tracks.get_mut(name) else { continue };
            let age = track.age(now, settings);
            parts.push(track.parts(age, middle.filter(|_| input.active), dt, damping));
        }
        let (mean, unmoved) =
            (mean(inputs, &parts, |one| one.product), mean(inputs, &parts, Parts::without_queue));
        let (mut targets, mut changed, mut swings) = (BTreeMap::new(), false, false);
        for ((name, input), parts) in inputs.iter().zip(&parts) {
            let Some(track) = self.tracks.get_mut(name) else { continue };
            let told = track.finish(input, parts, (mean, middle), now, dt, damping, settings);
            // Queues of others, which move all through the mean, are no swing of its own.
            swings |= input.active && !input.pinned && track.swing.see(told.limited * mean / unmoved, now);
            changed |= !input.pinned && limit::worth(told.factor, track.written, settings.dead_band);
            targets.insert(name.clone(), told);
        }
        let damped = self.damping.see(swings, now);
        if changed {
            for (name, told) in &mut targets {
                told.written = told.factor;
                if let Some(track) = self.tracks.get_mut(name) {
                    track.written = told.factor;
                }
            }
        }
        Outcome { changed, damped, targets }
    }

    /// Mean of the slow parts of those that are measured: what the others count as.
    fn mean_slow(&self, inputs: &BTreeMap<String, Inputs>) -> f64 {
        let known = self.tracks.iter().filter_map(|(name, track)| {
            let input = inputs.get(name).filter(|input| input.availability.is_some())?;
            Some((input.configured, track.slow))
        });
        weighted(known).unwrap_or(1.0)
    }

    /// The median of the targets' response times, weighted by share: what one slow target cannot move. None unless
    /// there is something to compare.
    fn middle(&self, inputs: &BTreeMap<String, Inputs>) -> Option<law::Response> {
        let mut known: Vec<(f64, law::Response)> = inputs
            .iter()
            .filter(|(_, input)| input.active)
            .filter_map(|(name, input)| {
                let track = self.tracks.get(name)?;
                Some((input.configured * track.limiter.value, track.response?))
            })
            .collect();
        if known.len() < 2 {
            return None;
        }
        known.sort_by(|a, b| a.1.calm.total_cmp(&b.1.calm));
        let half = known.iter().map(|(weight, _)| weight).sum::<f64>() / 2.0;
        let mut below = 0.0;
        let middle = known.iter().find(|(weight, _)| {
            below += weight;
            below >= half
        });
        middle.map(|(_, response)| *response)
    }
}

/// The mean of values with weights (weight, value); `None` without any weight.
fn weighted(values: impl Iterator<Item = (f64, f64)>) -> Option<f64> {
    let (weights, sum) = values.fold((0.0, 0.0), |(weights, sum), (w, value)| (weights + w, sum + w * value));
    (weights > 0.0).then(|| sum / weights)
}

/// The mean of something of those whose readings count.
fn mean(inputs: &BTreeMap<String, Inputs>, parts: &[Parts], of: impl Fn(&Parts) -> f64) -> f64 {
    let counted = inputs.values().zip(parts).filter(|(input, _)| input.active && !input.pinned);
    let believed = counted.filter(|(_, parts)| matches!(parts.age, Age::Fresh | Age::Held));
    weighted(believed.map(|(input, parts)| (input.configured, of(parts)))).unwrap_or(1.0)
}

/// How old what is known of a target is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Age {
    /// A reading is young enough.
    Fresh,
    /// None is, for a while now.
    Held,
    /// None has been for long.
    Gone,
    /// There never was one.
    Never,
}

/// The parts of a factor.
struct Parts {
    age: Age,
    error: f64,
    prompt: f64,
    queue: f64,
    product: f64,
}

impl Parts {
    fn without_queue(&self) -> f64 {
        self.product / self.queue
    }
}

impl Track {
    fn new(input: &Inputs, now: f64, first: bool, most: f64, settings: &Settings) -> Self {
        // Who was there before the controller goes on; who joins it later begins.
        let known = first || input.before.is_some();
        let factor = input.before.unwrap_or(1.0).clamp(settings.floor, CEILING);
        Self {
            slow: factor / most.max(factor),
            learnt: 1.0,
            proof: 0.0,
            queue: 0.0,
            calm: Calm::default(),
            response: None,
            fresh_at: f64::NEG_INFINITY,
            wanted: factor,
            started: (!known).then_some(now),
            limiter: Limiter::new(factor),
            written: if known { factor } else { 0.0 },
            swing: Swing::new(factor),
        }
    }

    /// Takes in the readings.
    fn read(&mut self, input: &Inputs, now: f64, dt: f64, mean_slow: f64, damping: f64, settings: &Settings) {
        let stale = settings.stale_after;
        let availability = Reading::fresh(input.availability, stale);
        let response = Reading::fresh(input.response, stale);
        let fill = Reading::fresh(input.fill, stale);
        if availability.is_some() || response.is_some() || fill.is_some() {
            self.fresh_at = now;
        }
        self.calm.pull(availability.map_or(0.0, |free| law::pull(self.slow, free.value)), dt);
        if let Some(free) = availability {
            self.slow = law::slow(self.slow, free.value, dt, settings.slow * damping * self.calm.factor());
        } else if input.availability.is_none_or(|reading| reading.age > 2.0 * stale) {
            self.slow = law::toward(self.slow, mean_slow, dt, settings.decay);
        }
        self.response =
            response.map(|reading| law::Response::hear(self.response, reading, now, settings.fast));
        let depth = law::envelope(self.queue, fill.map(|fill| fill.value), dt);
        self.learnt = law::risen(self.learnt, depth - self.queue);
        if depth > self.queue {
            self.calm.wake();
        }
        self.queue = depth;
        if !input.active || input.pinned {
            self.calm.wake();
        }
        if !input.active {
            self.started = Some(f64::INFINITY);
        } else if self.started == Some(f64::INFINITY) {
            self.started = Some(now);
        }
    }

    fn age(&self, now: f64, settings: &Settings) -> Age {
        let since = now - self.fresh_at;
        if since == f64::INFINITY {
            Age::Never
        } else if since > settings.stale_after {
            Age::Gone
        } else if since > 0.0 {
            Age::Held
        } else {
            Age::Fresh
        }
    }

    fn parts(&mut self, age: Age, middle: Option<law::Response>, dt: f64, damping: f64) -> Parts {
        let (jump, apart, noise) = match (self.response, middle) {
            (Some(own), Some(middle)) => (own.jump(&middle), own.apart(&middle), own.noise),
            _ => (0.0, 0.0, 0.0),
        };
        let (error, forgetting) = (law::error(jump, apart, noise), law::forgetting(apart));
        self.proof = law::proof(self.proof, jump, dt);
        let belief = law::belief(self.proof);
        self.calm.drift(law::drift(self.learnt, error, forgetting), dt);
        if belief >= EVIDENCE {
            self.calm.wake();
        }
        let damping = damping * self.calm.factor();
        self.learnt = law::learnt(self.learnt, error, forgetting, dt, damping);
        let prompt = law::prompt(jump, belief, damping);
        let queue = law::queue(self.queue);
        Parts { age, error, prompt, queue, product: self.slow * self.learnt * prompt * queue }
    }

    #[expect(clippy::too_many_arguments, reason = "the one place where everything comes together")]
    fn finish(
        &mut self,
        input: &Inputs,
        parts: &Parts,
        (mean, middle): (f64, Option<law::Response>),
        now: f64,
        dt: f64,
        damping: f64,
        settings: &Settings,
    ) -> Explained {
        self.wanted = match parts.age {
            Age::Fresh => parts.product / mean,
            Age::Held => self.wanted,
            Age::Gone | Age::Never => law::toward(self.wanted, 1.0, dt, settings.decay),
        };
        let wanted = self.wanted;
        let bounded = wanted.clamp(settings.floor, CEILING);
        let slowed = self.limiter.go(bounded, dt, settings.step, damping, self.queue > 0.0);
        let held = match parts.age {
            _ if input.pinned => Held::Pinned,
            Age::Never => Held::Unmeasured,
            Age::Gone => Held::Decaying,
            Age::Held => Held::Stale,
            Age::Fresh if slowed => Held::Step,
            Age::Fresh if wanted < bounded => Held::Floor,
            Age::Fresh if wanted > bounded => Held::Ceiling,
            Age::Fresh => Held::No,
        };
        let ramp = self.started.map_or(1.0, |at| limit::ramp(now - at, settings.slow_start));
        Explained {
            inputs: *input,
            slow: self.slow,
            response: self.response,
            middle,
            error: parts.error,
            learnt: self.learnt,
            prompt: parts.prompt,
            depth: self.queue,
            queue: parts.queue,
            product: parts.product,
            mean,
            wanted,
            held,
            limited: self.limiter.value,
            ramp,
            factor: if input.pinned { 1.0 } else { self.limiter.value * ramp },
            written: self.written,
            damping,
            calm: self.calm.factor(),
            turns: self.swing.turns(now),
        }
    }
}
