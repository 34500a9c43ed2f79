//! One layer of tests: how it is built, as whom it runs, and for how long it may.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::summary::Summary;
use crate::metadata::TestPackage;
use crate::process::{Cmd, Outcome};
use crate::{artifacts, build};

/// The layers, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Layer {
    /// Unprivileged tests of every crate; stable Rust is enough
    Unit,
    /// The kernel program run on packets by the kernel
    Bpf,
    /// Real sockets in network namespaces
    Netns,
    /// Real QEMU guests
    Vm,
}

/// A finished test binary.
#[derive(Debug, PartialEq, Eq)]
struct TestBinary {
    name: String,
    executable: PathBuf,
}

impl Layer {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Unit, Self::Bpf, Self::Netns, Self::Vm];

    /// As in the names of test binaries: `bpf_*`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Bpf => "bpf",
            Self::Netns => "netns",
            Self::Vm => "vm",
        }
    }

    /// Whether it needs root.
    pub fn is_privileged(self) -> bool {
        self != Self::Unit
    }

    /// How long one binary of it may take.
    fn limit(self) -> Duration {
        Duration::from_secs(match self {
            Self::Unit => 900, // one command that also compiles
            Self::Bpf => 300,
            Self::Netns => 420,
            Self::Vm => 600,
        })
    }

    /// Runs it. None when the layer has no test binaries.
    ///
    /// # Errors
    /// When something does not build, or a signal arrived; not when a test fails.
    pub fn run(self, filter: &[String]) -> Result<Option<Summary>> {
        if self == Self::Unit { unit(filter).map(Some) } else { self.privileged(filter) }
    }

    fn privileged(self, filter: &[String]) -> Result<Option<Summary>> {
        let prefix = format!("{}_", self.name());
        let package = TestPackage::read()?;
        let names = package.tests(&prefix);
        if names.is_empty() {
            return Ok(None);
        }
        let mut total = Summary::default();
        for binary in compile(&names)? {
            let mut cmd = Cmd::new(&binary.executable)
                .envs(&artifacts::env(false))
                .env("RUST_BACKTRACE", "1")
                .root()
                .sweep()
                .limit(self.limit());
            if self != Self::Bpf {
                // Labs share the machine's two cores, and what they measure suffers from company.
                cmd = cmd.arg("--test-threads=1");
            }
            total += judge(&binary.name, &cmd.args(filter).tee()?);
        }
        Ok(Some(total))
    }
}

/// The unprivileged tests. The kernel program has none of its own; that it compiles is checked instead.
fn unit(filter: &[String]) -> Result<Summary> {
    Cmd::cargo(["check", "-p", "lbx-ebpf"]).run()?;
    let cmd = Cmd::cargo(["test", "--workspace", "--exclude", "lbx-ebpf", "--no-fail-fast"]);
    let cmd = build::with_object(cmd).limit(Layer::Unit.limit()).arg("--").args(filter);
    Ok(judge("cargo test", &cmd.tee()?))
}

/// Counts, and makes a crash or a time-out count as a failure.
fn judge(name: &str, outcome: &Outcome) -> Summary {
    let mut sum = Summary::parse(&outcome.stdout);
    if outcome.timed_out {
        println!("\n!! {name} was ended: out of time");
        sum.failed += 1;
    } else if !outcome.status.success() && sum.failed == 0 {
        println!("\n!! {name} ended without a result ({})", outcome.status);
        sum.failed += 1;
    }
    sum
}

/// Builds the test binaries of these names and asks cargo where they are.
fn compile(names: &[&str]) -> Result<Vec<TestBinary>> {
    let mut cmd = Cmd::cargo(["test", "-p", "lbx-tests", "--features", "privileged", "--no-run"]);
    for name in names {
        cmd = cmd.args(["--test", name]);
    }
    cmd = cmd.arg("--message-format=json-render-diagnostics");
    let built = build::with_object(cmd).keep(true)?;
    if !built.status.success() {
        bail!("the tests did not build");
    }
    let mut binaries = executables(&built.stdout);
    binaries.sort_by(|a, b| a.name.cmp(&b.name));
    if binaries.len() != names.len() {
        bail!("cargo built {} test binaries out of {}", binaries.len(), names.len());
    }
    Ok(binaries)
}

/// The executables of tests in cargo's messages (one JSON object a line).
fn executables(messages: &str) -> Vec<TestBinary> {
    #[derive(Deserialize)]
    struct Message {
        executable: Option<PathBuf>,
        target: Option<Target>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
        kind: Vec<String>,
    }
    let message = |line| serde_json::from_str::<Message>(line).context("not a message").ok();
    messages
        .lines()
        .filter_map(message)
        .filter_map(|message| Some((message.executable?, message.target?)))
        .filter(|(_, target)| target.kind.iter().any(|kind| kind == "test"))
        .map(|(executable, target)| TestBinary { name: target.name, executable })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    #[test]
    fn only_executables_of_tests_are_taken() {
        let messages = r#"
{"reason":"compiler-artifact","target":{"name":"lbx_tests","kind":["lib"]},"executable":null}
{"reason":"compiler-artifact","target":{"name":"lbx-lab","kind":["bin"]},"executable":"/t/lbx-lab"}
{"reason":"compiler-artifact","target":{"name":"vm_lab","kind":["test"]},"executable":"/t/deps/vm_lab-1"}
{"reason":"build-finished","success":true}
not json"#;
        let expected = TestBinary { name: "vm_lab".to_owned(), executable: "/t/deps/vm_lab-1".into() };
        assert_eq!(executables(messages), [expected]);
    }

    #[test]
    fn a_crash_and_a_time_out_count_as_failures() {
        let outcome = |raw: i32, stdout: &str, timed_out| Outcome {
            status: ExitStatus::from_raw(raw),
            stdout: stdout.to_owned(),
            timed_out,
        };
        let failed = |outcome: &Outcome| judge("a test of xtask", outcome).failed;
        let ok = "test result: ok. 2 passed; 0 failed; 0 ignored;\n";
        let bad = "test result: FAILED. 2 passed; 3 failed; 0 ignored;\n";
        assert_eq!(failed(&outcome(0, ok, false)), 0);
        assert_eq!(failed(&outcome(101 << 8, bad, false)), 3);
        assert_eq!(failed(&outcome(6, "", false)), 1);
        assert_eq!(failed(&outcome(9, ok, true)), 1);
    }
}
