//! What the sampler last saw.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::history::History;
use super::{Sample, Vnic};

/// One queue as it was last seen.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    /// Its number; `None`: all queues of the vNIC together.
    pub queue: Option<u32>,
    /// Frames that wait.
    pub depth: u32,
    /// Frames that have room.
    pub size: u32,
    /// The deepest it was seen in the last second.
    pub peak: u32,
    /// Frames taken out a second.
    pub rate: Option<f64>,
    /// Frames dropped a second.
    pub drop_rate: Option<f64>,
    /// Frames that found no room since it is watched.
    pub drops: u64,
    history: History,
}

/// A vNIC, and its queues as they were last seen.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The vNIC.
    pub vnic: Arc<Vnic>,
    // When its queues were noted.
    at: Option<Instant>,
    /// How they were seen.
    pub source: &'static str,
    /// Why that is not newer.
    pub missing: Option<String>,
    /// The queues, by number.
    pub queues: Vec<Queue>,
}

/// Everything that was last seen.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// The vNICs, in the order in which they are followed.
    pub vnics: Vec<Seen>,
    // When was looked last, and which vNICs were then as they had been.
    looked: Option<Instant>,
    quiet: Vec<bool>,
    /// Time from one look to the next, as it is now.
    pub interval: Option<Duration>,
    /// What the last look cost, all vNICs together.
    pub cost: Duration,
    /// How often a look was made because the kernel told of a queue.
    pub told: u64,
    /// Why the rings themselves are not read.
    pub problem: Option<String>,
}

/// Figures of a vNIC: the deepest queue, the sum of the rates.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Total {
    pub depth: u32,
    pub fill: f64,
    /// Taken and dropped a second.
    pub rates: Option<(f64, f64)>,
}

impl Shown {
    /// Follows these vNICs; those that stay keep what was seen of them.
    pub(super) fn follow(&mut self, vnics: &[Vnic]) {
        self.settle();
        let mut old = std::mem::take(&mut self.vnics);
        self.vnics = vnics
            .iter()
            .map(|vnic| match old.iter().position(|seen| seen.vnic.ifindex == vnic.ifindex) {
                Some(at) => Seen { vnic: Arc::new(vnic.clone()), ..old.swap_remove(at) },
                None => Seen {
                    vnic: Arc::new(vnic.clone()),
                    at: None,
                    source: "",
                    missing: None,
                    queues: Vec::new(),
                },
            })
            .collect();
    }

    /// When the queues of a vNIC were last seen to be as they are shown.
    pub fn at(&self, vnic: usize) -> Option<Instant> {
        if self.quiet.get(vnic) == Some(&true) { self.looked } else { self.vnics.get(vnic)?.at }
    }

    /// A look begins to be noted.
    pub(super) fn looked(&mut self, now: Instant) {
        self.looked = Some(now);
        self.quiet.clear();
    }

    /// From now on vNICs were seen when they were last, quiet ones too.
    pub(super) fn settle(&mut self) {
        for n in 0..self.vnics.len() {
            self.vnics[n].at = self.at(n);
        }
        self.quiet.clear();
    }

    /// Whether the next vNIC is as it was.
    pub(super) fn next_is_quiet(&mut self, quiet: bool) {
        self.quiet.push(quiet);
    }

    /// How many queues were seen.
    pub fn queues(&self) -> usize {
        self.vnics.iter().map(|seen| seen.queues.len()).sum()
    }
}

impl Seen {
    /// Notes what was seen of all its queues; its figures.
    pub(super) fn note(&mut self, samples: &[Sample], now: Instant, source: &'static str) -> Total {
        (self.at, self.source, self.missing) = (Some(now), source, None);
        // Queues that are no more while others are: the guest uses fewer.
        self.queues.resize_with(samples.len(), Queue::default);
        let mut total = Total::default();
        for (queue, sample) in self.queues.iter_mut().zip(samples) {
            queue.note(sample, now);
            total.depth = total.depth.max(queue.depth);
            total.fill = total.fill.max(queue.fill());
            if let (Some(rate), Some(drops)) = (queue.rate, queue.drop_rate) {
                let (rates, all) = total.rates.unwrap_or((0.0, 0.0));
                total.rates = Some((rates + rate, all + drops));
            }
        }
        total
    }
}

