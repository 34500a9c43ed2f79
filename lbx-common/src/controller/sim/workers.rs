//! First come first served, a number of workers.

use std::collections::{BTreeMap, VecDeque};

/// A server whose service times are given by the caller; worked out at arrival, since nobody overtakes.
pub struct Workers {
    /// When each worker is free again.
    free: Vec<f64>,
    /// Start and end of every job that has not ended.
    jobs: VecDeque<(f64, f64, f64)>,
    /// Worker time used, by tenth of a second.
    used: BTreeMap<i64, f64>,
}

impl Workers {
    pub fn new(workers: usize) -> Self {
        Self { free: vec![0.0; workers], jobs: VecDeque::new(), used: BTreeMap::new() }
    }

    pub fn arrive(&mut self, now: f64, service: f64) {
        let worker = self.free.iter_mut().min_by(|a, b| a.total_cmp(b)).expect("a worker");
        let start = now.max(*worker);
        let end = start + service;
        *worker = end;
        let mut at = start;
        while at < end {
            let tenth = (at * 10.0 + 1e-9).floor();
            let next = ((tenth + 1.0) / 10.0).min(end);
            *self.used.entry(tenth as i64).or_default() += next - at;
            at = next;
        }
        let place = self.jobs.partition_point(|job| job.2 <= end);
        self.jobs.insert(place, (now, start, end));
    }

    /// Response times of the jobs that ended by `now`.
    pub fn finished(&mut self, now: f64) -> Vec<f64> {
        let ended = self.jobs.partition_point(|job| job.2 <= now);
        self.jobs.drain(..ended).map(|(arrived, _, end)| end - arrived).collect()
    }

    pub fn waiting(&self, now: f64) -> usize {
        self.jobs.iter().filter(|(_, start, _)| *start > now).count()
    }

    /// Use of the workers in the second before `now`.
    pub fn used(&self, now: f64) -> f64 {
        let end = (now * 10.0).floor() as i64;
        let used: f64 = self.used.range(end - 10..end).map(|(_, used)| used).sum();
        used / self.free.len() as f64
    }
}
