//! Clients, servers and the controller between them.

use std::collections::BTreeMap;

use super::sharing::Sharing;
use super::workers::Workers;
use crate::controller::{Controller, Explained, Inputs, Reading, Settings};

/// The controller's interval, seconds.
const TICK: f64 = 0.01;
/// Requests that wait inside the guest before its ring fills, and the ring's size.
const BACKLOG: usize = 256;
const RING: f64 = 1000.0;

/// splitmix64 (Steele, Lea and Flood 2014).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.next()).ln()
    }
}

pub enum Model {
    /// Service time in seconds, fixed or exponential.
    Workers(Workers, f64, bool),
    /// Mean size of a job in seconds of a whole CPU.
    Sharing(Sharing, f64),
}

pub struct Server {
    pub model: Model,
    pub configured: f64,
    pub active: bool,
    /// Whether its sources tell anything.
    pub told: bool,
    /// Whether its use of CPU shows the load, or its workers only wait.
    pub cpu: bool,
    /// Whether response times are seen.
    pub timed: bool,
    response: Option<(f64, f64)>,
    used: Option<(f64, f64)>,
}

impl Server {
    pub fn workers(workers: usize, service: f64, exponential: bool) -> Self {
        Self::new(Model::Workers(Workers::new(workers), service, exponential))
    }
    pub fn sharing(speed: f64, size: f64) -> Self {
        Self::new(Model::Sharing(Sharing::new(speed), size))
    }
    fn new(model: Model) -> Self {
        let cpu = matches!(model, Model::Sharing(..));
        Self {
            model,
            configured: 100.0,
            active: true,
            told: true,
            cpu,
            timed: true,
            response: None,
            used: None,
        }
    }

    fn arrive(&mut self, now: f64, random: &mut Random) {
        match &mut self.model {
            Model::Workers(queue, service, exponential) => {
                let service = if *exponential { random.exponential(*service) } else { *service };
                queue.arrive(now, service);
            }
            Model::Sharing(queue, size) => queue.arrive(now, random.exponential(*size)),
        }
    }

    /// Lets time pass; answers response times.
    fn pass(&mut self, now: f64) -> Vec<f64> {
        let done = match &mut self.model {
            Model::Workers(queue, ..) => queue.finished(now),
            Model::Sharing(queue, _) => queue.finished(now),
        };
        for took in &done {
            // As a source in the datapath smooths: an eighth of each.
            let value = self.response.map_or(*took, |(value, _)| value + (took - value) / 8.0);
            self.response = Some((value, now));
        }
        done
    }

    fn inputs(&mut self, now: f64) -> Inputs {
        if self.cpu && self.used.is_none_or(|(_, at)| now - at >= 1.0 - TICK / 2.0) {
            let used = match &mut self.model {
                Model::Workers(queue, ..) => queue.used(now),
                Model::Sharing(queue, _) => queue.used(now),
            };
            self.used = Some((used, now));
        }
        let waiting = match &self.model {
            Model::Workers(queue, ..) => queue.waiting(now),
            Model::Sharing(queue, _) => queue.waiting(),
        };
        let fill = (waiting.saturating_sub(BACKLOG) as f64 / RING).min(1.0);
        let reading = |(value, at): (f64, f64)| Reading { value, age: now - at };
        Inputs {
            configured: self.configured,
            active: self.active,
            pinned: false,
            before: None,
            availability: self.used.filter(|_| self.told).map(|(used, at)| reading((1.0 - used, at))),
            response: self
                .response
                .filter(|_| self.told && self.timed)
                .map(|(took, at)| reading((took * 1e3, at))),
            fill: self.told.then_some(Reading { value: fill, age: 0.0 }),
        }
    }
}

