//! Which CPU a test's thread stays on.

use std::sync::{Mutex, PoisonError};

use nix::sched::{CpuSet, sched_setaffinity};

/// A thread's place on a CPU: per-CPU counters and rates are as exact as a fixture wants them while it stays there.
pub(super) struct Seat(usize);

/// How many have their place on each CPU.
static TAKEN: Mutex<Vec<usize>> = Mutex::new(Vec::new());

impl Seat {
    /// Keeps the calling thread on the CPU that the fewest stay on.
    pub fn take() -> Self {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.is_empty() {
            taken.resize(std::thread::available_parallelism().map_or(1, usize::from), 0);
        }
        let cpu = (0..taken.len()).min_by_key(|&cpu| taken[cpu]).unwrap_or(0);
        taken[cpu] += 1;
        drop(taken);
        let mut set = CpuSet::new();
        set.set(cpu).unwrap();
        // A cpuset may not have this one: then the kernel chooses, as before.
        let _ = sched_setaffinity(nix::unistd::Pid::from_raw(0), &set);
        Self(cpu)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        TAKEN.lock().unwrap_or_else(PoisonError::into_inner)[self.0] -= 1;
    }
}
