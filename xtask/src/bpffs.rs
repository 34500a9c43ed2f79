//! The BPF file system: mounted for as long as it is needed, left as it was found.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::paths;
use crate::process::Cmd;

const POINT: &str = "/sys/fs/bpf";

/// Whether a BPF file system is mounted where everybody expects it.
pub fn mounted() -> bool {
    fs::read_to_string("/proc/self/mounts").is_ok_and(|mounts| is_mounted(&mounts))
}

fn is_mounted(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut words = line.split(' ').skip(1);
        words.next() == Some(POINT) && words.next() == Some("bpf")
    })
}

/// Remembers across a kill -9 that the mount is ours; worthless after a reboot, hence the boot id in it.
fn marker() -> PathBuf {
    paths::target().join("xtask-mounted-bpffs")
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

/// Unmounts on drop what it has mounted.
#[derive(Debug)]
pub struct Bpffs {
    ours: bool,
}

impl Bpffs {
    /// Mounts it unless it is there.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn ensure() -> Result<Self> {
        if mounted() {
            // Left by a killed run: taken over, and unmounted in its place.
            let ours = fs::read_to_string(marker()).is_ok_and(|id| id == boot_id());
            return Ok(Self { ours });
        }
        fs::write(marker(), boot_id()).context("cannot note that bpffs is about to be mounted")?;
        let guard = Self { ours: true };
        // -n: without it mount(8) leaves a directory of its own under /run.
        Cmd::new("mount").args(["-n", "-t", "bpf", "bpf", POINT]).root().run().with_context(|| {
            format!(
                "cannot mount the BPF file system on {POINT}; in a container, allow it or mount it outside"
            )
        })?;
        Ok(guard)
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        if self.ours {
            unmount();
        }
    }
}

/// Whether an entry is somebody's pin: the kernel puts its own two files there (kernel/bpf/preload).
fn is_pin(name: &OsStr) -> bool {
    name != "maps.debug" && name != "progs.debug"
}

/// Unmounts it, unless something is pinned there: then somebody else is using it by now.
fn unmount() {
    let in_use = || {
        fs::read_dir(POINT)
            .is_ok_and(|mut pins| pins.any(|pin| pin.is_ok_and(|pin| is_pin(&pin.file_name()))))
    };
    if mounted() && (in_use() || Cmd::new("umount").args(["-n", POINT]).root().cleanup().run().is_err()) {
        eprintln!("xtask: {POINT} is in use and stays mounted; the next run tries again");
        return;
    }
    let _ = fs::remove_file(marker());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_files_are_no_pins() {
        assert!(!is_pin(OsStr::new("maps.debug")) && !is_pin(OsStr::new("progs.debug")));
        assert!(is_pin(OsStr::new("lbx")));
    }

    #[test]
    fn only_a_bpf_mount_on_the_point_counts() {
        assert!(is_mounted("proc /proc proc rw 0 0\nbpf /sys/fs/bpf bpf rw,nosuid 0 0\n"));
        assert!(!is_mounted("none /sys/fs/bpf tmpfs rw 0 0\nbpf /mnt bpf rw 0 0\n"));
    }
}
