//! What becomes of a VM's traffic when its migration fails, in every way and phase: how long until it is right again, and
//! what is left.

mod place;
mod watch;

use std::time::Duration;

use anyhow::{Context, Result};

use self::place::Place;
use super::{Report, Settings, clock};
use crate::demo::Claim;

/// How far a migration has got when it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It was announced, and its destination waits.
    Announced,
    /// Memory is being sent.
    Transferring,
    /// The guest is stopped, and not yet handed over.
    Stopped,
    /// The guest has resumed at its destination this moment.
    Resumed,
}

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Whoever migrates it thinks better of it.
    Cancelled,
    /// The QEMU at the destination is killed.
    DestinationKilled,
    /// The QEMU at the source is killed.
    SourceKilled,
    /// The hosts do not reach each other any more; whoever migrates it gives up, if it is not too late.
    NetworkCut,
    /// lbx at the source is killed and not started again; whoever migrates it gives up, if it is not too late.
    DaemonKilled,
}

/// Where the guest runs afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// At its source.
    Here,
    /// At its destination.
    There,
    /// It is dead.
    Nowhere,
}

/// What happened.
#[derive(Debug)]
pub struct Outcome {
    /// From the failure until every packet and connection was answered by who should; `None`: not while anybody looked.
    pub right_after: Option<Duration>,
    /// Questions asked while nothing was right yet.
    pub lost: usize,
    /// What was still not as it should be when everything had had its time: states, records, the daemons.
    pub wrong: Vec<String>,
}

impl Phase {
    /// All of them, in their order.
    pub const ALL: [Self; 4] = [Self::Announced, Self::Transferring, Self::Stopped, Self::Resumed];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Announced => "announced",
            Self::Transferring => "transferring",
            Self::Stopped => "stopped",
            Self::Resumed => "resumed",
        }
    }
}

impl Failure {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Cancelled, Self::DestinationKilled, Self::SourceKilled, Self::NetworkCut, Self::DaemonKilled];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::DestinationKilled => "destination killed",
            Self::SourceKilled => "source killed",
            Self::NetworkCut => "network cut",
            Self::DaemonKilled => "lbx killed",
        }
    }

    /// Where the guest runs afterwards; `None` if it cannot happen any more.
    pub const fn runs(self, phase: Phase) -> Option<Runs> {
        Some(match (self, phase) {
            (Self::Cancelled, Phase::Resumed) => return None,
            (Self::DestinationKilled, Phase::Resumed) => Runs::Nowhere,
            (_, Phase::Resumed) => Runs::There,
            (Self::SourceKilled, _) => Runs::Nowhere,
            _ => Runs::Here,
        })
    }

    /// Until when traffic is to be right: a second, or the deadline that the kernel keeps for a daemon that is gone.
    pub const fn goal(self, phase: Phase) -> Duration {
        match (self, phase) {
            // Five seconds from when it was last renewed, and a jiffy or two. Resumed: if its new host was not heard of yet.
            (Self::DaemonKilled, Phase::Stopped | Phase::Resumed) => Duration::from_millis(5100),
            _ => Duration::from_secs(1),
        }
    }
}

/// Lets one migration fail in a lab of its own.
///
/// # Errors
/// When something does not start, or the migration does not get that far.
pub fn cell(failure: Failure, phase: Phase) -> Result<Outcome> {
    let runs = failure.runs(phase).context("it cannot happen any more")?;
    let mut place = Place::build()?;
    let outcome = place.try_it(failure, phase, runs);
    outcome.with_context(|| format!("{} when {}\n{}", failure.name(), phase.name(), place.story()))
}

/// Lets migrations fail in all ways.
///
/// # Errors
/// When something does not start, or a migration does not get as far as it should.
pub fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    clock::unpin()?;
    report.section("failures", "Migrations that fail");
    report.say(
        "A QEMU guest (TCG) begins to migrate from one host to another; lbx runs on both, hears the guest's monitors, and \
         they know each other. Then something fails. One flow that the guest has is asked every 10 ms, a new \
         connection is made every 20 ms, all through the first host. Shown is how long after the failure the last \
         question was asked that had no right answer within 0.9 s: from the guest, if it still runs, else from the VM \
         that is left. Afterwards states, records and daemons of both hosts are looked at.",
    );
    let phases = settings.either(&Phase::ALL[..], &[Phase::Stopped]);
    // To look into one: `LBX_BENCH_ONLY="network cut when resumed"`.
    let only = std::env::var("LBX_BENCH_ONLY").unwrap_or_default();
    let mut head = vec![String::new()];
    head.extend(phases.iter().map(|phase| format!("when {}", phase.name())));
    let mut rows = vec![head];
    let (mut claims, mut wrong) = (Vec::new(), Vec::new());
    for failure in Failure::ALL {
        let mut row = vec![failure.name().to_owned()];
        for phase in phases {
            if failure.runs(*phase).is_none() {
                row.push("too late".to_owned());
                continue;
            }
            let name = format!("{} when {}", failure.name(), phase.name());
            if !name.contains(&only) {
                row.push("not tried".to_owned());
                continue;
            }
            let outcome = cell(failure, *phase).unwrap_or_else(|e| Outcome {
                right_after: None,
                lost: 0,
                wrong: vec![format!("{e:#}")],
            });
            eprintln!("{name}: {outcome:?}");
            row.push(outcome.right_after.map_or("not".to_owned(), |after| {
                let left = if outcome.wrong.is_empty() { "" } else { ", something left" };
                format!("{} ms ({} lost){left}", after.as_millis(), outcome.lost)
            }));
            let after = outcome.right_after.map_or(f64::INFINITY, |after| after.as_secs_f64() * 1000.0);
            let goal = failure.goal(*phase).as_secs_f64() * 1000.0;
            claims.push(Claim::at_most(&format!("failures: {name}: right again after"), after, "ms", goal));
            wrong.extend(outcome.wrong.into_iter().map(|what| format!("{name}: {what}")));
        }
        rows.push(row);
    }
    report.table(&rows);
    for claim in claims {
        report.claim(claim);
    }
    for what in &wrong {
        report.say(what);
    }
    report.claim(Claim::equal("failures: things left in the wrong state", wrong.len() as f64, "", 0.0));
    Ok(())
}
