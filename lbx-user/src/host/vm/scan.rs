//! Find the processes that hold taps of this network namespace, from /proc.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Process, TapFds, identity};

/// TUNGETDEVNETNS, _IO('T', 227) (include/uapi/linux/if_tun.h, Linux 5.2).
const TUNGETDEVNETNS: libc::c_ulong = 0x54e3;

/// Every process that holds a tap of this thread's network namespace, in the order of their ids.
///
/// Sees the processes of the pid namespace whose /proc is mounted. Without the right to look into a process
/// (root, or CAP_SYS_PTRACE), that process is not in the list.
///
/// # Errors
/// /proc cannot be read at all.
pub fn scan() -> io::Result<Vec<Process>> {
    let here = namespace(Path::new("/proc/thread-self/ns/net"))?;
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry.ok().and_then(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) else {
            continue;
        };
        // A process may end at any moment; then it is not in the list.
        if let Some(process) = process(pid, here) {
            processes.push(process);
        }
    }
    processes.sort_by_key(|process| process.pid);
    Ok(processes)
}

/// What tells a namespace from all others: the device and inode of its file.
type Namespace = (u64, u64);

fn namespace(path: &Path) -> io::Result<Namespace> {
    let meta = fs::metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

fn process(pid: u32, here: Namespace) -> Option<Process> {
    let root = format!("/proc/{pid}");
    let taps = taps(pid, &root, here);
    if taps.is_empty() {
        return None;
    }
    let uid = effective_uid(&fs::read_to_string(format!("{root}/status")).ok()?)?;
    let user = nix::unistd::User::from_uid(uid.into()).ok().flatten().map(|user| user.name);
    let start_time = start_time(&fs::read_to_string(format!("{root}/stat")).ok()?)?;
    let args = fs::read(format!("{root}/cmdline")).ok()?;
    let args: Vec<String> =
        args.split(|byte| *byte == 0).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect();
    Some(Process { pid, start_time, uid, user, identity: identity(&args), taps })
}

fn taps(pid: u32, root: &str, here: Namespace) -> Vec<TapFds> {
    let mut taps: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for entry in fs::read_dir(format!("{root}/fd")).into_iter().flatten().flatten() {
        let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // Looking at the link first spares reading fdinfo of every file of every process.
        if fs::read_link(entry.path()).is_ok_and(|to| to == Path::new("/dev/net/tun")) {
            let info = fs::read_to_string(format!("{root}/fdinfo/{fd}")).unwrap_or_default();
            if let Some(name) = interface(&info).filter(|_| is_here(pid, root, fd, here)) {
                taps.entry(name.to_owned()).or_default().push(fd);
            }
        }
    }
    taps.into_iter()
        .map(|(name, mut fds)| {
            fds.sort_unstable();
            TapFds { name, fds }
        })
        .collect()
}

/// `iff:\ttap0` of a tun file's fdinfo (tun_chr_show_fdinfo in drivers/net/tun.c); absent until it is attached.
fn interface(info: &str) -> Option<&str> {
    info.lines().find_map(|line| line.strip_prefix("iff:")).map(str::trim).filter(|name| !name.is_empty())
}

/// Whether the tap behind a descriptor is in this namespace. The name alone does not say: two namespaces may
/// both have a tap0. Where the kernel will not tell, the process's own namespace stands in for the tap's.
fn is_here(pid: u32, root: &str, fd: i32, here: Namespace) -> bool {
    let of_tap = tap_namespace(pid, fd);
    of_tap.or_else(|_| namespace(Path::new(&format!("{root}/ns/net")))).is_ok_and(|found| found == here)
}

fn tap_namespace(pid: u32, fd: i32) -> io::Result<Namespace> {
    // SAFETY: pidfd_open takes no pointers; the result is checked by `owned`.
    let process = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: pidfd_getfd takes no pointers; it duplicates the other process's descriptor into this one.
    let tap = owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) })?;
    // SAFETY: TUNGETDEVNETNS takes no argument and returns a new descriptor; on any other kind of file the
    // ioctl fails. `tap` is open for the duration of the call.
    let of_tap = owned(unsafe { libc::ioctl(tap.as_raw_fd(), TUNGETDEVNETNS as _) }.into())?;
    let meta = fs::File::from(of_tap).metadata()?;
    Ok((meta.dev(), meta.ino()))
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the system calls above return a new descriptor that nobody else knows of.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}

/// `Uid:\treal\teffective\tsaved\tfs` of /proc/PID/status.
fn effective_uid(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

/// Field 22 of /proc/PID/stat. The second field is a name in brackets that may hold anything, brackets included.
pub fn start_time(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_read_by_their_fields() {
        assert_eq!(interface("pos:\t0\nflags:\t0104002\niff:\ttap0\n"), Some("tap0"));
        assert_eq!(interface("pos:\t0\n"), None);
        assert_eq!(effective_uid("Name:\tx\nUid:\t0\t64055\t0\t0\n"), Some(64_055));
        let stat =
            format!("7 (a) (b)) S {} 4242 1 2", (1..19).map(|n| n.to_string()).collect::<Vec<_>>().join(" "));
        assert_eq!(start_time(&stat), Some(4242));
    }

    #[test]
    fn this_process_is_readable() {
        let own = std::process::id();
        let stat = fs::read_to_string(format!("/proc/{own}/stat")).unwrap();
        assert!(start_time(&stat).unwrap() > 0);
        let here = namespace(Path::new("/proc/thread-self/ns/net")).unwrap();
        assert!(process(own, here).is_none(), "a test holds no tap");
    }
}
