//! What the probes' samples say about migrations.

use std::time::Duration;

use crate::bench::Samples;
use crate::lab::Timeline;
use crate::lab::client::long;

use super::losses::{Found, Losses, Received, losses};
use super::probe::Sample;

/// After a migration, as long as its effects are looked for, in microseconds.
const AFTER: u64 = 1_000_000;

/// What was counted of datagrams up to some moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counters {
    /// Dropped by lbx.
    pub dropped: u64,
    /// Dropped because a ring was full (frames of all kinds), or a socket.
    pub full: u64,
}

/// One migration.
#[derive(Debug, Clone, Default)]
pub struct Outage {
    /// When what happened.
    pub times: Timeline,
    /// What was counted when it began.
    pub before: Counters,
    /// Datagrams that lbx dropped and counted until the next one began.
    pub dropped: u64,
    /// Datagrams that never reached the guest, and where they are.
    pub found: Found,
    /// Datagrams and frames dropped by then because a ring, or the socket of who was to read them, was full.
    pub full: u64,
    /// What lbx on the first host heard that was news, and when its maps said what follows: microseconds since the
    /// epoch.
    pub states: Vec<(u64, String)>,
    /// Megabytes of memory that were sent.
    pub sent: f64,
    /// Passes over the memory.
    pub passes: f64,
}

impl Outage {
    /// For people who watch.
    pub fn line(&self) -> String {
        let ms = |at: Option<f64>| at.map_or("-".into(), |at| format!("{at:.3} ms"));
        format!(
            "{:.0} ms, paused for {:.1} ms, {:.0} MB in {} passes, blackhole {}, delivery {}",
            millis(self.times.duration().as_micros()),
            millis(self.times.pause().as_micros()),
            self.sent,
            self.passes,
            ms(self.written("stopped", self.times.stopped)),
            ms(self.written("resumed", self.times.resumed)),
        )
    }

    /// When the maps said what follows from a phase, after a time.
    fn written(&self, phase: &str, after: u64) -> Option<f64> {
        let at = self.states.iter().find(|(at, what)| *at >= after && what.starts_with(phase))?.0;
        Some((at - after) as f64 / 1000.0)
    }
}

/// What one arm showed.
#[derive(Default)]
pub struct Figures {
    /// Migrations.
    pub migrations: usize,
    /// Long connections to the VM that migrates.
    pub long: u64,
    /// Long connections that broke, or were answered by another VM.
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
    /// What became of those that were lost.
    pub losses: Losses,
    /// Milliseconds of requests during migrations, of those that failed until they did.
    pub latency: Samples,
    /// Milliseconds of migrations away from the host that clients send to. On the way back a guest that nobody finds
    /// has nothing to do, which makes that way short.
    pub duration: Samples,
    /// Megabytes of memory that these sent.
    pub sent: Samples,
    /// Passes of these over the memory.
    pub passes: Samples,
    /// Milliseconds between STOP and RESUME.
    pub pause: Samples,
    /// Milliseconds without answers to datagrams, beyond the pause.
    pub beyond: Samples,
    /// Milliseconds from STOP to the blackhole in the maps.
    pub blackhole: Samples,
    /// Milliseconds from RESUME to maps that say where the guest is.
    pub delivery: Samples,
}

impl Figures {
    /// Adds what became of long connections.
    pub fn long(&mut self, report: &long::Report, vm: &str) {
        self.long += report.opened.get(vm).copied().unwrap_or(0);
        self.broken += report.broken + report.moved;
    }

    /// Adds what was asked, whenever it was.
    pub fn asked(&mut self, requests: &[Sample], fresh: &[Sample], datagrams: &[Sample]) {
        let failed = |samples: &[Sample]| samples.iter().filter(|one| !one.good).count() as u64;
        self.requests += requests.len() as u64;
        self.failed += failed(requests);
        self.fresh += fresh.len() as u64;
        self.fresh_failed += failed(fresh);
        self.datagrams += datagrams.len() as u64;
    }

    /// Adds what it took to send the guest away from the host that clients send to.
    pub fn transfer(&mut self, outage: &Outage) {
        self.duration.push(millis(outage.times.duration().as_micros()));
        self.sent.push(outage.sent);
        self.passes.push(outage.passes);
    }

