//! Weights of adaptive services: a controller for each, what it was told, and the factors that came out.
//!
//! Pure: readings and states go in. Who writes is [`super::reconcile`].

pub mod tell;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lbx_common::controller::limit::{CEILING, START};
use lbx_common::controller::{Controller, Explained, Held, Inputs, Outcome, Reading};

use super::desired::ServiceWant;
use super::wishes::WishBook;
use crate::availability::{Answer, Formula, Given, Place, Readings};
use crate::config::{Config, Service, Weighing, Weights};
use crate::measure::board::Board;

/// The smallest configured weight of an adaptive service is at least so many units in the maps: a step of a
/// thousandth.
const FINE: u64 = 1000;
/// Availability is worked out again after this long: its readings are a second apart.
const SLOW: Duration = Duration::from_millis(250);
/// A step is made after this long even if no queue moved.
const CALM: Duration = Duration::from_millis(50);
/// A queue that moved by this share of its ring is news.
const MOVED: f64 = 0.005;

/// Units in the maps for one of the configured weight: 1, or a power of ten where weights have to move finely.
pub fn scale(service: &Service) -> u32 {
    if service.weights == Weighing::Static {
        return 1;
    }
    let weights =
        || service.targets.iter().map(|target| u64::from(target.weight)).filter(|weight| *weight > 0);
    let (Some(smallest), Some(largest)) = (weights().min(), weights().max()) else { return 1 };
    let mut scale = 1;
    // Room is left above for the largest factor, and for queues to divide a weight.
    let room = u64::from(u32::MAX) / 64 / CEILING as u64;
    while smallest * scale < FINE && largest * scale * 10 <= room {
        scale *= 10;
    }
    scale as u32
}

/// A weight times its factor, in units of the maps.
pub fn weight(base: u32, scale: u32, factor: f64) -> u32 {
    if base == 0 {
        return 0;
    }
    let weight = f64::from(base) * f64::from(scale) * factor;
    // Measuring never makes it nothing.
    (weight.round() as u32).max(1)
}

/// Everything that is looked at in a step.
pub struct Seen<'a> {
    /// The readings.
    pub board: &'a Board,
    /// The moment.
    pub now: Instant,
    /// CPUs of this host.
    pub cpus: Option<f64>,
    /// VMs by full name of the target.
    pub vms: &'a BTreeMap<String, String>,
    /// What owners wish.
    pub book: &'a WishBook,
}

/// What is known of one adaptive service.
#[derive(Debug, Default)]
struct Served {
    controller: Controller,
    outcome: Outcome,
    fills: BTreeMap<String, f64>,
    stepped: Option<Instant>,
    looked: Option<Instant>,
}

/// The weights of all adaptive services.
#[derive(Debug)]
pub struct Weigher {
    /// Times of controllers are counted from here.
    epoch: Instant,
    services: BTreeMap<String, Served>,
    /// Factors as they are written, by full name of the target.
    factors: BTreeMap<String, f64>,
    /// Availability as last worked out, by full name of the target.
    answers: BTreeMap<String, Answer>,
}

impl Default for Weigher {
    fn default() -> Self {
        Self {
            epoch: Instant::now(),
            services: BTreeMap::new(),
            factors: BTreeMap::new(),
            answers: BTreeMap::new(),
        }
    }
}

/// News of a step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct News {
    /// Factors changed: weights are to be written.
    pub changed: bool,
    /// What the log should have.
    pub warnings: Vec<String>,
}

impl Weigher {
    /// Takes over a factor as it is found in the maps.
    pub fn adopt(&mut self, target: &str, factor: f64) {
        self.factors.insert(target.to_owned(), factor);
    }

    /// Forgets what is no longer adaptive, or no longer there.
    pub fn retain(&mut self, config: &Config) {
        let adaptive = |name: &str| config.service(name).is_some_and(|one| one.weights == Weighing::Adaptive);
        self.services.retain(|name, _| adaptive(name));
        let known = |full: &str| {
            let (service, target) = full.split_once('/').unwrap_or((full, ""));
            let service = config.service(service).filter(|one| one.weights == Weighing::Adaptive);
            service.is_some_and(|service| service.targets.iter().any(|one| one.name() == target))
        };
        self.factors.retain(|name, _| known(name));
        self.answers.retain(|name, _| known(name));
    }

    /// The factor that a target's weight is to be multiplied with. One that joins a service that is followed
    /// already begins small.
    pub fn factor(&self, service: &Service, full_name: &str, weights: &Weights) -> f64 {
        if service.weights == Weighing::Static {
            return 1.0;
        }
        let joins = self.services.contains_key(&service.name) && !weights.slow_start.is_zero();
        self.factors.get(full_name).copied().unwrap_or(if joins { START } else { 1.0 })
    }

