//! Words of the verbs about the instance as a whole.

use clap::{Args as ClapArgs, ValueEnum};

/// `lbx run`.
#[derive(Debug, ClapArgs)]
pub struct Run {
    /// Attach also where the default route or an SSH session runs, without the 60 seconds of probation
    #[arg(long)]
    pub yes: bool,
    /// Compute and count every verdict, change no packet
    #[arg(long)]
    pub observe: bool,
    /// Take the place of other XDP programs
    #[arg(long)]
    pub replace: bool,
}

/// `lbx check`.
#[derive(Debug, ClapArgs)]
pub struct Check {
    /// Only the file, not the host
    #[arg(long)]
    pub offline: bool,
    /// Print a commented example config and do nothing else
    #[arg(long)]
    pub example: bool,
}

/// `lbx attach`.
#[derive(Debug, ClapArgs)]
pub struct Attach {
    /// Only these switches of the config
    pub switches: Vec<String>,
    /// Attach also where the default route or your SSH session runs; undone after 60 s unless confirmed
    #[arg(long)]
    pub yes: bool,
    /// Keep what the last `attach --yes` did
    #[arg(long, conflicts_with_all = ["yes", "observe", "replace", "dry_run"])]
    pub confirm: bool,
    /// Compute and count every verdict, change no packet
    #[arg(long)]
    pub observe: bool,
    /// Take the place of other XDP programs
    #[arg(long)]
    pub replace: bool,
    /// Say what would be done, and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Seconds until an unconfirmed attach is undone
    #[arg(long, hide = true, default_value_t = 60)]
    pub undo_after: u64,
}

/// `lbx attach-timer`.
#[derive(Debug, ClapArgs)]
pub struct AttachTimer {
    /// Seconds to wait
    pub seconds: u64,
    /// Which attach this is about
    pub token: String,
}

/// `lbx detach`.
#[derive(Debug, ClapArgs)]
pub struct Detach {
    /// Also while the daemon runs (it is asked to let go first)
    #[arg(long)]
    pub force: bool,
}

/// `lbx bypass`.
#[derive(Debug, Clone, Copy, ClapArgs)]
pub struct Bypass {
    /// Switch the bypass on or off
    pub state: OnOff,
}

/// A switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnOff {
    /// Packets pass as on a plain bridge
    On,
    /// Packets are steered
    Off,
}