    /// Adds what a migration did to requests and datagrams, those that were sent in `span` among these: up to where the
    /// next migration begins.
    ///
    /// Who waits for an answer asks nothing meanwhile: a request that takes longer than `interval` stands for those that
    /// were to be asked then, and would have waited the rest of that time.
    pub fn migration(
        &mut self,
        outage: &Outage,
        requests: &[Sample],
        (datagrams, received): (&[Sample], &Received),
        span: (u64, u64),
        interval: Duration,
    ) {
        let times = &outage.times;
        let (from, to) = window(times);
        self.migrations += 1;
        self.pause.push(millis(times.pause().as_micros()));
        for one in requests.iter().filter(|one| (from..to).contains(&one.at)) {
            let took = Duration::from_micros(one.took.into());
            let rest = |n: u32| took.checked_sub(interval * n).filter(|rest| n == 0 || !rest.is_zero());
            for waited in (0..).map_while(rest) {
                self.latency.push(millis(waited.as_micros()));
            }
        }
        let delivered = outage.written("resumed", times.resumed);
        let back = times.resumed + delivered.map_or(0, |ms| (ms * 1000.0) as u64);
        self.losses.add(&losses(outage, back, datagrams, received, span));
        self.beyond.push(silence(times, datagrams) - millis(times.pause().as_micros()));
        if let Some(ms) = outage.written("stopped", times.stopped) {
            self.blackhole.push(ms);
        }
        if let Some(ms) = delivered {
            self.delivery.push(ms);
        }
    }
}

/// From the command to a second after its end.
pub fn window(times: &Timeline) -> (u64, u64) {
    (times.begun, times.completed.max(times.resumed) + AFTER)
}

fn millis(micros: u128) -> f64 {
    micros as f64 / 1000.0
}

/// The longest time without an answer around the pause, in milliseconds.
fn silence(times: &Timeline, datagrams: &[Sample]) -> f64 {
    let around = times.stopped.saturating_sub(AFTER / 2)..times.resumed + AFTER;
    let mut arrived: Vec<u64> = datagrams
        .iter()
        .filter(|one| one.good)
        .map(|one| one.at + u64::from(one.took))
        .filter(|at| around.contains(at))
        .collect();
    arrived.sort_unstable();
    // Silence to the end of what is looked at counts too.
    arrived.push(around.end);
    let longest = arrived.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
    longest as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: u64, good: bool, took: u32) -> Sample {
        Sample { at, good, took, migrating: true, sending: 100 }
    }

    fn times() -> Timeline {
        Timeline {
            begun: 1_000_000,
            active: 1_000_100,
            stopped: 2_000_000,
            resumed: 2_100_000,
            completed: 2_090_000,
        }
    }

    /// Every 10 ms, lost from 1,990 ms to before 2,130 ms: 14 of them.
    fn datagrams() -> Vec<Sample> {
        let at = |n: u64| 1_900_000 + n * 10_000;
        (0..130).map(|n| sample(at(n), !(1_990_000..2_130_000).contains(&at(n)), 1000)).collect()
    }

    #[test]
    fn a_migration_is_looked_at_from_its_command_to_a_second_after_its_end() {
        let states = vec![(2_000_300, "stopped".into()), (2_101_000, "resumed there".into())];
        let all = Outage { times: times(), dropped: 14, states, ..Outage::default() };
        let requests =
            [sample(500_000, true, 1), sample(1_500_000, true, 7000), sample(1_500_001, false, 9000)];
        let mut figures = Figures::default();
        let datagrams = (&datagrams()[..], &Received::default());
        figures.migration(&all, &requests, datagrams, (0, u64::MAX), Duration::from_millis(4));
        assert_eq!((figures.migrations, figures.losses.lost), (1, 14));
        // One before the stop; at 2,110 and 2,120 ms lbx had known for long.
        assert_eq!((figures.losses.unexplained, figures.losses.outside), (0, 3));
        // 7 and 3 of one, 9, 5 and 1 of the other.
        assert!((figures.latency.median() - 5.0).abs() < 1e-9 && figures.latency.len() == 5);
        // Answers at 1,981 and 2,131 ms around a pause of 100.
        assert!((figures.beyond.median() - 50.0).abs() < 1e-9, "{}", figures.beyond.median());
        assert!(
            (figures.blackhole.median() - 0.3).abs() < 1e-9 && (figures.delivery.median() - 1.0).abs() < 1e-9
        );
    }

    #[test]
    fn silence_that_does_not_end_is_seen() {
        let dead: Vec<_> =
            datagrams().into_iter().map(|one| sample(one.at, one.at < 1_990_000, 1000)).collect();
        assert!(silence(&times(), &dead) > 1000.0);
    }
}
