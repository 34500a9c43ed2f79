//! Where things are kept while no process holds them: `/sys/fs/bpf/lbx[-INSTANCE]/v1/`.
//!
//! ```text
//! v1/MAP                     the maps, by name
//! v1/links/DEV-xdp           links, by device and hook; their programs run for as long as they are pinned
//! v1/progs/N/                what belongs to one version of the programs: tail-call arrays, lbx_clock
//! ```
//!
//! The number is the ABI version: another layout lives beside this one. A PROG_ARRAY is emptied when its last
//! reference from user space goes, hence its pin. bpffs refuses dots in names.

use super::error::{Error, Result};
use super::{shape, sys};
use lbx_common::limits::ABI_VERSION;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Where bpffs is mounted.
pub const BPFFS: &str = "/sys/fs/bpf";
/// Source of a bpffs that lbx mounted itself: how a later `lbx detach` knows that it is ours to unmount.
const MOUNT_SOURCE: &str = "lbx";
/// What the kernel itself puts into a bpffs (kernel/bpf/preload).
const PRELOADED: [&str; 2] = ["maps.debug", "progs.debug"];
/// `BPF_FS_MAGIC` of include/uapi/linux/magic.h.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// One lbx on this machine: a name and its pin directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Instance {
    root: PathBuf,
    name: Option<String>,
}

impl Default for Instance {
    fn default() -> Self {
        Self { root: Path::new(BPFFS).join("lbx"), name: None }
    }
}

impl Instance {
    /// The default instance, or a named one.
    pub fn new(name: Option<&str>) -> Result<Self> {
        let Some(name) = name else { return Ok(Self::default()) };
        let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 32 || !name.chars().all(good) {
            return Err(Error::Instance(name.into()));
        }
        Ok(Self { root: Path::new(BPFFS).join(format!("lbx-{name}")), name: Some(name.into()) })
    }

    /// Its name, if it is not the default one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The directory of this ABI version.
    pub fn dir(&self) -> PathBuf {
        self.root.join(format!("v{ABI_VERSION}"))
    }

    /// Path of a map's pin.
    pub fn map(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// Directory of the links.
    pub fn links(&self) -> PathBuf {
        self.dir().join("links")
    }

    /// Directory of a version of the programs.
    pub fn progs(&self, version: u32) -> PathBuf {
        self.dir().join("progs").join(version.to_string())
    }

    /// Versions of the programs that have a directory, in ascending order.
    pub fn versions(&self) -> Vec<u32> {
        let mut found: Vec<u32> =
            entries(&self.dir().join("progs")).iter().filter_map(|n| n.parse().ok()).collect();
        found.sort_unstable();
        found
    }

    /// Whether anything is pinned.
    pub fn is_loaded(&self) -> bool {
        self.map("control").exists()
    }

    /// Mounts bpffs if it is not, and makes the directories.
    pub fn create(&self) -> Result<()> {
        mount_bpffs()?;
        for dir in [self.dir(), self.links(), self.dir().join("progs")] {
            fs::create_dir_all(&dir).map_err(Error::path("making", &dir))?;
        }
        Ok(())
    }

    /// Keeps another process from changing the same pins; released on drop.
    pub fn lock(&self) -> Result<Flock<File>> {
        let dir = self.dir();
        let file = File::open(&dir).map_err(Error::path("opening", &dir))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| Error::path("locking", &dir)(e.into()))
    }

