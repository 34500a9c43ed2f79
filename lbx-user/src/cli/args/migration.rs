//! Words of the verbs about migration.

use clap::{Args as ClapArgs, Subcommand, ValueEnum};

use super::Watch;
use super::values::seconds;

/// `lbx migration`.
#[derive(Debug, ClapArgs)]
pub struct Migration {
    /// What happens to the VM
    #[command(subcommand)]
    pub verb: MigrationVerb,
}

/// `lbx migration PHASE VM`.
#[derive(Debug, Subcommand)]
pub enum MigrationVerb {
    /// It will be migrated: no new flows to it, or fewer
    Announce(Announce),
    /// Its memory is being sent
    Transferring(Vm),
    /// It is stopped: packets to it are dropped and counted, or wait
    Stopped(Vm),
    /// Its CPUs run again, here or on another host
    Resumed(Placed),
    /// The migration is over and it runs, here or on another host
    Done(Placed),
    /// The migration failed: everything as it was
    Failed(Vm),
    /// The migration was cancelled: everything as it was
    Cancelled(Vm),
}

/// A VM.
#[derive(Debug, Clone, ClapArgs)]
pub struct Vm {
    /// The VM by its name or UUID, or a target of it
    pub vm: String,
}

/// `lbx migration announce`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Announce {
    /// The VM by its name or UUID, or a target of it
    pub vm: String,
    /// The host it goes to, by its name in the config
    #[arg(long, value_name = "HOST")]
    pub to: Option<String>,
    /// Return when it has no open flows any more, or at the timeout (exit code 4, with the flows that are left)
    #[arg(long)]
    pub wait: bool,
    /// Longest wait; the config's `migration.drain` without
    #[arg(long, requires = "wait", value_name = "TIME", value_parser = seconds)]
    pub timeout: Option<u64>,
}

/// `lbx migration resumed` and `done`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Placed {
    /// The VM by its name or UUID, or a target of it
    pub vm: String,
    /// Where it runs
    #[arg(long = "where", value_name = "PLACE")]
    pub place: Option<Place>,
    /// The other host, by its name in the config
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
}

/// `--where`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Place {
    /// On this host
    Here,
    /// On another host
    There,
}

/// What is said, with its words.
#[derive(Debug, Clone)]
pub struct Words {
    /// The VM.
    pub vm: String,
    /// The rest.
    pub how: Tell,
}

/// What is said besides the VM.
#[derive(Debug, Clone)]
pub enum Tell {
    /// Nothing.
    Plain,
    /// Of an announcement.
    Announce {
        /// The host it goes to.
        to: Option<String>,
        /// Wait until it is quiet.
        wait: bool,
        /// For so many seconds at most.
        timeout: Option<u64>,
    },
    /// Where it runs.
    Placed {
        /// Here or there.
        place: Option<Place>,
        /// The other host.
        host: Option<String>,
    },
}

impl MigrationVerb {
    /// The phase, as the API has it.
    pub const fn phase(&self) -> &'static str {
        match self {
            Self::Announce(_) => "announced",
            Self::Transferring(_) => "transferring",
            Self::Stopped(_) => "stopped",
            Self::Resumed(_) => "resumed",
            Self::Done(_) => "done",
            Self::Failed(_) => "failed",
            Self::Cancelled(_) => "cancelled",
        }
    }

    /// The words.
    pub fn words(&self) -> Words {
        match self {
            Self::Announce(words) => {
                let how = Tell::Announce { to: words.to.clone(), wait: words.wait, timeout: words.timeout };
                Words { vm: words.vm.clone(), how }
            }
            Self::Resumed(words) | Self::Done(words) => {
                let how = Tell::Placed { place: words.place, host: words.host.clone() };
                Words { vm: words.vm.clone(), how }
            }
            Self::Transferring(words)
            | Self::Stopped(words)
            | Self::Failed(words)
            | Self::Cancelled(words) => Words { vm: words.vm.clone(), how: Tell::Plain },
        }
    }
}

impl Words {
    /// Where it runs, as the API has it.
    pub const fn place(&self) -> Option<&'static str> {
        match self.how {
            Tell::Placed { place: Some(Place::Here), .. } => Some("here"),
            Tell::Placed { place: Some(Place::There), .. } => Some("there"),
            _ => None,
        }
    }

    /// The other host.
    pub fn host(&self) -> Option<&str> {
        match &self.how {
            Tell::Announce { to: host, .. } | Tell::Placed { host, .. } => host.as_deref(),
            Tell::Plain => None,
        }
    }
}

/// `lbx migrations`.
#[derive(Debug, ClapArgs)]
pub struct Migrations {
    /// Only this VM, with every event
    pub vm: Option<String>,
    /// Every event of each
    #[arg(long, short)]
    pub verbose: bool,
    /// Show it again and again
    #[command(flatten)]
    pub watch: Watch,
}
