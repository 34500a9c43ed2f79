//! `cargo xtask`: builds, sets up, demonstrates, tests and measures lbx.
//!
//! One file per verb. Every command that changes something is printed before it runs (`+ cargo ...`), every
//! verb can be repeated, and Ctrl-C is passed on to the running command, whose clean-up is waited for.

mod artifacts;
mod bench;
mod bpffs;
mod build;
mod demo;
mod lab;
mod lint;
mod load;
mod metadata;
mod paths;
mod process;
mod run;
mod setup;
mod signals;
mod test;
mod traces;
mod user;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::signals::Interrupted;

/// Builds, sets up, demonstrates, tests and measures lbx.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Get the eBPF toolchain, QEMU, the tools of the tests and a guest kernel; says first what it will do
    Setup(setup::Args),
    /// Build the kernel program, and `lbx` with it inside
    Build(build::Args),
    /// Build, then attach to a bridge or NIC: `lbx attach DEV`
    Load(load::Args),
    /// Build, then run lbx as root: `run -- ARGS`
    Run(run::Args),
    /// Show lbx at work on three QEMU guests
    Demo(demo::Args),
    /// Bring up the demo's lab and leave it up until Ctrl-C
    Lab(lab::Args),
    /// Run the tests: unit, bpf, netns, vm; without an argument set up and run all of them
    Test(test::Args),
    /// Format, clippy, docs, feature combinations and house rules
    Lint(lint::Args),
    /// Measure
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    signals::install();
    let result = match cli.verb {
        Verb::Setup(args) => setup::run(&args),
        Verb::Build(args) => build::run(&args),
        Verb::Load(args) => load::run(&args),
        Verb::Run(args) => run::run(&args),
        Verb::Demo(args) => demo::run(&args),
        Verb::Lab(args) => lab::run(&args),
        Verb::Test(args) => test::run(&args),
        Verb::Lint(args) => lint::run(&args),
        Verb::Bench(args) => bench::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.downcast_ref::<Interrupted>().is_some() => {
            eprintln!("xtask: interrupted");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