    /// Opens a pinned map and checks its shape.
    pub fn open_map(&self, name: &'static str) -> Result<OwnedFd> {
        let path = self.map(name);
        let fd = sys::open_pin(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Error::NotLoaded(self.dir()),
            _ => Error::path("opening", &path)(e),
        })?;
        check_map(name, &fd)?;
        Ok(fd)
    }

    /// Checks every map that is pinned; none has to be.
    pub fn check_maps(&self) -> Result<()> {
        for shape in shape::SHAPES {
            match self.open_map(shape.name) {
                Ok(_) | Err(Error::NotLoaded(_)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Removes one version of the programs.
    pub fn remove_version(&self, version: u32) -> Result<()> {
        remove_tree(&self.progs(version))
    }

    /// Removes all pins of this ABI version, and the instance's directory with its last version; unmounts
    /// bpffs if lbx mounted it and nothing is left in it. Links still pinned are detached by this.
    pub fn remove(&self) -> Result<()> {
        remove_tree(&self.dir())?;
        // Another version may live beside this one.
        let _ = fs::remove_dir(&self.root);
        unmount_bpffs()
    }
}

/// Checks a map against its shape, if it has one.
fn check_map(name: &str, fd: &OwnedFd) -> Result<()> {
    let info = sys::map_info(fd).map_err(Error::io(format!("reading the shape of map {name}")))?;
    shape::shape(name).map_or(Ok(()), |shape| shape.check(&info))
}

/// Names in a directory; none if it is not there.
pub(crate) fn entries(dir: &Path) -> Vec<String> {
    let Ok(dir) = fs::read_dir(dir) else { return Vec::new() };
    dir.flatten().filter_map(|e| e.file_name().into_string().ok()).collect()
}

/// Removes a directory of pins; that it is gone already is fine.
pub(crate) fn remove_tree(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::path("removing", dir)(e)),
        _ => Ok(()),
    }
}

/// Removes a pin; that it is gone already is fine.
pub(crate) fn unpin(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::path("removing", path)(e)),
        _ => Ok(()),
    }
}

/// Whether bpffs is mounted where it belongs.
fn is_bpffs() -> bool {
    nix::sys::statfs::statfs(BPFFS).is_ok_and(|s| s.filesystem_type().0 == BPF_FS_MAGIC)
}

fn mount_bpffs() -> Result<()> {
    if is_bpffs() {
        return Ok(());
    }
    nix::mount::mount(
        Some(MOUNT_SOURCE),
        BPFFS,
        Some("bpf"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        Some("mode=700"),
    )
    .map_err(|e| Error::io(format!("mounting bpffs at {BPFFS}"))(e.into()))?;
    tracing::info!("mounted bpffs at {BPFFS}; `lbx detach` unmounts it");
    Ok(())
}

/// Unmounts what [`mount_bpffs`] mounted once it is empty.
fn unmount_bpffs() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").map_err(Error::io("reading the mounts"))?;
    let ours = last_mount_source(&mounts) == Some(MOUNT_SOURCE);
    let used = entries(Path::new(BPFFS)).iter().any(|name| !PRELOADED.contains(&name.as_str()));
    if !ours || used {
        return Ok(());
    }
    // A process that looks at it right now keeps it: not worth failing for.
    if let Err(e) = nix::mount::umount2(BPFFS, MntFlags::UMOUNT_NOFOLLOW) {
        tracing::warn!("bpffs at {BPFFS} stays mounted: {e}");
    }
    Ok(())
}

/// Source of the topmost mount at [`BPFFS`], from `/proc/self/mounts`.
fn last_mount_source(mounts: &str) -> Option<&str> {
    mounts.lines().rev().find_map(|line| {
        let mut fields = line.split(' ');
        let source = fields.next()?;
        (fields.next()? == BPFFS).then_some(source)
    })
}

/// The name of an interface as part of a pin's name: bpffs refuses dots.
pub(crate) fn escape(name: &str) -> String {
    name.replace('%', "%25").replace('.', "%2E")
}

/// Back from [`escape`].
pub(crate) fn unescape(name: &str) -> String {
    name.replace("%2E", ".").replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_make_directories() {
        assert_eq!(Instance::default().dir(), Path::new("/sys/fs/bpf/lbx/v1"));
        assert_eq!(Instance::new(Some("a-1")).unwrap().dir(), Path::new("/sys/fs/bpf/lbx-a-1/v1"));
        assert_eq!(Instance::default().progs(3), Path::new("/sys/fs/bpf/lbx/v1/progs/3"));
        let long = "x".repeat(33);
        for bad in ["", "..", "a/b", "a.b", "a b", &long] {
            assert!(Instance::new(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn interface_names_survive() {
        for name in ["eth0", "eth0.10", "a%2Eb", "%", "%25.", "vnet3-xdp"] {
            assert_eq!(unescape(&escape(name)), name);
            assert!(!escape(name).contains('.'));
        }
    }

    #[test]
    fn only_our_own_mount_is_ours() {
        let table = "proc /proc proc rw 0 0\nbpf /sys/fs/bpf bpf rw 0 0\n";
        assert_eq!(last_mount_source(table), Some("bpf"));
        let table = format!("{table}lbx /sys/fs/bpf bpf rw 0 0\n");
        assert_eq!(last_mount_source(&table), Some("lbx"));
        assert_eq!(last_mount_source("proc /proc proc rw 0 0\n"), None);
    }
}
