//! The few lines of /proc/stat and /proc/vmstat that matter.

use std::io;

/// CPU time since boot, over all CPUs, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuTimes {
    /// Not idle, and not idle while waiting for IO.
    pub busy: u64,
    /// Of all kinds.
    pub total: u64,
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no `{what}` as expected"))
}

/// `cpu user nice system idle iowait irq softirq steal guest guest_nice` (proc(5)). Time of guests is in `user` and
/// `nice` already.
pub fn cpu_times(stat: &str) -> io::Result<CpuTimes> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).ok_or_else(|| bad("cpu"))?;
    let fields: Result<Vec<u64>, _> = line.split_whitespace().take(8).map(str::parse).collect();
    let fields = fields.map_err(|_| bad("cpu"))?;
    let [_, _, _, idle, iowait, ..] = fields[..] else { return Err(bad("cpu")) };
    let total = fields.iter().sum();
    Ok(CpuTimes { busy: total - idle - iowait, total })
}

/// Tasks that run or wait for a CPU, per CPU.
pub fn run_queue(stat: &str) -> io::Result<f64> {
    let running = stat.lines().find_map(|line| line.strip_prefix("procs_running "));
    let running: u64 =
        running.and_then(|text| text.trim().parse().ok()).ok_or_else(|| bad("procs_running"))?;
    let is_cpu = |line: &&str| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let cpus = stat.lines().filter(is_cpu).count();
    Ok(running as f64 / cpus.max(1) as f64)
}

/// Pages swapped in and out since boot.
pub fn swapped(vmstat: &str) -> io::Result<u64> {
    let of = |key: &str| {
        let line = vmstat.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        line.and_then(|text| text.trim().parse::<u64>().ok()).ok_or_else(|| bad(key))
    };
    Ok(of("pswpin")? + of("pswpout")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  100 20 30 400 50 1 2 3 60 0\ncpu0 50 10 15 200 25 0 1 2 30 0\n\
                        cpu1 50 10 15 200 25 1 1 1 30 0\nintr 5 6\nctxt 7\nprocs_running 3\nprocs_blocked 0\n";

    #[test]
    fn waiting_for_io_is_idle_and_guests_are_not_counted_twice() {
        assert_eq!(cpu_times(STAT).unwrap(), CpuTimes { busy: 156, total: 606 });
        assert!((run_queue(STAT).unwrap() - 1.5).abs() < 1e-9);
    }

    #[test]
    fn nonsense_is_an_error() {
        for text in ["", "cpu  1 2 3\n", "cpu  1 2 x 4 5\n", "cpu0 1 2 3 4 5\n"] {
            assert!(cpu_times(text).is_err(), "{text:?}");
        }
        assert!(run_queue("procs_running x\n").is_err());
        assert_eq!(swapped("nr_free 1\npswpin 5\npswpout 7\npswpout_x 9\n").unwrap(), 12);
        assert!(swapped("pswpin 5\n").is_err());
    }
}
