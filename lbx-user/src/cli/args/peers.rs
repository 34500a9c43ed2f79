//! Words of `lbx peers`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::Watch;

/// `lbx peers`.
#[derive(Debug, ClapArgs)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Peers {
    /// Show it again and again
    #[command(flatten)]
    pub watch: Watch,
    /// Something else than to look
    #[command(subcommand)]
    pub what: Option<PeersWhat>,
}

/// What else there is to do.
#[derive(Debug, Subcommand)]
pub enum PeersWhat {
    /// Make a small CA and certificates for hosts; what is there already is kept
    Init(PeersInit),
}

/// `lbx peers init`.
#[derive(Debug, ClapArgs)]
pub struct PeersInit {
    /// Where to put the files
    pub dir: PathBuf,
    /// Names of the hosts
    #[arg(required = true, value_name = "HOST")]
    pub names: Vec<String>,
}
