//! /sys/fs/bpf: mounted when a lab needs it and it is not, and left as it was found.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount, umount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::cleanup;
use super::record;

/// Where it is mounted.
pub const PATH: &str = "/sys/fs/bpf";
/// Says that a lab mounted it.
const MARKER: &str = ".bpffs-mounted";

/// Mounts bpffs if it is not mounted.
pub fn ensure() -> Result<()> {
    let _lock = cleanup::lock()?;
    if is_mounted() {
        return Ok(());
    }
    fs::write(Path::new(record::ROOT).join(MARKER), "")?;
    mount(Some("bpffs"), PATH, Some("bpf"), MsFlags::empty(), None::<&str>).context("mounting bpffs")
}

/// Unmounts it if a lab mounted it, nothing is pinned there, and no lab is left. The caller holds the lock.
pub(super) fn restore() {
    let marker = Path::new(record::ROOT).join(MARKER);
    // What the kernel itself puts there (kernel/bpf/preload) does not count.
    let preloaded = |name: &std::ffi::OsStr| name == "maps.debug" || name == "progs.debug";
    let empty = || fs::read_dir(PATH).is_ok_and(|d| d.flatten().all(|e| preloaded(&e.file_name())));
    if marker.exists()
        && cleanup::records().is_empty()
        && (!is_mounted() || (empty() && umount(PATH).is_ok()))
    {
        let _ = fs::remove_file(marker);
    }
}

/// Whether bpffs is mounted at its usual place.
pub fn is_mounted() -> bool {
    statfs(PATH).is_ok_and(|s| s.filesystem_type() == BPF_FS_MAGIC)
}
