//! `cargo xtask bench`: builds for speed and measures.

use std::path::PathBuf;

use anyhow::Result;

use crate::bpffs::Bpffs;
use crate::process::Cmd;
use crate::{artifacts, build, paths, setup, user};

/// The document whose tables are the benches' figures.
const DOCUMENT: &str = "docs/performance.md";
/// Its pictures.
const PLOTS: &str = "docs/performance";

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The benches to run: path, profile, flows, live, apps, table, queues, balance, steady, migrate, reaction, failures; without a name all of them
    names: Vec<String>,
    /// Write the claims and their values to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Put the figures into docs/performance.md
    #[arg(long)]
    document: bool,
    /// A tenth of the time: to see that the benches run, not to quote
    #[arg(long)]
    quick: bool,
    /// Measure the packets of `path` and `flows` with this pinned XDP program too: another balancer, loaded and configured for
    /// the services of the bench
    #[arg(long, value_name = "PIN")]
    against: Option<PathBuf>,
}

/// Runs the verb.
///
/// # Errors
/// When something does not build or does not run, or a goal is missed.
pub fn run(args: &Args) -> Result<()> {
    setup::everything()?;
    let wants = |name: &str| args.names.is_empty() || args.names.iter().any(|wanted| wanted == name);
    if wants("apps") || wants("balance") || wants("steady") {
        setup::for_benches()?;
    }
    build::everything(true, false)?;
    let bins = ["-p", "lbx-tests", "--features", "privileged", "--bin", "lbx-bench", "--bin", "lbx-lab"];
    build::user_space(true, &bins)?;
    artifacts::build_guest()?;
    artifacts::clean_leftovers(true)?;
    let _bpffs = Bpffs::ensure()?;
    let mut cmd = Cmd::new(artifacts::dir(true).join("lbx-bench")).envs(&artifacts::env(true)).root();
    cmd = cmd.args(&args.names);
    if let Some(file) = &args.json {
        cmd = cmd.arg("--json").arg(std::path::absolute(file)?);
    }
    // Beside the document that shows them, or where finished things are.
    let plots = if args.document { paths::root().join(PLOTS) } else { paths::target().join("bench") };
    cmd = cmd.arg("--plots").arg(plots);
    if args.document {
        cmd = cmd.arg("--document").arg(paths::root().join(DOCUMENT));
    }
    if let Some(pin) = &args.against {
        cmd = cmd.arg("--against").arg(pin);
    }
    if args.quick {
        cmd = cmd.arg("--quick");
    }
    let measured = cmd.run();
    user::give_back_target()?;
    measured
}
