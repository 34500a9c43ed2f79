//! The benches: what lbx costs, each figure beside that of a reference measured in the same run.
//!
//! One file per bench. A bench pins the measuring thread to one core ([`clock::pin`]), interleaves what it
//! compares, repeats it, and hands tables and claims to the [`Report`]; it fails only if something does not run,
//! never because a figure is bad: that is a claim that does not hold.

pub mod apps;
pub mod balance;
pub mod clock;
pub mod failures;
pub mod flows;
pub mod generator;
pub mod live;
pub mod machine;
pub mod migrate;
pub mod other;
pub mod path;
pub mod profile;
pub mod programs;
pub mod queues;
pub mod report;
pub mod samples;
pub mod table;

use std::path::PathBuf;

use anyhow::Result;

pub use report::Report;
pub use samples::Samples;

/// The benches by name, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Name {
    /// Cost of a packet in the kernel program, by kind of packet.
    Path,
    /// Where the time of a packet goes, by place in the source.
    Profile,
    /// Packets of flows at random, the share that goes unrecorded, and listing them.
    Flows,
    /// Frames through a line on one core.
    Live,
    /// HTTP by real programs, through lbx and others.
    Apps,
    /// Building and repairing Maglev tables.
    Table,
    /// Looking at the queues of vNICs.
    Queues,
    /// Spreading load over unequal guests, by lbx and others.
    Balance,
    /// Weights under constant load.
    Steady,
    /// Live migrations under load, with lbx aware of them, unaware, and without lbx.
    Migrate,
    /// From a queue that grows to its weight.
    Reaction,
    /// Migrations that fail, in every way and phase.
    Failures,
}

impl Name {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Path,
        Self::Profile,
        Self::Flows,
        Self::Live,
        Self::Apps,
        Self::Table,
        Self::Queues,
        Self::Balance,
        Self::Steady,
        Self::Migrate,
        Self::Reaction,
        Self::Failures,
    ];
}

/// How to measure.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A tenth of the time: to see that the benches run, not to quote.
    pub quick: bool,
    /// The core that the measuring thread stays on.
    pub cpu: usize,
    /// Another balancer's XDP program, pinned and configured by whoever measures, for the same packets.
    pub against: Option<PathBuf>,
    /// Where plots and tables for programs go; without it there are none.
    pub plots: Option<PathBuf>,
}

impl Settings {
    /// `full`, or `short` in a quick run.
    pub fn either<T>(&self, full: T, short: T) -> T {
        if self.quick { short } else { full }
    }
}

/// Runs one bench.
pub fn run(name: Name, settings: &Settings, report: &mut Report) -> Result<()> {
    match name {
        Name::Path => path::run(settings, report),
        Name::Profile => profile::run(settings, report),
        Name::Flows => flows::run(settings, report),
        Name::Live => live::run(settings, report),
        Name::Apps => apps::run(settings, report),
        Name::Table => table::run(settings, report),
        Name::Queues => queues::run(settings, report),
        Name::Balance => balance::run(settings, report),
        Name::Steady => balance::steady(settings, report),
        Name::Migrate => migrate::run(settings, report),
        Name::Reaction => balance::reaction(settings, report),
        Name::Failures => failures::run(settings, report),
    }
}
