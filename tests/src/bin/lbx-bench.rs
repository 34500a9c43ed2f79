//! The benches from the command line: `lbx-bench [NAME..]`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Parser;
use lbx_tests::bench::{self, Name, Report, Settings, machine};

/// Measures lbx, each figure beside a reference measured in the same run.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The benches to run; without a name all of them
    names: Vec<Name>,
    /// Write the claims and their values to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Put the figures between the marks of this document
    #[arg(long, value_name = "FILE")]
    document: Option<PathBuf>,
    /// A tenth of the time: to see that the benches run, not to quote
    #[arg(long)]
    quick: bool,
    /// The core to measure on
    #[arg(long, default_value_t = machine::last_cpu())]
    cpu: usize,
    /// Measure the packets of `path` and `flows` with this pinned XDP program too: another balancer, loaded and configured for
    /// the services of the bench
    #[arg(long, value_name = "PIN")]
    against: Option<PathBuf>,
    /// Write plots of `balance`, `steady` and `migrate` into this directory
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("lbx-bench: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the benches need root (BPF programs, namespaces): cargo xtask bench sees to it");
    }
    let start = Instant::now();
    let mut names = if args.names.is_empty() { Name::ALL.to_vec() } else { args.names.clone() };
    names.sort_unstable();
    names.dedup();
    let machine = machine::describe();
    println!("{machine}");
    if let Some(noise) = machine::noise() {
        println!("!! {noise}");
    }
    let settings = Settings {
        quick: args.quick,
        cpu: args.cpu,
        against: args.against.clone(),
        plots: args.plots.clone(),
    };
    let mut report = Report::new();
    for name in names {
        // On a thread of its own: it enters namespaces and pins itself.
        std::thread::scope(|scope| {
            let done = scope.spawn(|| bench::run(name, &settings, &mut report)).join();
            done.unwrap_or_else(|_| bail!("the bench panicked"))
        })?;
    }
    let (claims, figures) = report.finish(start.elapsed());
    if let Some(file) = &args.json {
        claims.write(file)?;
    }
    if let Some(document) = &args.document {
        figures.insert(document, &machine)?;
    }
    Ok(claims.all_hold())
}
