//! Programs are verified beside each other: the kernel looks at one for up to a second, and at all of them for several.

use super::error::Result;
use super::live;
use super::load::refused;
use aya::Ebpf;
use aya::programs::Program;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// More at a time gain nothing: so many take as long as the longest.
const MOST: usize = 4;

/// Loaded elsewhere: for each port, and where this kernel lets it read queues.
const ELSEWHERE: [&str; 2] = ["lbx_xdp", live::DEPTH];

/// Loads everything but those; as many at a time as there are CPUs.
pub(super) fn all(ebpf: &mut Ebpf) -> Result<()> {
    let mut programs: Vec<_> = ebpf.programs_mut().filter(|(name, _)| !ELSEWHERE.contains(name)).collect();
    // The last is taken first.
    programs.sort_by_key(|(name, _)| std::cmp::Reverse(rank(name)));
    let programs = Mutex::new(programs);
    let next = || programs.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let worker = || {
        while let Some((name, program)) = next() {
            let loaded = match program {
                Program::Xdp(program) => program.load(),
                Program::SchedClassifier(program) => program.load(),
                // There is no other kind in the object; whoever wants it loads it.
                _ => Ok(()),
            };
            loaded.map_err(refused(name))?;
        }
        Ok(())
    };
    let workers = thread::available_parallelism().map_or(1, usize::from).min(MOST);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        let ended = workers.into_iter().map(|worker| worker.join());
        // All are waited for; the first error is told.
        let results: Vec<Result<()>> =
            ended.map(|end| end.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect();
        results.into_iter().collect()
    })
}

/// The longest first, so that none of them is left to the end: by what was measured.
fn rank(name: &str) -> usize {
    const LONG: [&str; 4] = ["_whole", "_headers", "_icmp", "lbx_tc"];
    LONG.iter().position(|end| name.ends_with(end)).unwrap_or(LONG.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_come_first() {
        let mut names =
            ["lbx_clock", "lbx_tc", "lbx_tc_whole", "lbx_xdp_icmp", "lbx_tc_headers", "lbx_xdp_whole"];
        names.sort_by_key(|name| rank(name));
        let long = ["lbx_tc_whole", "lbx_xdp_whole", "lbx_tc_headers", "lbx_xdp_icmp", "lbx_tc", "lbx_clock"];
        assert_eq!(names, long);
    }
}
