//! What becomes of packets that wait where a guest goes, while it is stopped.

use std::time::Duration;

use super::losses::{Losses, Received};
use super::probe::Sample;
use crate::bench::{Report, Samples};
use crate::demo::Claim;
use crate::lab::Timeline;

/// A guest is stopped at least so long.
pub const PAUSE: Duration = Duration::from_millis(200);
/// So many datagrams are sent to it a second.
pub const RATE: u32 = 1000;

/// What several migrations showed.
#[derive(Debug, Default)]
pub struct Held {
    /// Milliseconds from STOP to RESUME.
    pub pause: Samples,
    /// Datagrams sent.
    pub datagrams: u64,
    /// Of those, sent while the guest was stopped, and received.
    pub waited: u64,
    /// Datagrams that the guest received after one that was sent later, or twice.
    pub disordered: u64,
    /// What became of those that it did not answer.
    pub losses: Losses,
}

impl Held {
    /// Adds one migration, and all datagrams that were sent around it.
    pub fn add(&mut self, times: &Timeline, datagrams: &[Sample], received: &Received, losses: &Losses) {
        self.pause.push(times.pause().as_secs_f64() * 1000.0);
        self.datagrams += datagrams.len() as u64;
        let numbers = received.numbers();
        let stopped = times.stopped..times.resumed;
        let waited = (0_u64..)
            .zip(datagrams)
            .filter(|(number, one)| stopped.contains(&one.at) && numbers.contains(number));
        self.waited += waited.count() as u64;
        self.disordered += received.disordered();
        self.losses.add(losses);
    }

    /// Lost, and not in the source's ring at STOP, where nobody can help them.
    pub const fn lost(&self) -> u64 {
        self.losses.lost - self.losses.ring - self.losses.taken
    }

    pub(super) fn tell(&self, report: &mut Report) {
        let Losses { lost, ring, taken, dropped, answers, full, .. } = self.losses;
        report.say(&format!(
            "Packets that wait (`stopped = \"hold\"`, through a tunnel between the hosts): an idle guest goes {} times from \
             the host that clients send to to the other, is kept stopped for {} ms at least (a pause before the \
             switch-over), and one flow sends it {RATE} datagrams a second all the time. Waited: sent while it was \
             stopped, and received by the guest. In the ring, taken: at the host that it came from, where they were when it \
             stopped.",
            self.pause.len(),
            PAUSE.as_millis(),
        ));
        let head = [
            "pause, ms",
            "shortest",
            "datagrams",
            "waited",
            "lost",
            "in the ring",
            "taken",
            "dropped by lbx",
            "answer",
            "full",
            "out of order",
        ];
        let counts =
            [self.datagrams, self.waited, lost, ring, taken, dropped, answers, full, self.disordered];
        let pauses = [self.pause.median(), self.pause.min()].map(|pause| format!("{pause:.0}"));
        let row = pauses.into_iter().chain(counts.iter().map(u64::to_string)).collect();
        report.table(&[head.map(String::from).to_vec(), row]);
        for (what, count) in [
            ("lost, and not in the ring of where the guest was", self.lost()),
            ("received out of order, or twice", self.disordered),
        ] {
            report.claim(Claim::equal(&format!("hold: {what}"), count as f64, "", 0.0));
        }
        let short = PAUSE.as_secs_f64() * 1000.0;
        report.claim(Claim::at_least("hold: shortest pause", self.pause.min(), "ms", short));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waited_was_sent_in_the_pause_and_received() {
        let times = Timeline { stopped: 2_000_000, resumed: 2_200_000, ..Timeline::default() };
        let sample =
            |n: u64| Sample { at: 1_990_000 + n * 10_000, good: true, took: 1, migrating: true, sending: 1 };
        let datagrams: Vec<_> = (0..30).map(sample).collect();
        let losses = Losses { lost: 3, ring: 1, taken: 1, ..Losses::default() };
        let mut held = Held::default();
        held.add(&times, &datagrams, &Received(vec![[0, 0], [4, 29]]), &losses);
        assert_eq!((held.waited, held.disordered, held.lost()), (17, 0, 1));
        held.add(&times, &datagrams, &Received(vec![[0, 9], [8, 29]]), &losses);
        assert_eq!((held.waited, held.disordered, held.datagrams), (17 + 20, 2, 60));
        assert!((held.pause.median() - 200.0).abs() < 1e-9);
    }
}