impl Queue {
    fn note(&mut self, sample: &Sample, now: Instant) {
        let peak = sample.peak.unwrap_or(0).max(sample.depth);
        self.history.note(now, sample.taken, sample.drops, peak);
        let rates = self.history.rates(now, sample.taken, sample.drops);
        (self.rate, self.drop_rate) = (rates.map(|(taken, _)| taken), rates.map(|(_, drops)| drops));
        (self.queue, self.depth, self.size) = (sample.queue, sample.depth, sample.size);
        (self.peak, self.drops) = (self.history.peak(), sample.drops);
    }

    /// Share of its room that is in use.
    pub fn fill(&self) -> f64 {
        if self.size == 0 { 0.0 } else { f64::from(self.depth) / f64::from(self.size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(queue: u32, depth: u32, taken: u64) -> Sample {
        let peak = (depth > 0).then_some(depth + 5);
        Sample { vnic: 0, queue: Some(queue), depth, size: 1000, peak, taken, drops: 0 }
    }

    fn vnic(ifindex: u32) -> Vnic {
        let targets = vec!["web/web-1".to_owned()];
        Vnic { ifindex, name: format!("vnet{ifindex}"), vm: None, pid: Some(1), targets }
    }

    #[test]
    fn a_vnic_is_as_deep_as_its_deepest_queue_and_as_fast_as_all() {
        let (mut shown, start) = (Shown::default(), Instant::now());
        shown.follow(&[vnic(7)]);
        let later = |ms| start + Duration::from_millis(ms);
        let seen = &mut shown.vnics[0];
        let total = seen.note(&[sample(0, 10, 0), sample(1, 250, 0)], start, "test");
        assert_eq!(total, Total { depth: 250, fill: 0.25, rates: None });
        let total = seen.note(&[sample(0, 0, 100), sample(1, 0, 200)], later(500), "test");
        assert_eq!(total.rates, Some((600.0, 0.0)));
        assert_eq!(seen.queues[1].peak, 255);
        let one = [sample(0, 0, 101)];
        assert_eq!(seen.note(&one, later(510), "test").depth, 0, "one is left");
        assert_eq!(seen.queues.len(), 1);
    }

    #[test]
    fn a_quiet_vnic_is_as_fresh_as_the_last_look() {
        let (mut shown, start) = (Shown::default(), Instant::now());
        shown.follow(&[vnic(7), vnic(8)]);
        assert_eq!(shown.at(0), None);
        let later = |ms| start + Duration::from_millis(ms);
        let look = |shown: &mut Shown, at, quiet: [bool; 2]| {
            shown.looked(at);
            for quiet in quiet {
                shown.next_is_quiet(quiet);
            }
        };
        look(&mut shown, start, [false; 2]);
        shown.vnics[1].missing = Some("for a reason".to_owned());
        shown.vnics[1].note(&[sample(0, 0, 5)], start, "test");
        assert_eq!(shown.vnics[1].missing, None, "it is there again");
        look(&mut shown, later(10), [false, true]);
        assert_eq!((shown.at(0), shown.at(1)), (None, Some(later(10))));
        shown.follow(&[vnic(8), vnic(9)]);
        assert_eq!((shown.queues(), shown.vnics[0].queues.len()), (1, 1), "what stays is kept");
        assert_eq!((shown.at(0), shown.at(1)), (Some(later(10)), None));
        look(&mut shown, later(20), [false; 2]);
        assert_eq!(shown.at(0), Some(later(10)), "neither noted nor quiet: it grows old");
    }
}
