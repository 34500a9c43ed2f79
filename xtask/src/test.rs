//! `cargo xtask test [unit|bpf|netns|vm] [-- FILTER]`: the layers of tests, from the cheapest to the truest.

mod layer;
mod summary;
mod turns;

use std::time::Instant;

use anyhow::{Result, bail};

use self::layer::{Layer, TestBinary};
use self::summary::Summary;
use crate::bpffs::Bpffs;
use crate::traces::Traces;
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

/// What came of the layers, for the end.
#[derive(Debug, Default)]
struct Report {
    total: Summary,
    lines: Vec<String>,
    problems: Vec<String>,
}

/// Runs the verb. The last line says how many tests passed and failed.
///
/// # Errors
/// When a test fails, none ran, something does not build or is left behind, or (in CI) a layer has no tests.
pub fn run(args: &Args) -> Result<()> {
    let layers = args.layer.map_or_else(|| Layer::ALL.to_vec(), |layer| vec![layer]);
    let start = Instant::now();
    let mut report = Report::default();
    if layers == [Layer::Unit] {
        let binaries = layer::compile(&layers)?;
        report.line("build", start, "");
        report.layers(&layers, &binaries, &args.filter)?;
        return report.print();
    }
    prepare(args.layer)?;
    let binaries = layer::compile(&layers)?;
    report.line("build", start, "");
    let traces = Traces::before();
    let bpffs = Bpffs::ensure()?;
    let ran = report.layers(&layers, &binaries, &args.filter);
    drop(bpffs);
    if ran.is_err() {
        return traces.after(false, ran);
    }
    report.problems.extend(traces.after(false, Ok(())).err().map(|error| format!("{error:#}")));
    report.print()
}

impl Report {
    /// A line of the table at the end: what, how long it took, what came of it.
    fn line(&mut self, what: &str, start: Instant, result: &str) {
        let line = format!("{what:>6} {:>7.1} s  {result}", start.elapsed().as_secs_f64());
        self.lines.push(line.trim_end().to_owned());
    }

    /// Runs the layers in turn.
    fn layers(&mut self, layers: &[Layer], binaries: &[TestBinary], filter: &[String]) -> Result<()> {
        for layer in layers {
            println!("\n== {} tests", layer.name());
            let start = Instant::now();
            let Some(result) = layer.run(binaries, filter)? else {
                let problem = format!("the {} layer has no test binaries yet", layer.name());
                println!("!! {problem}: nothing of it was tested");
                self.line(layer.name(), start, "no test binaries yet");
                if std::env::var_os("CI").is_some() {
                    self.problems.push(problem);
                }
                continue;
            };
            self.line(layer.name(), start, &result.to_string());
            if result.ran() == 0 && filter.is_empty() {
                self.problems.push(format!("the {} layer ran no test", layer.name()));
            }
            self.total += result;
        }
        if self.total.ran() == 0 {
            self.problems.push("no test ran".to_owned());
        }
        Ok(())
    }

    /// Prints the table, what failed and said so, and the counts; fails if anything did.
    fn print(&self) -> Result<()> {
        println!("\n{}", self.lines.join("\n"));
        for report in &self.total.reports {
            println!("\n{report}\n");
        }
        for name in &self.total.failures {
            println!("failed: {name}");
        }
        for problem in &self.problems {
            println!("error: {problem}");
        }
        println!("{} passed, {} failed", self.total.passed, self.total.failed);
        if self.total.failed > 0 || !self.problems.is_empty() {
            bail!("the tests did not pass");
        }
        Ok(())
    }
}

/// What the privileged layers need.
fn prepare(only: Option<Layer>) -> Result<()> {
    if only.is_none() {
        setup::everything()?;
    }
    build::everything(false, false)?;
    if matches!(only, None | Some(Layer::Netns | Layer::Vm)) {
        artifacts::build_guest()?;
    }
    user::authorise()?;
    artifacts::clean_leftovers(false)
}
