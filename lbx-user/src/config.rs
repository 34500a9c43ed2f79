//! The config file, `/etc/lbx/lbx.toml`: read, checked once, and compared.
//!
//! Text becomes a tree that remembers where everything stood ([`raw`]); the tree becomes types that cannot be
//! wrong ([`checked`]); whatever is wrong on the way is collected, not thrown at the first ([`problem`]), so one
//! run of `lbx check` shows everything that has to be mended. [`diff`] says what a reload changes.

pub mod checked;
pub mod diff;
pub mod problem;
pub mod raw;

mod build;
mod libvirt;
mod measure;
mod migration;
mod overlap;
pub mod peers;
mod service;
#[cfg(test)]
mod tests;
pub mod tunnel;
pub(crate) mod units;
mod weights;

use std::path::Path;

pub use checked::{
    Algorithm, Answer, Config, Daemon, Delivery, Forward, Health, HealthCheck, Limits, NoTarget, Place,
    Ports, Probe, Protocol, Service, Switch, Target, TcChoice, Timeouts, XdpChoice,
};
pub use diff::{Change, ChangeKind, Scope};
pub use libvirt::Libvirt;
pub use measure::Measure;
pub use migration::{Blackhole, Migration, Stopped, Watchdog};
pub use peers::{Peer, Peers};
pub use problem::{Problem, Problems, Severity};
pub use tunnel::Tunnel;
pub use weights::{Weighing, Weights};

/// Where the config is looked for when the command line does not say.
pub const DEFAULT_PATH: &str = "/etc/lbx/lbx.toml";

impl Config {
    /// Read a config from text; `file_name` only appears in the problems.
    ///
    /// # Errors
    /// Every problem found, in the order of the file. Warnings alone do not make an error: they are in
    /// [`Config::warnings`].
    pub fn parse(file_name: &str, text: &str) -> Result<Self, Problems> {
        build::build(file_name, text)
    }

    /// Read a config from a file.
    ///
    /// # Errors
    /// As [`Config::parse`]; a file that cannot be read is one problem without a line.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Problems> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|error| {
            Problems::single(
                &name,
                format!("the file cannot be read: {error}"),
                Some("give another file with --config".to_owned()),
            )
        })?;
        let text = String::from_utf8(bytes).map_err(|error| {
            Problems::single(
                &name,
                format!("the file is not UTF-8 text (byte {})", error.utf8_error().valid_up_to()),
                None,
            )
        })?;
        Self::parse(&name, &text)
    }

    /// What changes from `old` to `new`, in the order switches, services, targets.
    pub fn diff(old: &Self, new: &Self) -> Vec<Change> {
        diff::diff(old, new)
    }

    /// A complete, commented config, for a first start and for the documentation.
    pub const fn example() -> &'static str {
        include_str!("config/example.toml")
    }
}
