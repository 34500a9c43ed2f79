//! `cargo xtask bench`: builds for speed and measures.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::bpffs::Bpffs;
use crate::metadata::TestPackage;
use crate::process::Cmd;
use crate::{artifacts, build, setup};

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The benches to run; without a name all of them
    names: Vec<String>,
    /// Write the claims and their values to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the verb.
///
/// # Errors
/// When there are no benches, something does not build, or a goal is missed.
pub fn run(args: &Args) -> Result<()> {
    if !TestPackage::read()?.has_bin("lbx-bench") {
        bail!("there are no benches yet: the package lbx-tests has no program lbx-bench");
    }
    setup::everything()?;
    build::everything(true, false)?;
    build::user_space(true, &["-p", "lbx-tests", "--bin", "lbx-bench", "--bin", "lbx-lab"])?;
    artifacts::build_guest()?;
    artifacts::clean_leftovers(true)?;
    let _bpffs = Bpffs::ensure()?;
    let mut cmd = Cmd::new(artifacts::dir(true).join("lbx-bench")).envs(&artifacts::env(true)).root();
    cmd = cmd.args(&args.names);
    if let Some(file) = &args.json {
        cmd = cmd.arg("--json").arg(std::path::absolute(file)?);
    }
    cmd.run()
}
