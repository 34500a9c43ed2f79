//! Threads that a queue waits for: they go before others, and give the CPU back soon.

use std::io;

/// Their nice value.
const NICE: i32 = -10;
/// Nanoseconds that they ask for at a time: since Linux 6.12 the scheduler serves short requests early (`slice` of
/// kernel/sched/fair.c).
const SLICE: u64 = 200_000;
/// The same of threads that only pass on what must not wait, and go before the daemon's loop, which has more to do. The
/// scheduler grants no less.
const SHORT: u64 = 100_000;

/// `struct sched_attr` (include/uapi/linux/sched/types.h), its first version.
#[repr(C)]
struct Attr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Has the calling thread go before others. Threads that it makes afterwards do too.
///
/// # Errors
/// Without `CAP_SYS_NICE` a thread only goes as far forward as it already is, or as `RLIMIT_NICE` lets it.
pub fn prompt() -> io::Result<()> {
    ask_for(SLICE)
}

fn ask_for(slice: u64) -> io::Result<()> {
    let attr = Attr {
        size: size_of::<Attr>() as u32,
        policy: libc::SCHED_OTHER as u32,
        flags: 0,
        nice: NICE,
        priority: 0,
        runtime: slice,
        deadline: 0,
        period: 0,
    };
    // SAFETY: the kernel reads `size` bytes of an initialised structure of that size; 0 is the calling thread.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The same, where not being allowed to changes nothing else.
pub fn try_prompt(who: &str) {
    say(who, prompt());
}

/// Has the calling thread go before those too, if that is allowed.
pub fn try_first(who: &str) {
    say(who, ask_for(SHORT));
}

fn say(who: &str, done: io::Result<()>) {
    if let Err(error) = done {
        tracing::debug!("{who} goes no further forward than others: {error}");
    }
}

/// CPU time that the calling thread has used.
pub fn cpu_time() -> std::time::Duration {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Into::into).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_goes_forward_or_says_why_not() {
        let thread = std::thread::spawn(|| {
            let told = prompt().and_then(|()| ask_for(SHORT));
            // SAFETY: getpriority has no preconditions; 0 is the calling thread.
            (told, unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) })
        });
        match thread.join().unwrap() {
            (Ok(()), nice) => assert_eq!(nice, NICE),
            (Err(error), _) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}"),
        }
        let before = cpu_time();
        let work: u64 = std::hint::black_box(0..3_000_000).map(std::hint::black_box).sum();
        assert!(work > 0 && cpu_time() > before);
    }
}
