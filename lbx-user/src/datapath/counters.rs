//! Counters: per CPU in the kernel, summed here.

use super::error::{Error, Result};
use super::maps::Maps;
use super::sys;
use bytemuck::Pod;
use lbx_common::limits::{MAX_SERVICES, MAX_TARGETS};
use lbx_common::reason::{REASONS, Reason};
use lbx_common::stats::{ServiceStats, TargetStats};
use std::os::fd::OwnedFd;

/// All counters at one time. They only grow, from load to detach; the words of one element may be a packet
/// apart.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    reasons: Vec<u64>,
    /// By service index.
    pub services: Vec<ServiceStats>,
    /// By target index.
    pub targets: Vec<TargetStats>,
}

impl Counters {
    /// Packets counted under a reason.
    pub fn reason(&self, reason: Reason) -> u64 {
        self.reasons.get(reason as usize).copied().unwrap_or(0)
    }

    /// All reasons with what was counted, in the order of their numbers.
    pub fn reasons(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.iter().map(|reason| (*reason, self.reason(*reason)))
    }
}

impl Maps {
    /// Reads the counters of the first `services` services and `targets` targets, and all reasons: one system
    /// call an element, so a reader asks for as many as are in use.
    pub fn counters(&self, services: u32, targets: u32) -> Result<Counters> {
        let cpus = possible_cpus()?;
        Ok(Counters {
            reasons: sums(&self.reasons, "reasons", REASONS, cpus)?,
            services: sums(&self.service_stats, "service_stats", services.min(MAX_SERVICES), cpus)?,
            targets: sums(&self.target_stats, "target_stats", targets.min(MAX_TARGETS), cpus)?,
        })
    }

    /// Packets to a target by CPU, in the order of the CPUs the kernel keeps a copy for.
    pub fn target_packets_by_cpu(&self, target: u32) -> Result<Vec<u64>> {
        const WORDS: usize = size_of::<TargetStats>() / 8;
        let mut values = vec![0u64; possible_cpus()? * WORDS];
        sys::lookup(&self.target_stats, &target.to_ne_bytes(), bytemuck::cast_slice_mut(&mut values))
            .map_err(Error::io("reading target_stats"))?;
        Ok(values.chunks_exact(WORDS).map(|copy| copy[0]).collect())
    }

    /// Sets the counters of a target to zero: its index passes to another one.
    pub fn clear_target_stats(&self, target: u32) -> Result<()> {
        self.clear_live(target)?;
        clear::<TargetStats>(&self.target_stats, "target_stats", target)
    }

    /// Sets the counters of a service to zero: its index passes to another one.
    pub fn clear_service_stats(&self, service: u32) -> Result<()> {
        clear::<ServiceStats>(&self.service_stats, "service_stats", service)
    }
}

/// The first `n` elements of a per-CPU array of structures of u64, each summed over the CPUs.
fn sums<T: Pod>(map: &OwnedFd, name: &str, n: u32, cpus: usize) -> Result<Vec<T>> {
    let mut values = vec![0u64; cpus * size_of::<T>() / 8];
    (0..n)
        .map(|index| {
            sys::lookup(map, &index.to_ne_bytes(), bytemuck::cast_slice_mut(&mut values))
                .map_err(Error::io(format!("reading {name}")))?;
            Ok(sum(&values))
        })
        .collect()
}

/// Adds up the CPUs' copies of a structure of u64, word by word.
fn sum<T: Pod>(values: &[u64]) -> T {
    let mut total = T::zeroed();
    let words: &mut [u64] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut total));
    for copy in values.chunks_exact(words.len()) {
        for (word, value) in words.iter_mut().zip(copy) {
            *word = word.wrapping_add(*value);
        }
    }
    total
}

fn clear<T: Pod>(map: &OwnedFd, name: &str, index: u32) -> Result<()> {
    let zero = vec![0u8; possible_cpus()? * size_of::<T>()];
    sys::update(map, &index.to_ne_bytes(), &zero).map_err(Error::io(format!("clearing {name}")))
}

/// CPUs the kernel keeps a copy for, whether they are there or not.
fn possible_cpus() -> Result<usize> {
    aya::util::nr_cpus().map_err(|(path, e)| Error::io(format!("reading {path}"))(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_add_up_word_by_word() {
        let stats: TargetStats = sum(&[1, 2, 3, 4, 10, 20, 30, 40]);
        assert_eq!(stats, TargetStats { packets: 11, bytes: 22, flows: 33, drops: 44 });
        assert_eq!(sum::<u64>(&[1, 2, 3]), 6);
    }

    #[test]
    fn a_reason_beyond_what_was_read_is_zero() {
        assert_eq!(Counters::default().reason(Reason::TooBig), 0);
        assert_eq!(Counters::default().reasons().count(), Reason::ALL.len());
    }
}
