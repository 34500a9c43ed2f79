//! Who spreads load best over guests of which one is slow and one has a noisy neighbour: lbx in several ways,
//! nftables at random, HAProxy by open connections, and an oracle that knows what each guest can do.

mod figures;
mod open;
mod place;
pub mod plot;
mod plots;
mod reaction;
mod steady;
mod watch;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use self::figures::Figures;
use self::open::Plan;
use self::place::{Arm, Place};
use self::watch::Weighed;
use super::{Report, Settings, clock};
use crate::demo::Claim;

pub use reaction::run as reaction;
pub use steady::run as steady;

/// Milliseconds that a request takes of a worker.
const SERVICE_MS: u64 = 40;
/// Workers of a guest.
const WORKERS: u64 = 4;
/// By how much each guest is slower: the last one is throttled to a quarter of its CPU, and, as its workers wait
/// instead of computing, takes four times as long for each request.
const SLOWER: [u64; 4] = [1, 1, 1, 4];
/// What the throttled guest has of a CPU.
const THROTTLED: f64 = 0.25;
/// The guest whose CPU a noisy neighbour shares, and how much of the time that one computes.
const NOISY: (usize, f64) = (2, 0.5);
/// Load as a share of what all guests can do together.
const LOADS: [f64; 3] = [0.4, 0.7, 0.9];
/// Where the arrivals come from: the same for all arms of a load and round.
const SEED: u64 = 0x6c62_7801;
/// Requests a second that a guest can do.
pub fn capacity(guest: usize) -> f64 {
    WORKERS as f64 * 1000.0 / (SERVICE_MS * SLOWER[guest]) as f64
}

/// Requests a second that an oracle could serve.
fn total() -> f64 {
    (0..SLOWER.len()).map(capacity).sum()
}

/// How long each arm is loaded before it counts, and how long it counts; how often each has its turn.
#[derive(Clone, Copy)]
struct Times {
    warm: Duration,
    count: Duration,
    rounds: usize,
    /// An answer that takes longer is none.
    limit: Duration,
}

/// What one arm showed at one load.
struct Row {
    arm: Arm,
    figures: Figures,
    weighed: Vec<Weighed>,
}

/// Measures all arms in turns, at every load.
///
/// # Errors
/// When something does not start, or an arm leads nowhere.
pub fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    clock::unpin()?;
    report.section("balance", "Spreading load over unequal guests");
    let secs = Duration::from_secs;
    let full = Times { warm: secs(6), count: secs(12), rounds: 2, limit: secs(5) };
    let short = Times { warm: secs(3), count: secs(3), rounds: 1, limit: secs(2) };
    let times = settings.either(full, short);
    let loads = settings.either(&LOADS[..], &LOADS[1..2]);
    tell(report, times);
    let place = Place::build()?;
    report.say(&format!("The slow guest is throttled by {}.", place.how_throttled()));
    for load in loads {
        let rows = measure(&place, *load, times).with_context(|| format!("{:.0} %", load * 100.0))?;
        table(report, *load, times, &rows);
        weights(report, &rows);
        claims(report, *load, times, &rows);
        if let Some(dir) = &settings.plots {
            pictures(report, dir, *load, times, &rows)?;
        }
    }
    Ok(())
}

fn tell(report: &mut Report, times: Times) {
    let capacities: Vec<String> =
        (0..SLOWER.len()).map(|n| format!("vm{} {:.0}/s", n + 1, capacity(n))).collect();
    report.say(&format!(
        "Four QEMU guests serve HTTP with {WORKERS} workers each that wait {SERVICE_MS} ms for a request: {}. The last \
         one has a quarter of a CPU and takes {} times as long; vm{} shares its CPU with somebody who computes {:.0} % \
         of the time. A connection for each request, sent at random moments (Poisson, seed {SEED:#x}) whatever became \
         of those before; latency counts from the moment a request was due, and an answer after {} s is none. \
         {} rounds, all arms in each, in turns: {} s of load each, of which the last {} s count.",
        capacities.join(", "),
        SLOWER[3],
        NOISY.0 + 1,
        NOISY.1 * 100.0,
        times.limit.as_secs(),
        times.rounds,
        (times.warm + times.count).as_secs_f64(),
        times.count.as_secs_f64(),
    ));
}

fn measure(place: &Place, load: f64, times: Times) -> Result<Vec<Row>> {
    let row = |arm: &Arm| Row { arm: *arm, figures: Figures::default(), weighed: Vec::new() };
    let mut rows: Vec<Row> = Arm::ALL.iter().map(row).collect();
    for round in 0..times.rounds {
        let seed = SEED + (load * 100.0) as u64 + (round as u64) * 1000;
        let plan = Plan::new(seed, load * total(), times.warm + times.count);
        for n in 0..rows.len() {
            // Another one begins every time: what one leaves behind does not meet always the same.
            let row = &mut rows[(n + round) % Arm::ALL.len()];
            let (sent, weighed) = place.load(row.arm, &plan, times.limit)?;
            row.figures.add(&sent, times.warm, times.count);
            row.weighed = weighed;
        }
    }
    Ok(rows)
}

