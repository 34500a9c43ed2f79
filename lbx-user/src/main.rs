//! The `lbx` command: the daemon and its CLI.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use lbx_user::daemon::{self, Options, Paths};

/// Balances the traffic of services over virtual machines, inside the kernel.
#[derive(Debug, Parser)]
#[command(name = "lbx", version)]
struct Words {
    /// Name of the instance
    #[arg(long, global = true, env = "LBX_INSTANCE")]
    instance: Option<String>,
    /// The config file
    #[arg(long, global = true, env = "LBX_CONFIG", default_value = "/etc/lbx/lbx.toml")]
    config: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The daemon: attach, steer, follow VMs, serve the API
    Run(Run),
}

#[derive(Debug, Args)]
struct Run {
    /// Attach also where the default route or an SSH session runs
    #[arg(long)]
    yes: bool,
    /// Compute and count every verdict, change no packet
    #[arg(long)]
    observe: bool,
    /// Take the place of other XDP programs
    #[arg(long)]
    replace: bool,
}

fn main() -> ExitCode {
    let words = Words::parse();
    let Verb::Run(run) = words.verb;
    let options = Options { yes: run.yes, observe: run.observe, replace: run.replace };
    let result =
        Paths::new(words.instance.as_deref(), &words.config).and_then(|paths| daemon::main(paths, options));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lbx: {error:#}");
            ExitCode::FAILURE
        }
    }
}
