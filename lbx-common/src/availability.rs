//! How much of a VM is free to take more, from 0 to 1, normalised by the host it runs on (user space only).
//!
//! The lower of two figures: what the VM itself has left, and its share of what the host has left. Three VMs at
//! half their vCPUs on a host without an idle CPU are full, not half free. A figure that a missing reading would
//! enter is made without it, and the answer says which were missing.

#[cfg(test)]
mod tests;

/// Memory in use up to here takes nothing from a VM: what is beyond is what page cache and bursts live on.
const MEMORY_FREE: f64 = 0.8;

/// What was measured of a VM. Shares are 0 to 1; `None` is not measured, or too old.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Vm {
    /// Time its vCPUs ran, of what they could have.
    pub cpu: Option<f64>,
    /// Time its vCPUs were ready and waited for a CPU.
    pub steal: Option<f64>,
    /// Memory in use.
    pub memory: Option<f64>,
    /// It migrates.
    pub migrating: bool,
}

/// What was measured of the host. Shares are 0 to 1; `None` is not measured, or too old.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Host {
    /// CPU time in use.
    pub cpu: Option<f64>,
    /// Its CPUs.
    pub cpus: Option<f64>,
    /// vCPUs of all VMs that are measured here, together.
    pub vcpus: Option<f64>,
    /// Time in which some task waited for memory.
    pub memory_pressure: Option<f64>,
    /// Time in which some task waited for IO.
    pub io_pressure: Option<f64>,
}

/// Which readings a figure had to do without; bits by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Missing(u16);

impl Missing {
    /// The metrics, by bit.
    pub const NAMES: [&'static str; 8] = [
        "vm_cpu",
        "vm_steal",
        "vm_memory",
        "host_cpu",
        "host_cpus",
        "vm_vcpus",
        "host_memory_pressure",
        "host_io_pressure",
    ];

    fn note<T>(&mut self, bit: usize, reading: Option<T>) -> Option<T> {
        if reading.is_none() {
            self.0 |= 1 << bit;
        }
        reading
    }

    /// Their names.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES
            .into_iter()
            .enumerate()
            .filter(move |(bit, _)| self.0 & (1 << bit) != 0)
            .map(|(_, name)| name)
    }

    /// Nothing was missing.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The figures, 0 to 1, and what they were made without.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Figures {
    /// What the VM has left; `None` without any reading of it.
    pub vm: Option<f64>,
    /// Its share of what the host has left; `None` without any reading of the host.
    pub host: Option<f64>,
    /// What was missing.
    pub missing: Missing,
}

impl Figures {
    /// Works them out.
    pub fn of(vm: &Vm, host: &Host) -> Self {
        let mut missing = Missing::default();
        let (cpu, steal) = (missing.note(0, vm.cpu), missing.note(1, vm.steal));
        let run = (cpu.is_some() || steal.is_some())
            .then(|| 1.0 - share(cpu.unwrap_or(0.0)) - share(steal.unwrap_or(0.0)));
        let memory = missing.note(2, vm.memory).map(|used| (1.0 - share(used)) / (1.0 - MEMORY_FREE));
        let own = lower(run, memory).map(share);

        let idle = missing.note(3, host.cpu).map(|used| 1.0 - share(used));
        let (cpus, vcpus) = (missing.note(4, host.cpus), missing.note(5, host.vcpus));
        // Idle CPUs for each vCPU; a host with more CPUs than vCPUs has no more to give than those.
        let each = match (cpus, vcpus) {
            (Some(cpus), Some(vcpus)) if vcpus > 0.0 => cpus / vcpus,
            _ => 1.0,
        };
        let idle = idle.map(|idle| idle * each);
        let memory = missing.note(6, host.memory_pressure).map(|waited| 1.0 - share(waited));
        let io = missing.note(7, host.io_pressure).map(|waited| 1.0 - share(waited));
        let left = lower(lower(idle, memory), io).map(share);
        Self { vm: own, host: left, missing }
    }

    /// Availability unless a formula says otherwise: the lower of the two, 0 while the VM migrates. `None` if
    /// nothing of the VM was measured: what is left of the host says nothing about one VM alone.
    pub fn availability(&self, migrating: bool) -> Option<f64> {
        if migrating {
            return Some(0.0);
        }
        self.vm.map(|vm| self.host.map_or(vm, |host| vm.min(host)))
    }
}

fn lower(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

/// Into 0 to 1; what is no number is 0.
fn share(value: f64) -> f64 {
    if value >= 1.0 {
        1.0
    } else if value > 0.0 {
        value
    } else {
        0.0
    }
}
