//! `cargo xtask load DEV [-- ARGS]`: build, then attach.

use anyhow::Result;

use crate::process::Cmd;
use crate::{artifacts, build};

/// Arguments of `load`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The bridge or NIC to attach to
    dev: String,
    /// Attach even if the device carries the default route or this session
    #[arg(long)]
    yes: bool,
    /// More arguments for `lbx attach`, after `--`: `load br0 -- --config lbx.toml --observe`
    #[arg(last = true)]
    args: Vec<String>,
}

/// Runs the verb.
///
/// # Errors
/// When something does not build, or lbx refuses.
pub fn run(args: &Args) -> Result<()> {
    build::everything(false, false)?;
    let mut cmd = Cmd::new(artifacts::dir(false).join("lbx")).args(["attach", &args.dev]).root().foreground();
    if args.yes {
        cmd = cmd.arg("--yes");
    }
    cmd.args(&args.args).run()
}
