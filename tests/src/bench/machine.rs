//! The machine that figures are from.

use std::fs;

/// Number of cores.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The core to measure on: the last one, since interrupts prefer the first.
pub fn last_cpu() -> usize {
    cpus() - 1
}

/// One line: processor, cores, kernel, and what its mitigations make of indirect calls.
pub fn describe() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map_or("?", |(_, value)| value.trim()).to_owned()
    };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let spectre =
        fs::read_to_string("/sys/devices/system/cpu/vulnerabilities/spectre_v2").unwrap_or_default();
    let retpolines = if spectre.contains("Retpolines") { ", retpolines" } else { "" };
    format!(
        "{} (family {} model {}), {} cores, {} of L2 or L3, {} GiB, Linux {}{retpolines}",
        field("model name"),
        field("cpu family"),
        field("model\t"),
        cpus(),
        field("cache size"),
        memory_gib(),
        kernel.trim(),
    )
}

/// Runnable threads right now, ours included, by /proc/loadavg: others spoil the figures.
pub fn busy() -> usize {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let running = text.split_whitespace().nth(3).and_then(|part| part.split_once('/'));
    running.and_then(|(running, _)| running.parse().ok()).unwrap_or(1)
}

/// What uses the processors besides us, in a sentence; nothing when it is quiet.
pub fn noise() -> Option<String> {
    let looks = 20;
    let others: usize = (0..looks)
        .map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            busy().saturating_sub(1)
        })
        .sum();
    let average = others as f64 / f64::from(looks);
    (average > 0.2).then(|| format!("{average:.1} other threads want a core: figures are worth little"))
}

fn memory_gib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let kib: u64 = kib.and_then(|kib| kib.trim().parse().ok()).unwrap_or(0);
    kib.div_ceil(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_a_name() {
        let name = describe();
        assert!(name.contains("Linux") && !name.contains(", 0 GiB"), "{name}");
        assert!(busy() >= 1);
        assert!(last_cpu() < cpus());
    }
}
