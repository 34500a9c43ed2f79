//! The names of everything measured: formulas, the CLI, the API and the docs use these and no others.

/// What a reading is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// The physical host.
    Host,
    /// A VM, by its name.
    Vm,
    /// A target, by its full name (`service/target`).
    Target,
}

/// One kind of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// As written in formulas.
    pub name: &'static str,
    /// What it is about.
    pub about: About,
    /// Unit, as shown to people.
    pub unit: Unit,
    /// In words.
    pub what: &'static str,
}

/// Units of readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A share from 0 to 1.
    Share,
    /// A number of things.
    Count,
    /// Things per second.
    PerSecond,
    /// Bytes per second.
    BytesPerSecond,
    /// Bytes.
    Bytes,
    /// Milliseconds.
    Milliseconds,
}

impl Unit {
    /// Its name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Share => "share",
            Self::Count => "count",
            Self::PerSecond => "per_second",
            Self::BytesPerSecond => "bytes_per_second",
            Self::Bytes => "bytes",
            Self::Milliseconds => "milliseconds",
        }
    }
}

const fn metric(name: &'static str, about: About, unit: Unit, what: &'static str) -> Metric {
    Metric { name, about, unit, what }
}

/// All of them.
pub const METRICS: &[Metric] = {
    use About::{Host, Target, Vm};
    use Unit::{Bytes, BytesPerSecond, Count, Milliseconds, PerSecond, Share};
    &[
        metric("host_cpu", Host, Share, "CPU time of the host in use"),
        metric("host_runqueue", Host, Count, "tasks that run or wait for a CPU, per CPU"),
        metric("host_memory", Host, Share, "memory that is not available"),
        metric("host_nic", Host, Share, "use of the busiest uplink, of its speed, the busier way"),
        metric("host_net", Host, BytesPerSecond, "bytes through the uplinks, both ways"),
        metric("host_disk", Host, BytesPerSecond, "bytes read from and written to disks"),
        metric("host_disk_busy", Host, Share, "time in which the busiest disk had something to do"),
        metric(
            "host_memory_bandwidth",
            Host,
            BytesPerSecond,
            "between CPUs and memory, where the CPU counts it",
        ),
        metric("host_cache", Host, Bytes, "last-level cache in use, where the CPU counts it"),
        metric("host_paging", Host, BytesPerSecond, "swapped in and out by the host"),
        metric("host_cpu_pressure", Host, Share, "time in which some task waited for a CPU (PSI)"),
        metric("host_memory_pressure", Host, Share, "time in which some task waited for memory (PSI)"),
        metric("host_io_pressure", Host, Share, "time in which some task waited for IO (PSI)"),
        metric("vm_cpu", Vm, Share, "time its vCPUs ran, of what they could have"),
        metric("vm_steal", Vm, Share, "time its vCPUs were ready and waited for a CPU of the host"),
        metric("vm_vcpus", Vm, Count, "its vCPUs"),
        metric("vm_memory", Vm, Share, "memory in use, as the guest's balloon driver says"),
        metric("vm_resident", Vm, Bytes, "memory of the host that its process holds"),
        metric(
            "vm_paging",
            Vm,
            BytesPerSecond,
            "swapped in and out by the guest, as its balloon driver says",
        ),
        metric("vm_disk", Vm, BytesPerSecond, "bytes read and written by its process"),
        metric("vm_net", Vm, BytesPerSecond, "bytes through its vNICs, both ways"),
        metric("vm_qmp", Vm, Milliseconds, "round trip of a command on its QMP socket"),
        metric("queue_depth", Target, Count, "frames that wait in its vNIC's ring, the deepest queue"),
        metric("queue_fill", Target, Share, "the same, of the ring's size"),
        metric("queue_rate", Target, PerSecond, "frames taken out of its vNIC's ring"),
        metric("queue_drops", Target, PerSecond, "frames that found the ring full"),
        metric("open_flows", Target, Count, "flows recorded for it"),
        metric("response", Target, Milliseconds, "from a request to its first answer, smoothed"),
        metric("packets", Target, PerSecond, "packets steered to it"),
        metric("weight", Target, Count, "the weight the config or the operator gives it"),
        metric("healthy", Target, Share, "1 while its checks succeed, else 0"),
        metric("migrating", Vm, Share, "1 while it migrates, else 0"),
    ]
};

/// The metric of that name.
pub fn find(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_identifiers() {
        for (n, metric) in METRICS.iter().enumerate() {
            assert!(metric.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{metric:?}");
            assert_eq!(METRICS.iter().position(|other| other.name == metric.name), Some(n));
            assert_eq!(find(metric.name), Some(metric));
        }
        assert_eq!(find("load"), None);
    }
}
