//! Words of the verbs that change a target.

use clap::{Args as ClapArgs, Subcommand, ValueEnum};

use super::values::seconds;

/// A target's name.
#[derive(Debug, Clone, ClapArgs)]
pub struct TargetName {
    /// `web-1`, or `web/web-1` where several services have one
    pub target: String,
}

/// `lbx drain`.
#[derive(Debug, ClapArgs)]
pub struct Drain {
    /// `web-1`, or `web/web-1` where several services have one
    pub target: String,
    /// Return when its last flow is gone
    #[arg(long)]
    pub wait: bool,
    /// Give up waiting after this long (`90s`, `10m`): exit code 4
    #[arg(long, value_name = "TIME", value_parser = seconds, requires = "wait")]
    pub timeout: Option<u64>,
}

/// `lbx set`.
#[derive(Debug, ClapArgs)]
pub struct Set {
    /// What to set
    #[command(subcommand)]
    pub what: SetWhat,
}

/// What `lbx set` sets.
#[derive(Debug, Clone, Subcommand)]
pub enum SetWhat {
    /// Share of new flows
    Weight(SetWeight),
    /// What the datapath does with the target's packets
    State(SetState),
}

/// `lbx set weight`.
#[derive(Debug, Clone, ClapArgs)]
pub struct SetWeight {
    /// `web-1`, or `web/web-1` where several services have one
    pub target: String,
    /// The weight, relative to the service's other targets
    #[arg(required_unless_present = "clear", value_parser = clap::value_parser!(u32).range(0..=65_535))]
    pub weight: Option<u32>,
    /// Back to the weight of the config
    #[arg(long, conflicts_with = "weight")]
    pub clear: bool,
}

/// `lbx set state`.
#[derive(Debug, Clone, ClapArgs)]
pub struct SetState {
    /// `web-1`, or `web/web-1` where several services have one
    pub target: String,
    /// The state
    #[arg(required_unless_present = "clear")]
    pub state: Option<WishedState>,
    /// Wish nothing any more
    #[arg(long, conflicts_with = "state")]
    pub clear: bool,
}

/// States an operator can wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WishedState {
    /// Takes new flows and known ones, unless another owner objects
    Active,
    /// No new flows
    Draining,
    /// Every packet is dropped and counted, for as long as the daemon renews it
    Blackholed,
    /// It runs on another host: known flows follow it there, by its MAC
    Moved,
    /// Gone: known flows are selected anew
    Down,
}

impl WishedState {
    /// The state as the datapath knows it.
    pub const fn state(self) -> lbx_common::target::State {
        use lbx_common::target::State;
        match self {
            Self::Active => State::Active,
            Self::Draining => State::Draining,
            Self::Blackholed => State::Blackholed,
            Self::Moved => State::Moved,
            Self::Down => State::Down,
        }
    }
}
