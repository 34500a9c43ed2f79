//! What the probes' samples say about migrations.

use crate::bench::Samples;
use crate::lab::Timeline;

use super::probe::Sample;

/// After a migration, as long as its effects are looked for, in microseconds.
const AFTER: u64 = 1_000_000;

/// What one arm showed.
#[derive(Default)]
pub struct Figures {
    /// Migrations.
    pub migrations: usize,
    /// Long connections to the VM that migrates, and how many of them broke or were answered by another.
    pub long: u64,
    /// Of those, broken.
    pub broken: u64,
    /// Requests on connections that stay.
    pub requests: u64,
    /// Of those, failed.
    pub failed: u64,
    /// New connections.
    pub fresh: u64,
    /// Of those, failed.
    pub fresh_failed: u64,
    /// Datagrams sent.
    pub datagrams: u64,
    /// Of those, lost.
    pub lost: u64,
    /// Of those, lost although they were sent while the guest ran.
    pub lost_outside: u64,
    /// Milliseconds of requests during migrations.
    pub latency: Samples,
    /// Milliseconds of migrations.
    pub duration: Samples,
    /// Milliseconds between STOP and RESUME.
    pub pause: Samples,
    /// Milliseconds without answers to datagrams, beyond the pause.
    pub beyond: Samples,
}

impl Figures {
    /// Adds what a migration did to requests and datagrams.
    pub fn migration(&mut self, times: &Timeline, requests: &[Sample], datagrams: &[Sample]) {
        let (from, to) = window(times);
        self.migrations += 1;
        self.duration.push(times.duration().as_secs_f64() * 1000.0);
        self.pause.push(times.pause().as_secs_f64() * 1000.0);
        for one in requests.iter().filter(|one| (from..to).contains(&one.at)) {
            if let Some(took) = one.took {
                self.latency.push(f64::from(took) / 1000.0);
            }
        }
        let lost = datagrams.iter().filter(|one| (from..to).contains(&one.at) && one.took.is_none());
        let runs = |one: &&Sample| one.at < times.stopped || one.at > times.resumed;
        self.lost_outside += lost.filter(runs).count() as u64;
        self.beyond.push(silence(times, datagrams) - times.pause().as_secs_f64() * 1000.0);
    }
}

/// From the command to a second after its end.
pub fn window(times: &Timeline) -> (u64, u64) {
    (times.begun, times.completed.max(times.resumed) + AFTER)
}

/// The longest time without an answer around the pause, in milliseconds.
fn silence(times: &Timeline, datagrams: &[Sample]) -> f64 {
    let around = times.stopped.saturating_sub(AFTER)..times.resumed + 10 * AFTER;
    let answered = |one: &Sample| one.took.map(|took| one.at + u64::from(took));
    let mut arrived: Vec<u64> =
        datagrams.iter().filter_map(answered).filter(|at| around.contains(at)).collect();
    arrived.sort_unstable();
    let longest = arrived.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
    longest as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: u64, took: Option<u32>) -> Sample {
        Sample { at, took, migrating: true }
    }

    #[test]
    fn what_is_lost_while_the_guest_runs_is_told_apart() {
        let times = Timeline {
            begun: 1_000_000,
            active: 1_000_100,
            stopped: 2_000_000,
            resumed: 2_100_000,
            completed: 2_090_000,
        };
        let datagrams: Vec<Sample> = (0..40_u64)
            .map(|n| {
                let at = 1_900_000 + n * 10_000;
                let lost = (2_000_000..2_110_000).contains(&at);
                sample(at, (!lost).then_some(1000))
            })
            .collect();
        let requests = [sample(500_000, Some(1)), sample(1_500_000, Some(7000)), sample(1_500_001, None)];
        let mut figures = Figures::default();
        figures.migration(&times, &requests, &datagrams);
        assert_eq!((figures.migrations, figures.lost_outside), (1, 0));
        assert!((figures.latency.median() - 7.0).abs() < 1e-9 && figures.latency.len() == 1);
        // Answers at 1,991 and 2,111 ms around a pause of 100.
        assert!((figures.beyond.median() - 20.0).abs() < 1e-9, "{}", figures.beyond.median());
    }
}