    /// Whether a step is due: a queue moved, or time passed.
    fn is_due(served: &mut Served, service: &ServiceWant, seen: &Seen<'_>, readings: &Readings<'_>) -> bool {
        let mut moved = false;
        for target in &service.targets {
            let name = target.full_name(&service.name);
            let fill = readings.given("queue_fill", Place { target: &name, vm: None });
            let Some(fill) = fill.and_then(|fill| fill.value()) else { continue };
            let before = served.fills.insert(name, fill).unwrap_or(0.0);
            moved |= (fill - before).abs() > MOVED;
        }
        moved || served.stepped.is_none_or(|at| seen.now.saturating_duration_since(at) >= CALM)
    }

    /// Takes in what is known now of a service; `None` if there was nothing to do.
    pub fn step(
        &mut self,
        service: &Service,
        want: &ServiceWant,
        weights: &Weights,
        seen: &Seen<'_>,
    ) -> Option<News> {
        let readings = Readings::new(seen.board, seen.now, weights.stale_after, seen.cpus);
        let served = self.services.entry(service.name.clone()).or_default();
        if !Self::is_due(served, want, seen, &readings) {
            return None;
        }
        served.stepped = Some(seen.now);
        let look = served.looked.is_none_or(|at| seen.now.saturating_duration_since(at) >= SLOW);
        if look {
            served.looked = Some(seen.now);
        }
        let formula = formula(service, weights);
        let mut inputs = BTreeMap::new();
        for (target, configured) in want.targets.iter().zip(&service.targets) {
            let name = target.full_name(&service.name);
            let place = Place { target: &name, vm: seen.vms.get(&name).map(String::as_str) };
            if look {
                self.answers.insert(name.clone(), readings.availability(place, formula));
            }
            let fast = |metric| readings.given(metric, place).and_then(|given| reading(&given, seen.now));
            inputs.insert(
                name.clone(),
                Inputs {
                    configured: f64::from(configured.weight),
                    active: target.state.holds_slots() && target.ifindex != 0 && configured.weight > 0,
                    pinned: seen.book.weight_override(&name).is_some(),
                    before: self.factors.get(&name).copied(),
                    availability: self.answers.get(&name).and_then(|answer| available(answer, seen.now)),
                    response: fast("response"),
                    fill: fast("queue_fill"),
                },
            );
        }
        let now = seen.now.saturating_duration_since(self.epoch).as_secs_f64();
        let outcome = served.controller.step(now, &weights.settings(), &inputs);
        let warnings = warnings(&service.name, &served.outcome, &outcome, served.controller.damping());
        let changed = outcome.changed;
        for (name, told) in &outcome.targets {
            // Whoever was there before the first step has a factor from then on, even if it never changes.
            if changed || !self.factors.contains_key(name) {
                self.factors.insert(name.clone(), told.written);
            }
        }
        served.outcome = outcome;
        Some(News { changed, warnings })
    }

    /// The last step of a target.
    pub fn explained(&self, service: &str, full_name: &str) -> Option<&Explained> {
        self.services.get(service)?.outcome.targets.get(full_name)
    }

    /// Its availability, as last worked out.
    pub fn availability(&self, full_name: &str) -> Option<&Answer> {
        self.answers.get(full_name)
    }

    /// What somebody looking at the instance should know.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (name, served) in &self.services {
            if served.controller.damping() > 1.0 {
                let by = served.controller.damping();
                notes.push(format!("weights of {name} swing: they follow {by} times more slowly"));
            }
            for (target, told) in &served.outcome.targets {
                notes.extend(stale(told.held).map(|how| format!("weight of {target}: {how}")));
            }
        }
        notes
    }
}

fn stale(held: Held) -> Option<&'static str> {
    match held {
        Held::Decaying => Some("its readings are stale, so it returns to the configured one"),
        Held::Unmeasured => Some("nothing is measured of it, so it is the configured one"),
        _ => None,
    }
}

fn warnings(service: &str, before: &Outcome, after: &Outcome, damping: f64) -> Vec<String> {
    let mut warnings = Vec::new();
    if after.damped {
        warnings
            .push(format!("{service}: its weights swing, so they follow {damping} times more slowly now"));
    }
    for (name, told) in &after.targets {
        let was = before.targets.get(name).map(|told| told.held);
        if was != Some(told.held) && told.held == Held::Decaying {
            warnings
                .push(format!("{name}: its readings are stale, its weight returns to the configured one"));
        }
    }
    warnings
}

fn reading(given: &Given, now: Instant) -> Option<Reading> {
    let reading = given.reading?;
    Some(Reading { value: reading.value, age: reading.age(now).as_secs_f64() })
}

fn available(answer: &Answer, now: Instant) -> Option<Reading> {
    let age = now.saturating_duration_since(answer.at?).as_secs_f64();
    answer.value.map(|value| Reading { value, age })
}

/// The formula of a service.
pub fn formula<'a>(service: &'a Service, weights: &'a Weights) -> &'a Formula {
    service.availability.as_ref().unwrap_or(&weights.availability)
}

#[cfg(test)]
mod tests;
