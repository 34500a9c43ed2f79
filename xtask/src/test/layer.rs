//! One layer of tests: how it is built, as whom it runs, and for how long it may.
//!
//! A layer is one program, because each program links everything. Tests of the kernel program run in one process,
//! those with labs each in one of its own: what one leaves running, or does to its process, is no other's.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::summary::Summary;
use super::turns;
use crate::metadata::TestPackage;
use crate::process::{Cmd, Outcome};
use crate::{artifacts, build, paths};

/// The targets that hold unit tests.
const UNIT: [&str; 2] = ["--lib", "--bins"];

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

/// A finished test binary of a privileged layer.
#[derive(Debug, PartialEq, Eq)]
pub struct TestBinary {
    name: String,
    executable: PathBuf,
}

impl Layer {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Unit, Self::Bpf, Self::Netns, Self::Vm];

    /// As its test binary is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Bpf => "bpf",
            Self::Netns => "netns",
            Self::Vm => "vm",
        }
    }

    /// How long a test of it may take; of the first two all of them.
    fn limit(self) -> Duration {
        Duration::from_secs(match self {
            Self::Unit | Self::Bpf => 300,
            Self::Netns => 420,
            Self::Vm => 900,
        })
    }

    /// The test binaries it needs: tests of the vm layer run some of other layers inside a guest, and those called
    /// `nested` run nowhere else.
    fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Unit => &[],
            Self::Bpf => &["bpf"],
            Self::Netns => &["netns"],
            Self::Vm => &["bpf", "nested", "vm"],
        }
    }

    /// Runs it, out of what has been compiled. None when the layer has no tests.
    ///
    /// # Errors
    /// When something does not start, or a signal arrived; not when a test fails.
    pub fn run(self, binaries: &[TestBinary], filter: &[String]) -> Result<Option<Summary>> {
        if self == Self::Unit {
            return unit(filter).map(Some);
        }
        let Some(binary) = binaries.iter().find(|binary| binary.name == self.name()) else { return Ok(None) };
        if self == Self::Vm {
            list_nested(binaries)?;
        }
        let cmd = self.command(binary);
        if self == Self::Bpf {
            // What is loaded for one test serves the next: all in one process.
            return Ok(Some(judge(self.name(), &cmd.args(filter).tee()?)));
        }
        println!("+ {} --exact ...", cmd.line());
        let mut total = Summary::default();
        for turn in turns::of(self, turns::list(&cmd, filter)?) {
            turn.run(&cmd, |name, outcome| total += judge(name, outcome))?;
        }
        Ok(Some(total))
    }

    /// The command of its tests.
    fn command(self, binary: &TestBinary) -> Cmd {
        let cmd = Cmd::new(&binary.executable).envs(&artifacts::env(false)).env("RUST_BACKTRACE", "1");
        let cmd = if self == Self::Vm { cmd.env("LBX_NESTED_TESTS", nested_list()) } else { cmd };
        cmd.root().sweep().limit(self.limit())
    }
}

/// Where tests of the vm layer find the test binaries that they may run inside a guest, a path a line.
fn nested_list() -> PathBuf {
    paths::target().join("nested-tests")
}

fn list_nested(binaries: &[TestBinary]) -> Result<()> {
    let paths: Vec<_> = binaries.iter().map(|binary| binary.executable.to_string_lossy()).collect();
    let file = nested_list();
    std::fs::write(&file, paths.join("\n")).with_context(|| format!("write {}", file.display()))
}

/// The unprivileged tests. The kernel program has none of its own; that it compiles is checked instead.
fn unit(filter: &[String]) -> Result<Summary> {
    Cmd::cargo(["check", "-p", "lbx-ebpf"]).run()?;
    let cmd = build::cargo("test").args(UNIT).arg("--no-fail-fast").arg("--").args(filter);
    Ok(judge("cargo test", &cmd.limit(Layer::Unit.limit()).tee()?))
}

/// Counts, and makes a crash or a time-out count as a failure.
fn judge(name: &str, outcome: &Outcome) -> Summary {
    let mut sum = Summary::parse(&outcome.stdout);
    let problem = if outcome.timed_out {
        "was ended: out of time".to_owned()
    } else if !outcome.status.success() && sum.failed == 0 {
        format!("ended without a result ({})", outcome.status)
    } else {
        return sum;
    };
    println!("\n!! {name} {problem}");
    sum.failed += 1;
    sum.failures.push(format!("{name}: {problem}"));
    sum
}

/// Compiles the tests of these layers in one go, and asks cargo where the privileged ones are.
///
/// # Errors
/// When something does not build, or a signal arrived.
pub fn compile(layers: &[Layer]) -> Result<Vec<TestBinary>> {
    let package = TestPackage::read()?;
    let needed: BTreeSet<_> = layers.iter().flat_map(|layer| layer.needs()).copied().collect();
    let names: Vec<_> = needed.into_iter().filter(|name| package.has_test(name)).collect();
    let mut cmd = build::cargo("test").arg("--no-run");
    if layers.contains(&Layer::Unit) {
        cmd = cmd.args(UNIT);
    } else if names.is_empty() {
        return Ok(Vec::new());
    }
    for name in &names {
        cmd = cmd.args(["--test", name]);
    }
    let built = cmd.arg("--message-format=json-render-diagnostics").keep(true)?;
    if !built.status.success() {
        bail!("the tests did not build");
    }
    let binaries = executables(&built.stdout);
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
{"reason":"compiler-artifact","target":{"name":"vm","kind":["test"]},"executable":"/t/deps/vm-1"}
{"reason":"build-finished","success":true}
not json"#;
        let expected = TestBinary { name: "vm".to_owned(), executable: "/t/deps/vm-1".into() };
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