fn table(report: &mut Report, load: f64, times: Times, rows: &[Row]) {
    report.say(&format!("Load {:.0} %, {:.0} requests a second:", load * 100.0, load * total()));
    let head = ["arm", "goodput /s", "p50 ms", "p95 ms", "p99 ms", "p99.9 ms", "no answer", "slow guest"];
    let mut lines = vec![head.map(String::from).to_vec()];
    for Row { arm, figures, .. } in rows {
        let none = || format!(">{}", times.limit.as_millis());
        let ms = |share| figures.quantile(share).map_or_else(none, |ms| format!("{ms:.0}"));
        lines.push(vec![
            arm.name().to_owned(),
            format!("{:.1}", figures.goodput()),
            ms(0.5),
            ms(0.95),
            ms(0.99),
            ms(0.999),
            figures.unanswered().to_string(),
            format!("{:.1} %", figures.share(&format!("vm{}", SLOWER.len())) * 100.0),
        ]);
    }
    report.table(&lines);
}

/// Where the weights of arms that follow something were at the end.
fn weights(report: &mut Report, rows: &[Row]) {
    let mut lines = vec![vec!["weights at the end".to_owned()]];
    lines[0].extend((0..SLOWER.len()).map(|n| format!("vm{}", n + 1)));
    for row in rows.iter().filter(|row| row.arm.follows()) {
        let mut line = vec![row.arm.name().to_owned()];
        let last = row.weighed.last().map(|one| one.factors.as_slice()).unwrap_or_default();
        line.extend(last.iter().map(|factor| format!("{factor:.2}")));
        lines.push(line);
    }
    report.table(&lines);
}

fn claims(report: &mut Report, load: f64, times: Times, rows: &[Row]) {
    let p99 = |arm: Arm| {
        let row = rows.iter().find(|row| row.arm == arm);
        row.map_or(f64::NAN, |row| row.figures.quantile(0.99).unwrap_or(times.limit.as_secs_f64() * 1000.0))
    };
    let at = format!("balance: p99 at {:.0} %", load * 100.0);
    let ours = Arm::ALL.into_iter().filter(|arm| arm.balances());
    if (load - 0.4).abs() < 0.01 {
        // Static weights are not among them: a quarter of this load is more than the slow guest can do.
        for arm in ours {
            let name = format!("{at}, {} / oracle", arm.name());
            report.claim(Claim::at_most(&name, p99(arm) / p99(Arm::Oracle), "", 1.2));
        }
    } else if (load - 0.7).abs() < 0.01 {
        let best = ours.min_by(|a, b| p99(*a).total_cmp(&p99(*b))).unwrap_or(Arm::Adaptive);
        for other in [Arm::Static, Arm::Nft] {
            let name = format!("{at}, {} / {}", other.name(), best.name());
            report.claim(Claim::at_least(&name, p99(other) / p99(best), "", 5.0));
        }
        let margin =
            |arm: Arm| rows.iter().find(|row| row.arm == arm).map_or(0.0, |row| row.figures.margin(0.99));
        // No worse: beyond what a p99 of so many requests is uncertain by.
        let no_worse = 1.0 + margin(best).max(margin(Arm::Haproxy));
        for (other, goal) in [(Arm::Oracle, 1.3), (Arm::Haproxy, (no_worse * 100.0).round() / 100.0)] {
            let name = format!("{at}, {} / {}", best.name(), other.name());
            report.claim(Claim::at_most(&name, p99(best) / p99(other), "", goal));
        }
    }
}

fn pictures(report: &mut Report, dir: &Path, load: f64, times: Times, rows: &[Row]) -> Result<()> {
    let of = format!("{:.0}", load * 100.0);
    let latency = dir.join(format!("balance-latency-{of}.svg"));
    let series: Vec<_> = rows.iter().map(|row| (row.arm.name(), row.figures.seconds(0.99))).collect();
    plots::latency(&format!("p99 of each second at {of} % load"), &series, times).write(&latency)?;
    report.picture(&format!("latency at {of} %"), &latency);
    for row in rows.iter().filter(|row| row.arm.follows()) {
        let file = dir.join(format!("balance-weights-{}-{of}.svg", row.arm.word()));
        let title = format!("Weights of {} at {of} % load", row.arm.name());
        plots::weights(&title, &row.weighed, times.warm + times.count).write(&file)?;
        report.picture(&title, &file);
    }
    figures::write(&dir.join(format!("balance-{of}.csv")), rows)
}
