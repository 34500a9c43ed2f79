//! Time, and staying on a core.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// Keeps the calling thread, and the threads and children it will start, on one core.
pub fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("staying on core {cpu}"))
}

/// Lets the calling thread go where the scheduler wants it again.
pub fn unpin() -> Result<()> {
    let mut set = CpuSet::new();
    (0..super::machine::cpus()).try_for_each(|cpu| set.set(cpu))?;
    sched_setaffinity(Pid::from_raw(0), &set).context("leaving the core")
}

/// CPU time the calling thread has used.
pub fn thread_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// CPU time another thread has used, by its directory in /proc (Documentation/scheduler/sched-stats.rst).
pub fn time_of(task: &Path) -> Result<Duration> {
    let text = fs::read_to_string(task.join("schedstat"))?;
    let ns = text.split(' ').next().and_then(|word| word.parse().ok()).context("schedstat")?;
    Ok(Duration::from_nanos(ns))
}

/// Nanoseconds of CPU time per round of `work`, which does `rounds` of them.
pub fn per_round(rounds: u64, work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let before = thread_time()?;
    work()?;
    Ok(thread_time()?.saturating_sub(before).as_nanos() as f64 / rounds as f64)
}

/// Time on the wall that `work` takes, with what it answers.
pub fn wall<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let answer = work();
    (start.elapsed(), answer)
}
