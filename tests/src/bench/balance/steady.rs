//! Weights under constant load: they settle, and then stay where they are.

use std::time::Duration;

use anyhow::{Context, Result};

use super::open::Plan;
use super::place::{Arm, Place};
use super::watch::Weighed;
use super::{SEED, plots, total};
use crate::bench::{Report, Settings, clock};
use crate::demo::Claim;

/// The load.
const LOAD: f64 = 0.7;
/// Weights may move for so long.
const SETTLE: Duration = Duration::from_secs(10);
/// By how much a share may move afterwards, percentage points.
const STILL: f64 = 5.0;

/// Loads the guests evenly, for long, and watches the weights.
///
/// # Errors
/// When something does not start.
pub fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    clock::unpin()?;
    report.section("steady", "Weights under constant load");
    let time = settings.either(Duration::from_mins(10), Duration::from_mins(1));
    report.say(&format!(
        "The guests and the load of `bench balance` at {:.0} %, through adaptive weights, for {} s. A guest's share \
         of new connections is its weight over the sum of all; it moves by its largest distance from its median after \
         the first {} s.",
        LOAD * 100.0,
        time.as_secs(),
        SETTLE.as_secs()
    ));
    let place = Place::build()?;
    let plan = Plan::new(SEED, LOAD * total(), time);
    let (_, weighed) = place.load(Arm::Adaptive, &plan, Duration::from_secs(5))?;
    let last = weighed.last().context("no weight was seen")?;
    let mut rows = vec![["guest", "share, median", "moves by", "of itself"].map(String::from).to_vec()];
    let mut worst = 0.0;
    for n in 0..last.factors.len() {
        let (median, moves) = movement(&weighed, n, SETTLE);
        rows.push(vec![
            format!("vm{}", n + 1),
            format!("{median:.2} %"),
            format!("{moves:.2} points"),
            format!("{:.0} %", moves / median * 100.0),
        ]);
        worst = f64::max(worst, moves);
    }
    report.table(&rows);
    report.claim(Claim::at_most("steady: movement of a share after 10 s", worst, "points", STILL));
    if let Some(dir) = &settings.plots {
        let file = dir.join("steady-weights.svg");
        plots::weights("Weights under constant load", &weighed, time).write(&file)?;
        report.picture("weights under constant load", &file);
    }
    Ok(())
}

/// The median of a share after some time, per cent, and its largest distance from it, percentage points.
fn movement(weighed: &[Weighed], guest: usize, after: Duration) -> (f64, f64) {
    let share = |one: &Weighed| one.factors[guest] / one.factors.iter().sum::<f64>() * 100.0;
    let mut shares: Vec<f64> = weighed.iter().filter(|one| one.at >= after).map(share).collect();
    shares.sort_by(f64::total_cmp);
    let (Some(low), Some(high)) = (shares.first(), shares.last()) else { return (f64::NAN, f64::NAN) };
    let median = shares[shares.len() / 2];
    (median, (high - median).max(median - low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn movement_is_what_comes_after_settling() {
        let at = |second: u64, factor: f64| Weighed {
            at: Duration::from_secs(second),
            factors: vec![1.0, factor],
        };
        let weighed: Vec<_> =
            [(0, 1.0), (5, 0.3), (10, 0.5), (11, 0.52), (12, 0.5), (13, 0.49)].map(|(s, f)| at(s, f)).into();
        let (median, moves) = movement(&weighed, 1, Duration::from_secs(10));
        // Of the shares 50 in 150, 52 in 152 and 49 in 149.
        let most = 100.0 * 0.52 / 1.52;
        assert!((median - 100.0 / 3.0).abs() < 1e-9, "{median}");
        assert!((moves - (most - 100.0 / 3.0)).abs() < 1e-9, "{moves}");
        assert!(movement(&weighed, 1, Duration::from_mins(1)).1.is_nan(), "no goal holds for that");
    }
}
