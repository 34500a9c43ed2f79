//! `cargo xtask run -- ARGS`: build, then run lbx as root.

use anyhow::Result;

use crate::process::Cmd;
use crate::{artifacts, build};

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Arguments for lbx
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Runs the verb; ends the process with lbx's own exit code when that is not 0.
///
/// # Errors
/// When something does not build, or lbx cannot be started.
pub fn run(args: &Args) -> Result<()> {
    build::everything(false, false)?;
    let cmd = Cmd::new(artifacts::dir(false).join("lbx")).args(&args.args).root().foreground();
    let status = cmd.outcome()?.status;
    if status.success() {
        return Ok(());
    }
    // lbx has said why; its exit codes mean something, so they are passed on.
    std::process::exit(status.code().unwrap_or(1));
}
