//! An adaptive weight in values and in sentences.

use std::time::Instant;

use lbx_common::controller::{Explained, Held, swing};

use crate::api::model::{Measured, Step, Weighed};
use crate::availability::formula::short;
use crate::availability::{Answer, Formula, Given};
use crate::config::Weights;
use crate::config::units::format_duration;

/// What is known of a target's weight.
pub struct Told<'a> {
    /// The controller's last step.
    pub explained: &'a Explained,
    /// Availability, as last worked out.
    pub answer: Option<&'a Answer>,
    /// The formula.
    pub formula: &'a Formula,
    /// `[weights]`.
    pub weights: &'a Weights,
    /// The moment.
    pub now: Instant,
}

impl Told<'_> {
    /// All values.
    pub fn values(&self) -> Weighed {
        let (told, answer) = (self.explained, self.answer);
        let age = |at: Instant| self.now.saturating_duration_since(at).as_millis() as u64;
        Weighed {
            formula: self.formula.to_string(),
            arithmetic: answer.map_or_else(String::new, |answer| answer.arithmetic.clone()),
            availability: answer.and_then(|answer| answer.value),
            availability_age_ms: answer.and_then(|answer| answer.at).map(age),
            problem: answer.and_then(|answer| answer.why.clone()),
            vm: answer.and_then(|answer| answer.figures.vm),
            host: answer.and_then(|answer| answer.figures.host),
            missing: answer.map_or_else(Vec::new, |answer| {
                let used = |name: &&str| answer.given.iter().any(|given| given.name == *name);
                answer.figures.missing.names().filter(used).map(ToOwned::to_owned).collect()
            }),
            inputs: answer
                .iter()
                .flat_map(|answer| &answer.given)
                .map(|given| self.measured(given))
                .collect(),
            slow: told.slow,
            response_ms: told.response.map(|response| response.value),
            response_calm_ms: told.response.map(|response| response.calm),
            response_noise: told.response.map(|response| response.noise),
            response_median_ms: told.middle.map(|response| response.calm),
            error: told.error,
            learnt: told.learnt,
            prompt: told.prompt,
            depth: told.depth,
            queue: told.queue,
            product: told.product,
            mean: told.mean,
            wanted: told.wanted,
            held: told.held.name().to_owned(),
            limited: told.limited,
            slow_start: told.ramp,
            factor: told.factor,
            written: told.written,
            damping: told.damping,
            calm: told.calm,
            turns: told.turns,
        }
    }

    fn measured(&self, given: &Given) -> Measured {
        let reading = given.reading;
        Measured {
            name: given.name.to_owned(),
            unit: crate::measure::catalogue::find(given.name)
                .map_or("", |metric| metric.unit.name())
                .to_owned(),
            value: reading.map(|reading| reading.value),
            age_ms: reading.map(|reading| reading.age(self.now).as_millis() as u64),
            stale: given.stale,
            source: reading.map(|reading| reading.source.to_owned()),
            cost_us: reading.map(|reading| reading.cost.as_micros() as u64),
            why: None,
        }
    }

    /// The same in sentences.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut step = |name: &str, text: String| steps.push(Step { step: name.to_owned(), text });
        for given in self.answer.iter().flat_map(|answer| &answer.given) {
            // Nobody migrates most of the time, and nobody says so.
            if given.name != "migrating" || given.reading.is_some() {
                step("reading", self.reading(given));
            }
        }
        step("availability", self.availability());
        let told = self.explained;
        let slow = format_duration(self.weights.slow);
        step("slow", format!("{}: follows availability, time constant {slow}", short(told.slow)));
        match (told.response, told.middle) {
            (Some(own), Some(middle)) => step(
                "response",
                format!(
                    "{} ms, in the long run {} ms, noise {} %; the service's median is {} ms: off by {}",
                    short(own.value),
                    short(own.calm),
                    short(own.noise * 100.0),
                    short(middle.calm),
                    short(told.error)
                ),
            ),
            (Some(own), None) => {
                step("response", format!("{} ms, and no other to compare it with", short(own.value)));
            }
            _ => step("response", "not measured".to_owned()),
        }
        let depth = format!("{} of the ring above its first 5 %", short(told.depth));
        step("queue", told.inputs.fill.map_or("not measured".to_owned(), |_| depth));
        let parts = [told.slow, told.learnt, told.prompt, told.queue].map(short);
        let [slow, learnt, prompt, queue] = &parts;
        step(
            "factor",
            format!(
                "slow {slow} × learnt {learnt} × prompt {prompt} × queue {queue} = {}; \
                 over the service's mean {} that is {}",
                short(told.product),
                short(told.mean),
                short(told.product / told.mean)
            ),
        );
        if let Some(text) = self.held() {
            step("held", text);
        }
        if told.damping > 1.0 || told.turns > 0 {
            let (turns, window) = (told.turns, swing::WINDOW);
            step("swing", format!("{turns} turns in {window} s; gains are divided by {}", told.damping));
        }
        if told.calm > 1.0 {
            step("calm", format!("nothing new for a while: gains are divided by {}", short(told.calm)));
        }
        let band = self.weights.dead_band;
        step(
            "written",
            format!(
                "{} after bounds × slow start {} = {}; {} is in force (changes below {band} % are not written)",
                short(told.limited),
                short(told.ramp),
                short(told.factor),
                short(told.written)
            ),
        );
        steps
    }

    fn reading(&self, given: &Given) -> String {
        let Some(reading) = given.reading else { return format!("{}: none", given.name) };
        let age = reading.age(self.now).as_secs_f64();
        let stale = if given.stale { ", stale: counts as none" } else { "" };
        format!("{} {}, {age:.1} s old, from {}{stale}", given.name, short(reading.value), reading.source)
    }

    fn availability(&self) -> String {
        let Some(answer) = self.answer else { return "not worked out yet".to_owned() };
        match (&answer.why, answer.value) {
            (Some(why), _) => format!("none: {} has no value, {why}", self.formula),
            (None, Some(value)) if answer.given.iter().any(migrates) => {
                format!("{}: it migrates", short(value))
            }
            (None, Some(value)) => {
                format!("{} = {} = {}", self.formula, answer.arithmetic, short(value))
            }
            (None, None) => "none".to_owned(),
        }
    }

    fn held(&self) -> Option<String> {
        let weights = self.weights;
        let stale = format_duration(weights.stale_after);
        Some(match self.explained.held {
            Held::No => return None,
            Held::Pinned => "the operator's weight is taken as it is".to_owned(),
            Held::Step => format!("it changes by {} % a second at most", weights.step),
            Held::Floor => format!("measuring leaves {} % of the configured weight", weights.floor),
            Held::Ceiling => "no target gets more than eight times its configured weight".to_owned(),
            Held::Stale => format!("no reading of the last {stale}: it stays where it was"),
            Held::Decaying => {
                let decay = format_duration(weights.decay);
                format!("no reading for long: it returns to the configured weight, time constant {decay}")
            }
            Held::Unmeasured => "nothing was ever measured: it is the configured weight".to_owned(),
        })
    }
}

fn migrates(given: &Given) -> bool {
    given.name == "migrating" && given.value().is_some_and(|share| share > 0.0)
}
