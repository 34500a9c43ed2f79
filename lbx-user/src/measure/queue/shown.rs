//! What the sampler last saw.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::history::History;
use super::{Sample, Vnic};

/// One queue as it was last seen.
#[derive(Debug, Clone)]
pub struct Queue {
    /// Its vNIC.
    pub vnic: Arc<Vnic>,
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
    /// When it was so.
    pub at: Instant,
    /// The reader.
    pub source: &'static str,
    history: History,
}

/// Everything that was last seen.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// The queues, by interface index and number.
    pub queues: BTreeMap<(u32, Option<u32>), Queue>,
    /// Why a vNIC's figures are not newer, or are not there, by its interface index.
    pub missing: BTreeMap<u32, (Arc<Vnic>, String)>,
    /// Time from one look to the next, as it is now.
    pub interval: Option<Duration>,
    /// What the last look cost, all vNICs together.
    pub cost: Duration,
    /// Why the rings themselves are not read.
    pub problem: Option<String>,
}

impl Queue {
    /// One that is seen for the first time.
    pub(super) fn new(vnic: &Arc<Vnic>, queue: Option<u32>, source: &'static str, at: Instant) -> Self {
        Self {
            vnic: Arc::clone(vnic),
            queue,
            depth: 0,
            size: 0,
            peak: 0,
            rate: None,
            drop_rate: None,
            drops: 0,
            at,
            source,
            history: History::default(),
        }
    }

    /// Notes what was seen.
    pub(super) fn note(&mut self, vnic: &Arc<Vnic>, sample: &Sample, now: Instant) {
        if !Arc::ptr_eq(&self.vnic, vnic) {
            self.vnic = Arc::clone(vnic);
        }
        let peak = sample.peak.unwrap_or(0).max(sample.depth);
        self.history.note(now, sample.taken, sample.drops, peak);
        let rates = self.history.rates(now, sample.taken, sample.drops);
        (self.rate, self.drop_rate) = (rates.map(|(taken, _)| taken), rates.map(|(_, drops)| drops));
        (self.depth, self.size) = (sample.depth, sample.size);
        (self.peak, self.drops, self.at) = (self.history.peak(), sample.drops, now);
    }

    /// Share of its room that is in use.
    pub fn fill(&self) -> f64 {
        if self.size == 0 { 0.0 } else { f64::from(self.depth) / f64::from(self.size) }
    }
}

/// Figures of a vNIC: the deepest queue, the sum of the rates.
pub(super) struct Total {
    pub depth: u32,
    pub fill: f64,
    /// Taken and dropped a second.
    pub rates: Option<(f64, f64)>,
}

impl Shown {
    /// Forgets queues of vNICs that were seen now without them: the guest uses fewer. Those of a vNIC that was not
    /// seen at all stay, and grow old.
    pub(super) fn drop_unused(&mut self, now: Instant) {
        let seen: BTreeSet<u32> =
            self.queues.iter().filter(|(_, queue)| queue.at == now).map(|((index, _), _)| *index).collect();
        self.queues.retain(|(index, _), queue| queue.at == now || !seen.contains(index));
    }

    /// Figures of the vNICs that were seen now, by interface index.
    pub(super) fn totals(&self, now: Instant) -> BTreeMap<u32, Total> {
        let mut totals: BTreeMap<u32, Total> = BTreeMap::new();
        for ((index, _), queue) in self.queues.iter().filter(|(_, queue)| queue.at == now) {
            let total = totals.entry(*index).or_insert(Total { depth: 0, fill: 0.0, rates: None });
            total.depth = total.depth.max(queue.depth);
            total.fill = total.fill.max(queue.fill());
            if let (Some(rate), Some(drops)) = (queue.rate, queue.drop_rate) {
                let (rates, all) = total.rates.unwrap_or((0.0, 0.0));
                total.rates = Some((rates + rate, all + drops));
            }
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn sample(queue: u32, depth: u32, taken: u64) -> Sample {
        Sample { vnic: 0, queue: Some(queue), depth, size: 1000, peak: Some(depth + 5), taken, drops: 0 }
    }

    #[test]
    fn a_vnic_is_as_deep_as_its_deepest_queue_and_as_fast_as_all() {
        let vnic = Arc::new(Vnic {
            ifindex: 7,
            name: "vnet7".to_owned(),
            vm: Some("web-1".to_owned()),
            pid: Some(1),
            targets: vec!["web/web-1".to_owned()],
        });
        let (mut shown, start) = (Shown::default(), Instant::now());
        let mut see = |samples: &[Sample], now: Instant| {
            for sample in samples {
                let new = || Queue::new(&vnic, sample.queue, "test", now);
                shown.queues.entry((7, sample.queue)).or_insert_with(new).note(&vnic, sample, now);
            }
            shown.drop_unused(now);
            shown.clone()
        };
        let total = &see(&[sample(0, 10, 0), sample(1, 250, 0)], start).totals(start)[&7];
        assert_eq!((total.depth, total.fill, total.rates), (250, 0.25, None));
        let later = start + Duration::from_millis(500);
        let seen = see(&[sample(0, 0, 100), sample(1, 0, 200)], later);
        assert_eq!(seen.totals(later)[&7].rates, Some((600.0, 0.0)));
        assert_eq!(seen.queues[&(7, Some(1))].peak, 255);
        assert!(seen.totals(start).is_empty(), "figures of another time");
        // Not seen: they stay. Seen with fewer queues: the others are gone.
        assert_eq!(see(&[], later + Duration::from_millis(10)).queues.len(), 2);
        assert_eq!(see(&[sample(0, 0, 100)], later + Duration::from_millis(20)).queues.len(), 1);
    }
}
