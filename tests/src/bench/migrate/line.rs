//! The time line of one migration, as pictures.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::figures::window;
use super::probe::Sample;
use crate::bench::balance::plot::{Axis, Plot, Series, Span};
use crate::lab::Timeline;

/// What a picture is made of.
#[derive(Debug, Default, Clone)]
pub struct Line {
    /// When what happened.
    pub times: Timeline,
    /// What lbx heard of it, and when its maps said what follows, in microseconds since the epoch.
    pub states: Vec<(u64, String)>,
    /// Requests on connections that stay.
    pub requests: Vec<Sample>,
    /// Requests on new connections.
    pub fresh: Vec<Sample>,
    /// Datagrams.
    pub datagrams: Vec<Sample>,
}

impl Line {
    /// Writes both pictures into a directory; their files.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, dir: &Path) -> Result<[PathBuf; 2]> {
        let files = ["migrate-latency.svg", "migrate-share.svg"].map(|name| dir.join(name));
        self.latency().write_with(&files[0], &self.spans())?;
        self.share().write_with(&files[1], &self.spans())?;
        Ok(files)
    }

    /// Seconds since the command.
    fn seconds(&self, at: u64) -> f64 {
        (at as f64 - self.times.begun as f64) / 1e6
    }

    /// The state of the guest on the host that clients send to.
    fn spans(&self) -> Vec<Span> {
        let (begin, end) = self.span();
        let mut spans =
            vec![Span { from: self.seconds(begin), to: self.seconds(end), name: "active".into() }];
        for (at, what) in &self.states {
            let name = match what.as_str() {
                "announced" | "transferring" => "draining",
                "stopped" => "blackholed",
                "resumed there" => "moved",
                _ => continue,
            };
            let (at, last) = (self.seconds(*at), spans.len() - 1);
            if spans[last].name != name {
                spans[last].to = at;
                spans.push(Span { from: at, to: self.seconds(end), name: name.into() });
            }
        }
        spans
    }

    fn span(&self) -> (u64, u64) {
        let (from, to) = window(&self.times);
        (from.saturating_sub(1_000_000), to)
    }

    fn x(&self) -> Axis {
        let (from, to) = self.span();
        let label = "seconds since the command".into();
        Axis { label, from: self.seconds(from), to: self.seconds(to), logarithmic: false }
    }

    fn within<'a>(&self, samples: &'a [Sample]) -> impl Iterator<Item = &'a Sample> {
        let (from, to) = self.span();
        samples.iter().filter(move |one| (from..to).contains(&one.at))
    }

    fn mark(&self) -> (f64, String) {
        let pause = self.times.pause().as_secs_f64() * 1000.0;
        (self.seconds(self.times.stopped), format!("stopped for {pause:.0} ms"))
    }

    fn latency(&self) -> Plot {
        let line = |name: &str, samples: &[Sample]| Series {
            name: name.into(),
            points: self
                .within(samples)
                .filter(|one| one.good)
                .map(|one| (self.seconds(one.at), f64::from(one.took) / 1000.0))
                .collect(),
        };
        Plot {
            title: "One migration: how long answers take".into(),
            x: self.x(),
            y: Axis { label: "milliseconds".into(), from: 0.1, to: 5000.0, logarithmic: true },
            series: vec![
                line("connections that stay", &self.requests),
                line("new connections", &self.fresh),
                line("datagrams", &self.datagrams),
            ],
            mark: Some(self.mark()),
        }
    }

    /// By tenths of a second: the share of new connections that the VM got, and of its datagrams that were answered.
    fn share(&self) -> Plot {
        const STEP: u64 = 100_000;
        let (from, to) = self.span();
        let steps = |samples: &[Sample], counts: fn(&Sample) -> bool| {
            let mut points = Vec::new();
            let mut at = from;
            while at < to {
                let of: Vec<_> = samples.iter().filter(|one| (at..at + STEP).contains(&one.at)).collect();
                if !of.is_empty() {
                    let share = of.iter().filter(|one| counts(one)).count() as f64 / of.len() as f64;
                    points.push((self.seconds(at + STEP / 2), share * 100.0));
                }
                at += STEP;
            }
            points
        };
        Plot {
            title: "One migration: who gets what".into(),
            x: self.x(),
            y: Axis { label: "per cent".into(), from: 0.0, to: 100.0, logarithmic: false },
            series: vec![
                Series {
                    name: "new connections to it".into(),
                    points: steps(&self.fresh, |one| one.migrating),
                },
                Series {
                    name: "its datagrams answered".into(),
                    points: steps(&self.datagrams, |one| one.good),
                },
            ],
            mark: Some(self.mark()),
        }
    }
}
