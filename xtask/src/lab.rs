//! `cargo xtask lab`: the demo's lab, up until Ctrl-C.

use anyhow::Result;

use crate::bpffs::Bpffs;
use crate::process::{Cmd, interrupted};
use crate::traces::Traces;
use crate::{artifacts, demo};

/// Arguments of `lab`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// More arguments for `lbx-lab up`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Runs the verb.
///
/// # Errors
/// When something is missing, does not build, or the lab does not come up. Ctrl-C is the way to end it, so
/// that is not an error here once the lab has been started.
pub fn run(args: &Args) -> Result<()> {
    demo::prepare()?;
    let traces = Traces::before();
    let bpffs = Bpffs::ensure()?;
    let lab: Cmd = artifacts::lab(false).arg("up").args(&args.args);
    let up = lab.run();
    drop(bpffs);
    match traces.after(false, up) {
        Err(error) if interrupted(&error) => Ok(()),
        other => other,
    }
}
