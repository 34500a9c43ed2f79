//! `cargo xtask demo`: set up, build, and show lbx at work on QEMU guests.

use std::path::PathBuf;

use anyhow::Result;

use crate::bpffs::Bpffs;
use crate::traces::Traces;
use crate::{artifacts, build, setup};

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write the claims and their values to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the verb.
///
/// # Errors
/// When something is missing, does not build, or a claim of the demo does not hold.
pub fn run(args: &Args) -> Result<()> {
    prepare()?;
    let traces = Traces::before();
    let bpffs = Bpffs::ensure()?;
    let mut cmd = artifacts::lab(false).arg("demo");
    if let Some(file) = &args.json {
        cmd = cmd.arg("--json").arg(std::path::absolute(file)?);
    }
    let shown = cmd.run();
    drop(bpffs);
    traces.after(false, shown)
}

/// Everything that the demo and its lab need.
///
/// # Errors
/// When something is missing or does not build.
pub fn prepare() -> Result<()> {
    setup::everything()?;
    build::everything(false, false)?;
    artifacts::build_guest()?;
    artifacts::clean_leftovers(false)
}
