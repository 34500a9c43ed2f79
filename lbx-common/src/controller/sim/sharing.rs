//! Processor sharing: all jobs at once, each at its part of the speed.

use std::collections::BTreeMap;

/// A server by virtual time: it passes at speed over number of jobs, and a job is done when as much of it has passed
/// as the job is large.
pub struct Sharing {
    pub speed: f64,
    virtual_time: f64,
    at: f64,
    /// Jobs by the virtual time of their end (as bits, which order as the numbers do), with when they came.
    jobs: BTreeMap<(u64, u64), f64>,
    number: u64,
    done: Vec<f64>,
    busy: f64,
    marks: Vec<(f64, f64)>,
}

impl Sharing {
    pub fn new(speed: f64) -> Self {
        Self {
            speed,
            virtual_time: 0.0,
            at: 0.0,
            jobs: BTreeMap::new(),
            number: 0,
            done: Vec::new(),
            busy: 0.0,
            marks: vec![(0.0, 0.0)],
        }
    }

    fn advance(&mut self, now: f64) {
        while let Some((&(end, number), &came)) = self.jobs.first_key_value() {
            let each = self.speed / self.jobs.len() as f64;
            let ends = self.at + (f64::from_bits(end) - self.virtual_time) / each;
            if ends > now {
                self.virtual_time += (now - self.at) * each;
                break;
            }
            self.jobs.remove(&(end, number));
            self.virtual_time = f64::from_bits(end);
            self.done.push(ends - came);
            self.busy += ends - self.at;
            self.at = ends;
        }
        if !self.jobs.is_empty() {
            self.busy += now - self.at;
        }
        self.at = now;
    }

    pub fn arrive(&mut self, now: f64, size: f64) {
        self.advance(now);
        self.number += 1;
        self.jobs.insert(((self.virtual_time + size).to_bits(), self.number), now);
    }

    pub fn finished(&mut self, now: f64) -> Vec<f64> {
        self.advance(now);
        std::mem::take(&mut self.done)
    }

    pub fn waiting(&self) -> usize {
        self.jobs.len()
    }

    /// Use since the last time it was asked.
    pub fn used(&mut self, now: f64) -> f64 {
        self.advance(now);
        let (then, before) = self.marks[self.marks.len() - 1];
        self.marks.push((now, self.busy));
        if now > then { (self.busy - before) / (now - then) } else { 0.0 }
    }
}
