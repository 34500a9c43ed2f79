//! Which threads of a process are vCPUs, by their names.

/// Whether a thread's name (/proc/PID/task/TID/comm) is a vCPU's.
///
/// QEMU with `debug-threads=on`, which libvirt always sets: `CPU 0/KVM`, `CPU 3/TCG`, and `ALL CPUs/TCG` for all
/// of them where they take turns (util/qemu-thread-posix.c, accel/). Cloud Hypervisor: `vcpu0`. Firecracker:
/// `fc_vcpu 0`.
pub fn is_vcpu(name: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(rest) = name.strip_prefix("CPU ") {
        return rest.split_once('/').is_some_and(|(cpu, accelerator)| number(cpu) && !accelerator.is_empty());
    }
    let other = name.strip_prefix("fc_vcpu ").or_else(|| name.strip_prefix("vcpu"));
    name == "ALL CPUs/TCG" || other.is_some_and(number)
}

/// What a thread has run, and waited for a CPU while it could have run, in nanoseconds: the first two numbers of
/// /proc/PID/task/TID/schedstat (Documentation/scheduler/sched-stats.rst).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ran {
    /// On a CPU.
    pub running: u64,
    /// On a run queue.
    pub waiting: u64,
}

/// Reads a schedstat file.
pub fn schedstat(text: &str) -> Option<Ran> {
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    Some(Ran { running: numbers.next()?.ok()?, waiting: numbers.next()?.ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vcpus_are_known_by_name() {
        for name in ["CPU 0/KVM", "CPU 17/TCG", "ALL CPUs/TCG", "vcpu3", "fc_vcpu 0"] {
            assert!(is_vcpu(name), "{name}");
        }
        for name in
            ["qemu-system-x86", "CPU 0", "CPU x/KVM", "CPU /KVM", "vcpu", "IO iothread1", "CPUs", "worker"]
        {
            assert!(!is_vcpu(name), "{name}");
        }
    }

    #[test]
    fn schedstat_is_two_numbers_and_more() {
        assert_eq!(schedstat("123 45 6\n"), Some(Ran { running: 123, waiting: 45 }));
        assert_eq!(schedstat("123\n"), None);
        assert_eq!(schedstat("a b c\n"), None);
    }
}
