//! What an arm showed: goodput and latencies of the requests that count.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Row;
use super::open::Sent;

/// Requests of all rounds.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Milliseconds, in order; infinite without an answer.
    latencies: Vec<f64>,
    answered: BTreeMap<String, usize>,
    counted: Duration,
    /// Latencies by the second in which the request was due, warm-up and all.
    seconds: BTreeMap<u64, Vec<f64>>,
}

impl Figures {
    /// Adds a round: what was due before `warm` is only shown over time.
    pub fn add(&mut self, sent: &[Sent], warm: Duration, count: Duration) {
        self.counted += count;
        for one in sent {
            let ms = one.took.map_or(f64::INFINITY, |took| took.as_secs_f64() * 1000.0);
            self.seconds.entry(one.due.as_secs()).or_default().push(ms);
            if one.due < warm {
                continue;
            }
            self.latencies.push(ms);
            if let Some(vm) = &one.vm {
                *self.answered.entry(vm.clone()).or_default() += 1;
            }
        }
        self.latencies.sort_by(f64::total_cmp);
    }

    /// Answers a second.
    pub fn goodput(&self) -> f64 {
        self.answered.values().sum::<usize>() as f64 / self.counted.as_secs_f64()
    }

    /// Requests without an answer in time.
    pub fn unanswered(&self) -> usize {
        self.latencies.iter().filter(|ms| ms.is_infinite()).count()
    }

    /// A VM's part of the answers.
    pub fn share(&self, vm: &str) -> f64 {
        let all = self.answered.values().sum::<usize>().max(1);
        self.answered.get(vm).copied().unwrap_or(0) as f64 / all as f64
    }

    /// Milliseconds that a share of the requests did not exceed; `None` where that share was not answered.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        quantile(&self.latencies, share)
    }

    /// How uncertain that is, as a share of it: half of what lies within two standard deviations of its rank.
    pub fn margin(&self, share: f64) -> f64 {
        let off = 2.0 * (share * (1.0 - share) / self.latencies.len().max(1) as f64).sqrt();
        let [low, middle, high] =
            [share - off, share, (share + off).min(1.0)].map(|share| self.quantile(share));
        match (low, middle, high) {
            (Some(low), Some(middle), Some(high)) => (high - low) / 2.0 / middle,
            _ => 0.0,
        }
    }

    /// A quantile of each second, by second.
    pub fn seconds(&self, share: f64) -> Vec<(f64, Option<f64>)> {
        let of = |(second, latencies): (&u64, &Vec<f64>)| {
            let mut sorted = latencies.clone();
            sorted.sort_by(f64::total_cmp);
            (*second as f64 + 0.5, quantile(&sorted, share))
        };
        self.seconds.iter().map(of).collect()
    }
}

fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let rank = (share * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied().filter(|ms| ms.is_finite())
}

/// Writes a line for each arm, for other programs.
pub fn write(file: &Path, rows: &[Row]) -> Result<()> {
    let mut text = String::from("arm,goodput,p50_ms,p95_ms,p99_ms,p999_ms,unanswered\n");
    for Row { arm, figures, .. } in rows {
        let of = |share| figures.quantile(share).map(|ms| format!("{ms:.1}")).unwrap_or_default();
        let (p50, p95, p99, p999) = (of(0.5), of(0.95), of(0.99), of(0.999));
        let (goodput, none) = (figures.goodput(), figures.unanswered());
        let _ = writeln!(text, "{},{goodput:.2},{p50},{p95},{p99},{p999},{none}", arm.word());
    }
    fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_without_an_answer_are_the_slowest() {
        let secs = Duration::from_secs;
        let sent = |n: u64| Sent {
            due: Duration::from_millis(100 * n),
            took: (n < 98).then(|| Duration::from_millis(n)),
            vm: (n < 98).then(|| format!("vm{}", n % 2)),
        };
        let all: Vec<Sent> = (0..100).map(sent).collect();
        let mut figures = Figures::default();
        figures.add(&all, secs(5), secs(5));
        assert_eq!((figures.unanswered(), figures.latencies.len()), (2, 50));
        assert!((figures.goodput() - 48.0 / 5.0).abs() < 1e-9);
        assert_eq!(
            (figures.quantile(0.5), figures.quantile(0.96), figures.quantile(0.99)),
            (Some(74.0), Some(97.0), None)
        );
        assert!((figures.share("vm0") - 0.5).abs() < 1e-9);
        assert_eq!(figures.seconds(1.0).len(), 10);
        assert_eq!(figures.seconds(1.0)[0], (0.5, Some(9.0)), "warm-up is shown");
        // Of 50 two standard deviations around the middle are 14: milliseconds 67 to 81 of 74.
        assert!((figures.margin(0.5) - 7.5 / 74.0).abs() < 0.01, "{}", figures.margin(0.5));
        assert_eq!((Figures::default().quantile(0.5), Figures::default().margin(0.5)), (None, 0.0));
    }
}
