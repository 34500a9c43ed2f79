//! `cargo xtask test [unit|bpf|netns|vm] [-- FILTER]`: the layers of tests, from the cheapest to the truest.

mod layer;
mod summary;

use std::time::Instant;

use anyhow::{Result, bail};

use self::layer::Layer;
use self::summary::Summary;
use crate::bpffs::Bpffs;
use crate::{artifacts, build, setup, user};

/// Arguments of `test`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this layer; without it, set up and run all of them
    layer: Option<Layer>,
    /// Names (or parts of names) of the tests to run
    #[arg(last = true)]
    filter: Vec<String>,
}

/// Runs the verb. The last line says how many tests passed and failed.
///
/// # Errors
/// When a test fails, none ran, something does not build, or (in CI) a layer has no tests.
pub fn run(args: &Args) -> Result<()> {
    let layers = args.layer.map_or_else(|| Layer::ALL.to_vec(), |layer| vec![layer]);
    let privileged = layers.iter().any(|layer| layer.is_privileged());
    let start = Instant::now();
    let bpffs = if privileged { Some(prepare(args.layer, &layers)?) } else { None };
    let binaries = layer::compile(&layers)?;

    let mut total = Summary::default();
    let mut lines = vec![line("build", start, "")];
    let mut problems = Vec::new();
    for layer in layers {
        println!("\n== {} tests", layer.name());
        let start = Instant::now();
        let Some(result) = layer.run(&binaries, &args.filter)? else {
            let problem = format!("the {} layer has no test binaries yet", layer.name());
            println!("!! {problem}: nothing of it was tested");
            lines.push(line(layer.name(), start, "no test binaries yet"));
            if std::env::var_os("CI").is_some() {
                problems.push(problem);
            }
            continue;
        };
        lines.push(line(layer.name(), start, &result.to_string()));
        if result.ran() == 0 && args.filter.is_empty() {
            problems.push(format!("the {} layer ran no test", layer.name()));
        }
        total += result;
    }
    if total.ran() == 0 {
        problems.push("no test ran".to_owned());
    }
    // Its unmounting prints a command; the counts are to be the last line.
    drop(bpffs);
    println!("\n{}", lines.join("\n"));
    for name in &total.failures {
        println!("failed: {name}");
    }
    for problem in &problems {
        println!("error: {problem}");
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    if total.failed > 0 || !problems.is_empty() {
        bail!("the tests did not pass");
    }
    Ok(())
}

/// A line of the table at the end: what, how long it took, what came of it.
fn line(what: &str, start: Instant, result: &str) -> String {
    format!("{what:>6} {:>7.1} s  {result}", start.elapsed().as_secs_f64()).trim_end().to_owned()
}

/// What the privileged layers need; returns the guard of the BPF file system.
fn prepare(only: Option<Layer>, layers: &[Layer]) -> Result<Bpffs> {
    if only.is_none() {
        setup::everything()?;
    }
    build::everything(false, false)?;
    if layers.contains(&Layer::Netns) || layers.contains(&Layer::Vm) {
        artifacts::build_guest()?;
        user::authorise()?;
        artifacts::clean_leftovers(false)?;
    }
    Bpffs::ensure()
}
