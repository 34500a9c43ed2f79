//! A service's table: wanted shares in, the fewest slot writes out.

use std::time::Instant;

use lbx_common::algo::maglev::{self, Entry, RepairStats, Table};
use lbx_common::flow::TargetWord;
use lbx_common::target::Weight;
use serde::{Deserialize, Serialize};

use super::desired::ServiceWant;

/// What the last change of a service's table was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    /// Slots that changed.
    pub moved: u32,
    /// Slots that had to change, whatever the method.
    pub necessary: u32,
    /// How long working it out took, in microseconds.
    pub micros: u64,
    /// Seconds since the epoch when it was done.
    pub at: u64,
}

/// The entries of a service's table: one per (target, queue) that takes new flows and weighs anything.
/// `words` has index and generation of each target. The seeds come from names alone, so that hosts with the
/// same config build the same table whatever their indices are.
pub fn entries(service: &ServiceWant, words: &[(u16, u8)]) -> Vec<Entry> {
    service
        .targets
        .iter()
        .zip(words)
        .filter(|(target, _)| target.state.holds_slots())
        .flat_map(|(target, &(index, generation))| {
            target.weights.iter().enumerate().map(move |(queue, weight)| Entry {
                id: TargetWord::new(index, queue as u8, generation).0,
                seed: maglev::seed(&format!("{}/{}/{queue}", service.name, target.name)),
                weight: weight.weight,
            })
        })
        .filter(|entry| entry.weight > 0)
        .collect()
}

/// The new table, from the one in force if there is one of the same length.
pub fn next(current: Option<&[TargetWord]>, entries: &[Entry], len: u32) -> (Vec<TargetWord>, Repair) {
    let started = Instant::now();
    let (table, stats) = match current {
        Some(current) => {
            let current: Vec<u32> = current.iter().map(|word| word.0).collect();
            let mut table = Table::adopt(&current, entries);
            let stats = table.repair(entries, len);
            (table, stats)
        }
        None => (Table::build(entries, len), RepairStats { moved: len, necessary: len }),
    };
    let micros = started.elapsed().as_micros() as u64;
    let repair = Repair { moved: stats.moved, necessary: stats.necessary, micros, at: super::unix_now() };
    (table.slots().iter().copied().map(TargetWord).collect(), repair)
}

/// Weights per queue such that a target's share is its weight whatever its number of queues.
///
/// `targets` has, per target, its weight, the number of its queues, and their relative weights (empty: all
/// the same). All weights of a service are scaled by one factor, the smallest that keeps them whole.
pub fn queue_weights(targets: &[(u32, u32, u8, &[u32])]) -> Vec<Vec<Weight>> {
    // (weight, configured, queues, relative)
    let sums: Vec<u64> =
        targets.iter().map(|(_, _, queues, relative)| parts(*queues, relative).iter().sum()).collect();
    let largest =
        targets.iter().map(|(weight, configured, ..)| *weight.max(configured)).max().unwrap_or(1).max(1);
    let scale = sums.iter().copied().filter(|sum| *sum > 0).fold(1, lcm).min(u64::from(u32::MAX / largest));
    targets
        .iter()
        .zip(&sums)
        .map(|((weight, configured, queues, relative), sum)| {
            parts(*queues, relative)
                .iter()
                .map(|part| {
                    let share = |whole: u32| (u64::from(whole) * scale * part / (*sum).max(1)) as u32;
                    Weight { weight: share(*weight), configured: share(*configured) }
                })
                .collect()
        })
        .collect()
}

fn parts(queues: u8, relative: &[u32]) -> Vec<u64> {
    if relative.is_empty() {
        vec![1; usize::from(queues.max(1))]
    } else {
        relative.iter().map(|part| u64::from(*part)).collect()
    }
}

fn lcm(a: u64, b: u64) -> u64 {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    (a / x).saturating_mul(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(weights: &[Vec<Weight>]) -> Vec<u32> {
        weights.iter().map(|queues| queues.iter().map(|weight| weight.weight).sum()).collect()
    }

    #[test]
    fn single_queues_keep_the_weights_as_they_were_written() {
        let weights = queue_weights(&[(100, 100, 1, &[]), (200, 250, 1, &[])]);
        assert_eq!(weights[1], [Weight { weight: 200, configured: 250 }]);
        assert_eq!(sums(&weights), [100, 200]);
    }

    #[test]
    fn more_queues_do_not_mean_a_larger_share() {
        let weights = queue_weights(&[(100, 100, 1, &[]), (100, 100, 4, &[]), (100, 100, 2, &[3, 1])]);
        let sums = sums(&weights);
        assert!(sums.iter().all(|sum| *sum == sums[0]), "{sums:?}");
        assert_eq!(weights[2][0].weight, 3 * weights[2][1].weight);
    }

    #[test]
    fn a_target_without_any_queue_weight_takes_nothing() {
        assert_eq!(sums(&queue_weights(&[(100, 100, 2, &[0, 0]), (1, 1, 1, &[])])), [0, 1]);
    }
}
