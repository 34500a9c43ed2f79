//! Labs from the command line: `lbx-lab up`, `lbx-lab demo`, `lbx-lab gc`, `lbx-lab left`,
//! `lbx-lab setup-image`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use lbx_tests::demo;
use lbx_tests::lab::{Lab, LabSpec, VmKind, cleanup, image, left};

/// Builds labs of network namespaces and QEMU guests, and removes them again.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Download the guests' kernels into the cache (needs no root).
    SetupImage,
    /// Bring up the demo's lab and leave it up until Ctrl-C.
    Up {
        /// VMs on each host.
        #[arg(long, default_value_t = 3)]
        vms: usize,
        /// Hosts on the upstream switch.
        #[arg(long, default_value_t = 1)]
        hosts: usize,
        /// Stand-ins (namespaces) instead of QEMU guests.
        #[arg(long)]
        stand_ins: bool,
    },
    /// Remove what killed labs left behind.
    Gc,
    /// Say what labs and tests have left behind; fails if there is anything.
    Left {
        /// Where finished programs are: nothing may run from there any more.
        programs: PathBuf,
    },
    /// Show what lbx does, with real guests and real traffic.
    Demo {
        /// Write the claims and their figures to a file.
        #[arg(long)]
        json: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    match run(Args::parse().verb) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("lbx-lab: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<bool> {
    match verb {
        Verb::SetupImage => {
            let image = image::ensure()?;
            println!("guest kernel {}: {}", image.version, image.kernel.display());
            for series in image::SERIES {
                match image::ensure_series(series) {
                    Ok(image) => println!("kernel of series {series}: {}", image.version),
                    // Labs and the demo do without; the tests on that kernel will say that they cannot run.
                    Err(e) => eprintln!("lbx-lab: no kernel of series {series} to test on: {e:#}"),
                }
            }
        }
        Verb::Up { vms, hosts, stand_ins } => {
            if !(1..=2).contains(&hosts) || vms > 9 {
                bail!("a lab has one or two hosts with up to nine VMs each");
            }
            let kind = if stand_ins { VmKind::StandIn } else { VmKind::Guest };
            let start = Instant::now();
            let lab = Lab::start(LabSpec::hosts(&vec![vms; hosts], kind))?;
            print!("{}", lab.guide());
            println!("up in {:.1} s; Ctrl-C removes it", start.elapsed().as_secs_f64());
            loop {
                // The signal handler removes the lab and ends the process.
                std::thread::park();
            }
        }
        Verb::Gc => {
            let removed = cleanup::gc()?;
            println!("{} labs removed {}", removed.len(), removed.join(" "));
        }
        Verb::Left { programs } => {
            let left = left::look(&programs);
            for line in &left {
                println!("left behind: {line}");
            }
            return Ok(left.is_empty());
        }
        Verb::Demo { json } => {
            let claims = demo::run()?;
            if let Some(path) = json {
                claims.write(&path)?;
            }
            return Ok(claims.all_hold());
        }
    }
    Ok(true)
}
