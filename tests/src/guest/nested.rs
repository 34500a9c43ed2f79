//! A guest that is itself a host of lbx: PID 1 runs the programs of its plan, one after the other, and says on the
//! second serial line what they say and how each ended.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use serde::{Deserialize, Serialize};

use super::init;

/// The plan's file in the initramfs.
pub const PLAN: &str = "/nested/plan.json";
/// The list of modules to load after those of every guest.
pub const ORDER: &str = "order-host";
/// The line that programs write to.
const OUT: &str = "/dev/ttyS1";
/// Begins the line after a program's output: its name, how it ended, its time in milliseconds.
pub const ENDED: &str = "LBX-NESTED-ENDED";
/// The last line: everything was run.
pub const DONE: &str = "LBX-NESTED-DONE";

/// What to run.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Plan {
    /// The programs' environment.
    pub env: Vec<(String, String)>,
    /// The programs, in this order.
    pub jobs: Vec<Job>,
}

/// A program.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Job {
    /// What the answer calls it; one word.
    pub name: String,
    /// Its path in the guest.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// It is killed after so many seconds.
    pub limit_s: u64,
}

/// Runs the plan to its end; a program that fails does not keep the next from running.
pub fn run() -> Result<()> {
    for name in fs::read_to_string(format!("{}/{ORDER}", init::MODULES))?.lines() {
        init::load_module(name).with_context(|| format!("module {name}"))?;
    }
    for (kind, at) in [("bpf", "/sys/fs/bpf"), ("cgroup2", "/sys/fs/cgroup")] {
        mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>)
            .or_else(|e| if e == Errno::EBUSY { Ok(()) } else { Err(e) })
            .with_context(|| format!("mounting {at}"))?;
    }
    for dir in ["/tmp", "/run", "/root"] {
        fs::create_dir_all(dir)?;
    }
    let plan: Plan = serde_json::from_slice(&fs::read(PLAN)?).context(PLAN)?;
    let mut out = File::options().write(true).custom_flags(libc::O_NOCTTY).open(OUT)?;
    for job in &plan.jobs {
        let start = Instant::now();
        let ended = run_job(job, &plan.env, &out).map_or_else(|e| format!("{e:#}"), describe);
        writeln!(out, "\n{ENDED} {} {} {ended}", job.name, start.elapsed().as_millis())?;
    }
    writeln!(out, "{DONE}")?;
    // The line is slow, and nobody waits for it when the power goes.
    nix::sys::termios::tcdrain(&out)?;
    Ok(())
}

/// `0`, another exit code, or what else happened.
fn describe(ended: Option<ExitStatus>) -> String {
    match ended {
        None => "out of time".to_owned(),
        Some(status) => match (status.code(), status.signal()) {
            (Some(code), _) => code.to_string(),
            (None, signal) => format!("signal {}", signal.unwrap_or(0)),
        },
    }
}

/// How a program ended; none when its time was up.
fn run_job(job: &Job, env: &[(String, String)], out: &File) -> Result<Option<ExitStatus>> {
    let mut child = Command::new(&job.program)
        .args(&job.args)
        .env_clear()
        .envs(env.iter().map(|(key, value)| (key, value)))
        .current_dir("/root")
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out.try_clone()?)
        .spawn()
        .with_context(|| format!("starting {}", job.program))?;
    let deadline = Instant::now() + Duration::from_secs(job.limit_s);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        sleep(Duration::from_millis(20));
    }
}
