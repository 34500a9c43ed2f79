//! Somebody on the same CPU who computes for a part of the time.

use std::fs;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// It computes for its part of this, and sleeps for the rest.
const TURN: Duration = Duration::from_millis(200);

/// It goes on until this is dropped.
pub struct Neighbour {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Neighbour {
    /// Ties a process to the first CPU, and somebody with it who computes `share` of the time.
    ///
    /// # Errors
    /// There is no such process.
    pub fn start(pid: i32, share: f64) -> Result<Self> {
        let (allowed, mut first) = (sched_getaffinity(Pid::from_raw(0))?, CpuSet::new());
        let cpu = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap_or(false));
        first.set(cpu.context("no CPU at all")?)?;
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let name = thread?.file_name();
            let thread: i32 = name.to_str().and_then(|name| name.parse().ok()).context("a thread's id")?;
            sched_setaffinity(Pid::from_raw(thread), &first)?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let work = move || {
            // Without it, it is a neighbour all the same.
            let _ = sched_setaffinity(Pid::from_raw(0), &first);
            while !stopped.load(Ordering::Relaxed) {
                let begin = Instant::now();
                while begin.elapsed() < TURN.mul_f64(share) {
                    black_box((0..1000u64).sum::<u64>());
                }
                sleep(TURN.mul_f64(1.0 - share));
            }
        };
        let thread = std::thread::Builder::new().name("neighbour".into()).spawn(work)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
