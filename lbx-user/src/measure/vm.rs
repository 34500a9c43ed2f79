//! Load of each VM: from /proc, and over QMP where it has a socket for lbx. Nothing runs inside the guest.

mod balloon;
mod monitor;
mod process;
mod threads;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use lbx_common::addr::Mac;

use crate::config::{Config, Place, Target};
use crate::host::vm::Process;

pub use monitor::watch as watch_monitors;
pub use process::Vms;

/// A VM to look at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Vm {
    /// What it calls itself: its name, else its id, else its UUID; `NAME (PID)` where two share a name.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// When that started: another process with the same id is another VM.
    pub start_time: u64,
    /// Its UUID, in lower case.
    pub uuid: Option<String>,
    /// It was started to be sent a VM from elsewhere.
    pub incoming: bool,
    /// MACs of its vNICs, as far as its command line has them.
    pub macs: Vec<Mac>,
    /// Its taps in this namespace.
    pub taps: Vec<String>,
    /// A QMP socket that is lbx's alone.
    pub qmp: Option<PathBuf>,
}

/// The vCPU threads of VMs as their monitors name them: for those whose threads have no names.
#[derive(Debug, Clone, Default)]
pub struct Told(Arc<Mutex<Threads>>);

/// Thread ids by process id and start time.
type Threads = BTreeMap<(u32, u64), Vec<String>>;

impl Told {
    fn set(&self, vm: (u32, u64), threads: Vec<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(vm, threads);
    }

    fn of(&self, vm: &Vm) -> Vec<String> {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.get(&(vm.pid, vm.start_time)).cloned().unwrap_or_default()
    }

    fn keep(&self, vms: &[Vm]) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|key, _| vms.iter().any(|vm| (vm.pid, vm.start_time) == *key));
    }
}

/// The VMs of this namespace: every process of root or a configured user that holds a tap.
pub fn list(config: &Config, processes: &[Process]) -> Vec<Vm> {
    let mut vms: Vec<Vm> = processes
        .iter()
        .filter(|process| !process.taps.is_empty() && process.allowed(&config.daemon.vm_users))
        .map(|process| {
            let identity = &process.identity;
            let named = identity.name.clone().or(identity.id.clone()).or(identity.uuid.clone());
            let name = named.unwrap_or_else(|| format!("process {}", process.pid));
            let taps: Vec<String> = process.taps.iter().map(|tap| tap.name.clone()).collect();
            let qmp = own_socket(config, process).or_else(|| config.measure.qmp_of(&name));
            Vm {
                name,
                pid: process.pid,
                start_time: process.start_time,
                uuid: identity.uuid.clone(),
                incoming: identity.incoming,
                macs: identity.nics.iter().filter_map(|nic| nic.mac).collect(),
                taps,
                qmp,
            }
        })
        .collect();
    let mut names = BTreeMap::new();
    for vm in &vms {
        *names.entry(vm.name.clone()).or_insert(0) += 1;
    }
    for vm in vms.iter_mut().filter(|vm| names[&vm.name] > 1) {
        vm.name = format!("{} ({})", vm.name, vm.pid);
    }
    vms
}

/// What a target of this VM says about its socket.
fn own_socket(config: &Config, process: &Process) -> Option<PathBuf> {
    let of_process = |target: &&Target| match &target.place {
        Place::Vm(name) => process.identity.is(name),
        Place::Nic(nic) => process.taps.iter().any(|tap| tap.name == *nic),
        Place::Mac(_) => false,
    };
    let mut targets = config.services.iter().flat_map(|service| &service.targets).filter(of_process);
    targets.find_map(|target| target.qmp.clone())
}

/// The VM behind a tap.
pub fn behind<'a>(vms: &'a [Vm], nic: &str) -> Option<&'a Vm> {
    vms.iter().find(|vm| vm.taps.iter().any(|tap| tap == nic))
}

/// Their names.
pub fn names(vms: &[Vm]) -> BTreeSet<&str> {
    vms.iter().map(|vm| vm.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::process;

    #[test]
    fn vms_are_told_apart_and_their_sockets_found() {
        let text = "[measure]\nqmp = \"/run/{vm}.qmp\"\n[[switch]]\nname = \"br0\"\n[[service]]\nname = \"web\"\n\
                    switch = \"br0\"\nvip = \"192.0.2.1\"\nprotocol = \"tcp\"\nport = 80\n\
                    [[service.target]]\nvm = \"web-1\"\nqmp = \"/run/own.qmp\"\n\
                    [[service.target]]\nnic = \"tap7\"\nqmp = \"/run/seven.qmp\"\n";
        let config = Config::parse("f", text).unwrap();
        let processes = [
            process(10, 0, &["qemu", "-name", "guest=web-1"], &[("tap1", 3)]),
            process(11, 0, &["qemu", "-name", "guest=web-2"], &[("tap2", 3)]),
            process(12, 0, &["qemu", "-name", "guest=twin"], &[("tap3", 3)]),
            process(13, 0, &["qemu", "-name", "guest=twin"], &[("tap4", 3)]),
            process(14, 1_000, &["qemu", "-name", "guest=stranger"], &[("tap5", 3)]),
            process(15, 0, &["firecracker", "--id", "fc-1"], &[("tap6", 3)]),
            process(16, 0, &["mystery"], &[("tap7", 3)]),
        ];
        let vms = list(&config, &processes);
        let names: Vec<_> = vms.iter().map(|vm| vm.name.as_str()).collect();
        assert_eq!(names, ["web-1", "web-2", "twin (12)", "twin (13)", "fc-1", "process 16"]);
        let socket = |name: &str| {
            let vm = vms.iter().find(|vm| vm.name == name).unwrap();
            vm.qmp.as_ref().unwrap().display().to_string()
        };
        assert_eq!(socket("web-1"), "/run/own.qmp");
        assert_eq!(socket("web-2"), "/run/web-2.qmp");
        assert_eq!(socket("process 16"), "/run/seven.qmp");
        assert_eq!(behind(&vms, "tap2").unwrap().name, "web-2");
        assert_eq!(behind(&vms, "tap5"), None);
    }
}