pub struct World {
    pub now: f64,
    /// Requests a second.
    pub rate: f64,
    pub servers: Vec<Server>,
    pub controller: Controller,
    pub settings: Settings,
    /// Written shares; the controller's unless it is off.
    pub weights: Vec<f64>,
    pub adaptive: bool,
    pub random: Random,
    pub writes: usize,
    /// Response times in seconds of what ended, and when.
    pub took: Vec<(f64, f64)>,
    /// Weights after every second.
    pub history: Vec<Vec<f64>>,
    pub told: Vec<Explained>,
    next: f64,
    ticks: u64,
}

impl World {
    pub fn new(servers: Vec<Server>, rate: f64, seed: u64) -> Self {
        let weights = servers.iter().map(|server| server.configured).collect();
        Self {
            now: 0.0,
            rate,
            servers,
            controller: Controller::default(),
            settings: Settings::default(),
            weights,
            adaptive: true,
            random: Random(seed),
            writes: 0,
            took: Vec::new(),
            history: Vec::new(),
            told: Vec::new(),
            next: 0.0,
            ticks: 0,
        }
    }

    /// Lets so many seconds pass.
    pub fn run(&mut self, seconds: f64) {
        let until = self.ticks + (seconds / TICK).round() as u64;
        while self.ticks < until {
            self.ticks += 1;
            self.now = self.ticks as f64 * TICK;
            while self.next < self.now {
                let (at, chosen) = (self.next, self.choose());
                if let Some(server) = chosen {
                    self.servers[server].arrive(at, &mut self.random);
                }
                self.next += self.random.exponential(1.0 / self.rate);
            }
            for server in &mut self.servers {
                let done = server.pass(self.now);
                self.took.extend(done.into_iter().map(|took| (self.now, took)));
            }
            if self.adaptive {
                self.control();
            }
            if self.ticks.is_multiple_of(100) {
                self.history.push(self.shares());
            }
        }
    }

    fn control(&mut self) {
        let now = self.now;
        let inputs: BTreeMap<String, Inputs> =
            self.servers.iter_mut().enumerate().map(|(n, server)| (name(n), server.inputs(now))).collect();
        let outcome = self.controller.step(now, &self.settings, &inputs);
        self.told = outcome.targets.values().copied().collect();
        if outcome.changed {
            self.writes += 1;
            for (weight, told) in self.weights.iter_mut().zip(&self.told) {
                *weight = told.factor * told.inputs.configured;
            }
        }
    }

    fn choose(&mut self) -> Option<usize> {
        let takes = |n: &usize| self.servers[*n].active;
        let total: f64 = (0..self.servers.len()).filter(takes).map(|n| self.weights[n]).sum();
        let mut point = self.random.next() * total;
        let mut last = None;
        for n in (0..self.servers.len()).filter(|n| self.servers[*n].active) {
            last = Some(n);
            point -= self.weights[n];
            if point < 0.0 {
                break;
            }
        }
        last
    }

    /// Parts of new flows.
    pub fn shares(&self) -> Vec<f64> {
        let of = |n: usize| if self.servers[n].active { self.weights[n] } else { 0.0 };
        let total: f64 = (0..self.servers.len()).map(of).sum();
        (0..self.servers.len()).map(|n| of(n) / total).collect()
    }

    /// The largest distance of a share from its median after `from` seconds, as a share of that.
    pub fn movement(&self, target: usize, from: usize) -> f64 {
        let mut shares: Vec<f64> = self.history[from..].iter().map(|shares| shares[target]).collect();
        shares.sort_by(f64::total_cmp);
        let median = shares[shares.len() / 2];
        (shares[shares.len() - 1] - median).max(median - shares[0]) / median
    }

    /// A quantile of the response times since `from`, seconds.
    pub fn quantile(&self, from: f64, part: f64) -> f64 {
        let mut took: Vec<f64> =
            self.took.iter().filter(|(at, _)| *at >= from).map(|(_, took)| *took).collect();
        took.sort_by(f64::total_cmp);
        took[((took.len() - 1) as f64 * part) as usize]
    }
}

pub fn name(n: usize) -> String {
    format!("{n:02}")
}
