//! Real clients and servers: HTTP through lbx, nftables and HAProxy, and straight to a server, in turns.

mod place;
mod wrk;

use std::time::Duration;

use anyhow::Result;

use self::place::{Place, Way};
use self::wrk::Answer;
use super::{Report, Samples, Settings, clock};
use crate::demo::Claim;

/// What is asked of the servers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Load {
    /// Small answers on 64 connections that stay.
    KeepAlive,
    /// A connection for every small answer, 64 at a time.
    Connections,
    /// Answers of 10 MiB on 8 connections that stay.
    Bodies,
}

impl Load {
    const ALL: [Self; 3] = [Self::KeepAlive, Self::Connections, Self::Bodies];

    /// Its heading, and how many of its unit are one of the table's.
    fn head(self) -> (&'static str, f64) {
        match self {
            Self::KeepAlive => ("keep-alive ×64, k requests/s", 1e3),
            Self::Connections => ("new connections, k/s", 1e3),
            Self::Bodies => ("bodies of 10 MiB, GiB/s", f64::from(1 << 30)),
        }
    }

    /// Requests or bytes a second.
    fn figure(self, answer: &Answer) -> f64 {
        if self == Self::Bodies { answer.bytes } else { answer.requests }
    }
}

/// What one way showed under one load.
#[derive(Default)]
struct Cell {
    figure: Samples,
    p50: Samples,
    p99: Samples,
}

/// Measures all ways in turns.
///
/// # Errors
/// When something does not start, or does not answer.
pub fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    clock::unpin()?;
    report.section("apps", "HTTP");
    let (rounds, time) = settings.either((7, Duration::from_secs(2)), (2, Duration::from_millis(500)));
    report.say(&format!(
        "wrk in a namespace, three nginx in namespaces on the host's bridge, everything on the same {} cores; lbx in \
         the driver of the uplink (XDP) and at the servers' ports (tc); nftables: dnat by numgen on the host, which \
         routes; HAProxy: TCP mode on the host; direct: to one server, by the bridge. {rounds} rounds of {:.1} s, all \
         ways in each, in turns; medians, and as noise the half distance between the quartiles.",
        super::machine::cpus(),
        time.as_secs_f64()
    ));
    let place = Place::build()?;
    for load in Load::ALL {
        let mut cells: Vec<Cell> = Way::ALL.iter().map(|_| Cell::default()).collect();
        for round in 0..rounds {
            // Another one begins every time: what one leaves behind does not meet always the same.
            for n in 0..Way::ALL.len() {
                let at = (n + round) % Way::ALL.len();
                let answer = place.measure(Way::ALL[at], load, time)?;
                cells[at].figure.push(load.figure(&answer));
                cells[at].p50.push(answer.p50);
                cells[at].p99.push(answer.p99);
            }
        }
        table(report, load, &cells);
        claim(report, load, &cells);
    }
    Ok(())
}

fn of(cells: &[Cell], way: Way) -> &Samples {
    let at = Way::ALL.iter().position(|w| *w == way).unwrap_or(0);
    &cells[at].figure
}

fn table(report: &mut Report, load: Load, cells: &[Cell]) {
    let (head, unit) = load.head();
    let mut rows = vec![["way", "of direct", head, "noise", "p50 ms", "p99 ms"].map(String::from).to_vec()];
    let direct = of(cells, Way::Direct).median();
    for (way, cell) in Way::ALL.iter().zip(cells) {
        rows.push(vec![
            way.name().to_owned(),
            format!("{:.2}", cell.figure.median() / direct),
            format!("{:.1}", cell.figure.median() / unit),
            format!("{:.0} %", noise(&cell.figure) * 100.0),
            format!("{:.2}", cell.p50.median()),
            format!("{:.2}", cell.p99.median()),
        ]);
    }
    report.table(&rows);
}

/// Half the distance between the quartiles, as a share of the median.
fn noise(samples: &Samples) -> f64 {
    (samples.quantile(0.75) - samples.quantile(0.25)) / 2.0 / samples.median()
}

/// lbx is behind nothing but direct, beyond noise.
fn claim(report: &mut Report, load: Load, cells: &[Cell]) {
    let others = [Way::Nft, Way::Haproxy];
    let best = others.into_iter().max_by(|a, b| of(cells, *a).median().total_cmp(&of(cells, *b).median()));
    let Some(best) = best else { return };
    for way in [Way::Dsr, Way::Nat] {
        let ratio = of(cells, way).median() / of(cells, best).median();
        let goal = 1.0 - noise(of(cells, way)).max(noise(of(cells, best))).max(0.02);
        let name = format!("apps: {}, {} / {}", load.head().0, way.name(), best.name());
        report.claim(Claim::at_least(&name, ratio, "", (goal * 1000.0).round() / 1000.0));
    }
}
