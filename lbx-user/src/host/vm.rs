//! Which virtual machine owns which tap: the process that holds it open, by the name on its command line.
//!
//! A name on a command line is a claim. It counts only for processes of root or of a configured user, and two
//! processes with one name are an error, not a choice. The bridge's forwarding database decides nothing here.

pub mod qmp;

mod command_line;
mod scan;

use std::fmt;

use super::links::{Kind, View};

pub use command_line::{Identity, NicOption, identity};
pub use scan::{scan, start_time};

/// A process that holds taps open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot (/proc/PID/stat field 22): tells a pid from its next user.
    pub start_time: u64,
    /// Effective user id.
    pub uid: u32,
    /// That user's name, if it has one.
    pub user: Option<String>,
    /// What it calls itself.
    pub identity: Identity,
    /// The taps of this namespace that it holds.
    pub taps: Vec<TapFds>,
}

/// A tap and the file descriptors a process holds it by: one for each queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapFds {
    /// The tap's name in this namespace.
    pub name: String,
    /// The numbers of the descriptors, ascending.
    pub fds: Vec<i32>,
}

/// A virtual machine that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vm {
    /// The name it was found by.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// That process's start time ([`Process::start_time`]).
    pub start_time: u64,
    /// Its vNICs in this namespace.
    pub taps: Vec<VmTap>,
}

/// One vNIC of a virtual machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmTap {
    /// The tap's name.
    pub nic: String,
    /// Its index.
    pub index: u32,
    /// The bridge it is on.
    pub master: Option<u32>,
    /// Queues that are open.
    pub queues: u32,
    /// The guest's MAC: from the command line, else the only one the bridge learnt behind the tap.
    pub mac: Option<[u8; 6]>,
}

/// Why a name led to no virtual machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VmError {
    /// No process of that name holds a tap here.
    NotFound,
    /// The only processes of that name run as somebody who may not own VMs.
    NotAllowed {
        /// Its process id.
        pid: u32,
        /// Who runs it.
        user: String,
    },
    /// Several processes have that name.
    Ambiguous {
        /// Their process ids.
        pids: Vec<u32>,
    },
}

impl fmt::Display for VmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("no process of that name holds a tap in this network namespace"),
            Self::NotAllowed { pid, user } => {
                write!(f, "process {pid} has that name, but runs as {user}, who is not in `daemon.vm_users`")
            }
            Self::Ambiguous { pids } => {
                let pids: Vec<_> = pids.iter().map(ToString::to_string).collect();
                write!(f, "processes {} all have that name", pids.join(" and "))
            }
        }
    }
}

impl std::error::Error for VmError {}

impl Process {
    /// Whether it may own the tap of a target: root, or one of the configured users.
    pub fn allowed(&self, vm_users: &[String]) -> bool {
        self.uid == 0 || self.user.as_ref().is_some_and(|user| vm_users.contains(user))
    }
}

/// The virtual machine called `name` (its name, UUID or id).
///
/// # Errors
/// None, several, or one of the wrong user: [`VmError`].
pub fn find(processes: &[Process], view: &View, vm_users: &[String], name: &str) -> Result<Vm, VmError> {
    let named: Vec<&Process> =
        processes.iter().filter(|process| !process.taps.is_empty() && process.identity.is(name)).collect();
    let allowed: Vec<&Process> = named.iter().copied().filter(|process| process.allowed(vm_users)).collect();
    let process = match (&allowed[..], named.first()) {
        ([process], _) => process,
        ([], None) => return Err(VmError::NotFound),
        ([], Some(stranger)) => {
            let user = stranger.user.clone().unwrap_or_else(|| format!("user {}", stranger.uid));
            return Err(VmError::NotAllowed { pid: stranger.pid, user });
        }
        (several, _) => {
            return Err(VmError::Ambiguous { pids: several.iter().map(|process| process.pid).collect() });
        }
    };
    let taps = process.taps.iter().filter_map(|tap| vm_tap(process, tap, view)).collect();
    Ok(Vm { name: name.to_owned(), pid: process.pid, start_time: process.start_time, taps })
}

fn vm_tap(process: &Process, tap: &TapFds, view: &View) -> Option<VmTap> {
    let link = view.link(&tap.name)?;
    // vhost keeps a descriptor of its own kind; what the kernel counts is the truth where it counts.
    let queues = match link.kind {
        Kind::Tap { queues } if queues > 0 => queues,
        _ => tap.fds.len() as u32,
    };
    let mac = process.identity.mac_of(tap).or_else(|| view.learnt_mac(link.index));
    Some(VmTap { nic: tap.name.clone(), index: link.index, master: link.master, queues, mac })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing;

    fn process(pid: u32, uid: u32, user: &str, args: &[&str], tap: &str) -> Process {
        Process {
            start_time: 7,
            user: Some(user.to_owned()),
            ..testing::process(pid, uid, args, &[(tap, 30)])
        }
    }

    fn view() -> View {
        let tap = |index, name: &str| testing::link(index, name, Kind::Tap { queues: 2 }, Some(1));
        View { links: vec![tap(5, "tap5"), tap(6, "tap6")], ..View::default() }
    }

    #[test]
    fn a_vm_is_found_by_name_uuid_or_id() {
        let args = [
            "qemu-system-x86_64",
            "-name",
            "guest=web-1,debug-threads=on",
            "-uuid",
            "1B4E-28BA",
            "-netdev",
            "tap,id=n0,fd=30",
            "-device",
            "virtio-net-pci,netdev=n0,mac=52:54:00:00:00:05",
        ];
        let all = [process(10, 0, "root", &args, "tap5")];
        for name in ["web-1", "1b4e-28ba"] {
            let vm = find(&all, &view(), &[], name).unwrap();
            assert_eq!((vm.pid, vm.start_time, vm.taps.len()), (10, 7, 1));
            let tap = &vm.taps[0];
            assert_eq!((tap.index, tap.queues, tap.master), (5, 2, Some(1)));
            assert_eq!(tap.mac, Some([0x52, 0x54, 0, 0, 0, 5]));
        }
        assert_eq!(find(&all, &view(), &[], "web"), Err(VmError::NotFound));
    }

    #[test]
    fn two_of_one_name_are_an_error_and_strangers_do_not_count() {
        let args = ["qemu", "-name", "web-1"];
        let users = ["libvirt-qemu".to_owned()];
        let root = process(10, 0, "root", &args, "tap5");
        let libvirt = process(11, 64_055, "libvirt-qemu", &args, "tap6");
        let stranger = process(12, 1_000, "mallory", &args, "tap6");
        let both = [root.clone(), libvirt.clone()];
        assert_eq!(find(&both, &view(), &users, "web-1"), Err(VmError::Ambiguous { pids: vec![10, 11] }));
        let one = [stranger.clone(), libvirt];
        assert_eq!(find(&one, &view(), &users, "web-1").unwrap().pid, 11);
        let refused = find(&[stranger], &view(), &users, "web-1").unwrap_err();
        assert_eq!(refused, VmError::NotAllowed { pid: 12, user: "mallory".to_owned() });
    }

    #[test]
    fn a_process_without_a_tap_here_is_no_candidate() {
        let mut elsewhere = process(10, 0, "root", &["qemu", "-name", "web-1"], "tap5");
        elsewhere.taps.clear();
        assert_eq!(find(&[elsewhere], &view(), &[], "web-1"), Err(VmError::NotFound));
    }
}
