//! Load of the physical host, from /proc. No privileges are needed.

mod disk;
mod nic;
mod parse;
mod resctrl;

use std::io;
use std::time::Instant;

use procfs::{CpuPressure, FromBufRead, IoPressure, Meminfo, MemoryPressure};

use super::files::Files;
use super::rate::Counters;
use super::take::Taken;

pub use nic::{Speed, interfaces, speeds};

const STAT: &str = "/proc/stat";
const MEMINFO: &str = "/proc/meminfo";
const VMSTAT: &str = "/proc/vmstat";

/// Takes the host's readings, and remembers the counters between two looks.
#[derive(Debug, Default)]
pub struct Host {
    counters: Counters,
}

impl Host {
    /// One look. `uplinks` are the ports whose use counts, each with its speed.
    pub fn sample(&mut self, files: &impl Files, uplinks: &[Speed], at: Instant) -> Vec<Taken> {
        let mut taken = self.cpu(files, at);
        taken.push(Taken::new("host_memory", MEMINFO, memory(files).map(Some)));
        taken.push(Taken::new("host_paging", VMSTAT, self.paging(files, at)));
        taken.extend(nic::sample(&mut self.counters, files, uplinks, at));
        taken.extend(disk::sample(&mut self.counters, files, at));
        taken.extend(self.pressures(files, at));
        taken.extend(resctrl::sample(&mut self.counters, files, at));
        taken
    }

    fn cpu(&mut self, files: &impl Files, at: Instant) -> Vec<Taken> {
        let (times, running) = match files.text(STAT) {
            Ok(text) => (parse::cpu_times(&text), parse::run_queue(&text)),
            Err(error) => (Err(copy(&error)), Err(error)),
        };
        let share = times.map(|times| {
            let busy = self.counters.per_second("cpu busy", at, times.busy);
            let total = self.counters.per_second("cpu total", at, times.total);
            // Ticks, and both are counted by them: at short intervals there may be none.
            busy.zip(total).filter(|(_, total)| *total > 0.0).map(|(busy, total)| (busy / total).min(1.0))
        });
        vec![Taken::new("host_cpu", STAT, share), Taken::new("host_runqueue", STAT, running.map(Some))]
    }

    fn paging(&mut self, files: &impl Files, at: Instant) -> io::Result<Option<f64>> {
        let pages = parse::swapped(&files.text(VMSTAT)?)?;
        let rate = self.counters.per_second("swapped pages", at, pages);
        Ok(rate.map(|pages| pages * procfs::page_size() as f64))
    }

    /// The kernel counts the microseconds in which somebody waited: their rate is the share of the time between
    /// two looks, where its own averages lag by ten seconds (kernel/sched/psi.c).
    fn pressures(&mut self, files: &impl Files, at: Instant) -> [Taken; 3] {
        let mut share = |metric, path, total: Result<u64, String>| {
            let waited = total.map(|total| self.counters.per_second(metric, at, total));
            Taken::new(metric, path, waited.map(|waited| waited.map(|micros| (micros / 1e6).min(1.0))))
        };
        let (cpu, memory, io) = ("/proc/pressure/cpu", "/proc/pressure/memory", "/proc/pressure/io");
        [
            share("host_cpu_pressure", cpu, stalled(files, cpu, |one: CpuPressure| one.some.total)),
            share(
                "host_memory_pressure",
                memory,
                stalled(files, memory, |one: MemoryPressure| one.some.total),
            ),
            share("host_io_pressure", io, stalled(files, io, |one: IoPressure| one.some.total)),
        ]
    }
}

fn stalled<P: FromBufRead>(files: &impl Files, path: &str, total: fn(P) -> u64) -> Result<u64, String> {
    let text = files.text(path).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOENT) => "this kernel has no pressure stall information (CONFIG_PSI)".to_owned(),
        Some(libc::EOPNOTSUPP) => "it is switched off (`psi=1` on the kernel's command line)".to_owned(),
        _ => error.to_string(),
    })?;
    P::from_buf_read(text.as_bytes()).map(total).map_err(|error| error.to_string())
}

fn memory(files: &impl Files) -> Result<f64, String> {
    let text = files.text(MEMINFO).map_err(|error| error.to_string())?;
    let memory = Meminfo::from_buf_read(text.as_bytes()).map_err(|error| error.to_string())?;
    let available = memory.mem_available.ok_or("the kernel does not say MemAvailable")?;
    Ok(1.0 - available as f64 / memory.mem_total.max(1) as f64)
}

/// [`io::Error`] cannot be cloned.
fn copy(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

#[cfg(test)]
mod tests;
