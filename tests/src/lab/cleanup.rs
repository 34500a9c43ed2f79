//! Removing labs: one's own on drop, panic and signals; those of dead owners by [`gc`].
//!
//! There is one way of removing, and it works from the [`record`] alone, so that the way after a `kill -9` is
//! the one that every normal end has already tested.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, Once, RwLock, RwLockReadGuard};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, killpg, raise, sigaction};
use nix::unistd::Pid;

use super::record::{self, ID_LEN, Item};
use super::{bpffs, netns, process};

/// The labs of this process.
static OWN: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
/// Held for reading while something is made, for writing for ever once a signal has come.
static GATE: RwLock<()> = RwLock::new(());
/// The end of the pipe that the signal handler writes to.
static SIGNALLED: AtomicI32 = AtomicI32::new(-1);

/// Makes this process remove its labs when it is interrupted or panics without unwinding. Can be repeated.
pub fn install() -> Result<()> {
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| result = install_once());
    result
}

fn install_once() -> Result<()> {
    let (read, write): (OwnedFd, OwnedFd) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    SIGNALLED.store(write.as_raw_fd(), Ordering::SeqCst);
    // The handler may run until the process ends.
    std::mem::forget(write);
    std::thread::Builder::new().name("lab-signals".into()).spawn(move || {
        let mut number = [0];
        while nix::unistd::read(&read, &mut number) != Ok(1) {}
        let closed = GATE.write();
        let _ = writeln!(std::io::stderr(), "lab: removing everything");
        remove_own();
        // End the way the sender of the signal expects.
        if let Ok(signal) = Signal::try_from(i32::from(number[0])) {
            // SAFETY: the default action runs no code of this process.
            let _ = unsafe {
                sigaction(signal, &SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty()))
            };
            let _ = raise(signal);
        }
        drop(closed);
        std::process::exit(1);
    })?;
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let action = SigAction::new(SigHandler::Handler(on_signal), SaFlags::SA_RESTART, SigSet::empty());
        // SAFETY: the handler only loads an atomic and calls write(2), both async-signal-safe.
        unsafe { sigaction(signal, &action) }?;
    }
    if cfg!(panic = "abort") {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            report(info);
            remove_own();
        }));
    }
    Ok(())
}

extern "C" fn on_signal(number: i32) {
    let byte = number as u8;
    // SAFETY: write(2) of one byte that lives on this stack; the descriptor is never closed.
    unsafe { libc::write(SIGNALLED.load(Ordering::SeqCst), (&raw const byte).cast(), 1) };
}

/// Held while something is made; blocks for ever once the removal has begun.
pub(super) fn gate() -> RwLockReadGuard<'static, ()> {
    GATE.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Has a lab removed with this process.
pub(super) fn register(dir: &Path) {
    OWN.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(dir.into());
}

fn remove_own() {
    // Not a lock that a panicking thread could hold for good.
    let own = OWN.try_lock().map(|own| own.clone()).unwrap_or_default();
    for dir in own {
        if let Err(e) = remove(&dir) {
            let _ = writeln!(std::io::stderr(), "lab: {e:#}");
        }
    }
}

/// Removes one lab by its record: processes, pins, namespaces, run directories, and last the record.
pub fn remove(dir: &Path) -> Result<()> {
    let Some(id) = dir.file_name().and_then(|n| n.to_str()).filter(|n| n.len() == ID_LEN) else {
        return Ok(());
    };
    let items = record::items(dir);
    end_processes(&items);
    let mut failed = Vec::new();
    for item in &items {
        let done = match item {
            Item::Process { .. } => Ok(()),
            // A record is a file that anyone with root can edit: remove only what bears the lab's id.
            Item::Netns(name) if name.starts_with(&format!("lbx-{id}-")) => netns::remove(name),
            Item::Dir(path) if bears_id(path, id) => remove_dir(path),
            Item::Cgroup(path) if bears_id(path, id) => fs::remove_dir(path).or_else(gone).context("cgroup"),
            other => {
                let _ =
                    writeln!(std::io::stderr(), "lab {id}: left alone, does not bear the lab's id: {other}");
                Ok(())
            }
        };
        failed.extend(done.err().map(|e| format!("{e:#}")));
    }
    for pins in pins_of(id) {
        failed.extend(remove_dir(&pins).err().map(|e| format!("{e:#}")));
    }
    if !failed.is_empty() {
        anyhow::bail!("lab {id}: {}", failed.join("; "));
    }
    fs::remove_dir_all(dir).or_else(gone).with_context(|| format!("removing {}", dir.display()))?;
    if let Ok(mut own) = OWN.try_lock() {
        own.retain(|d| d != dir);
    }
    let lock = lock()?;
    bpffs::restore();
    // Both succeed only when nothing is left in them.
    let _ = fs::remove_dir(record::ROOT);
    let _ = fs::remove_dir(netns::DIR);
    drop(lock);
    Ok(())
}

/// Removes every lab whose owner is gone; the ids removed.
pub fn gc() -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for dir in records() {
        if record::living_owner(&dir).is_some() {
            continue;
        }
        match remove(&dir) {
            Ok(()) => removed.extend(dir.file_name().map(|n| n.to_string_lossy().into_owned())),
            // One lab that cannot be removed must not keep the others from being removed, nor a new one from
            // starting; it is tried again next time.
            Err(e) => {
                let _ = writeln!(std::io::stderr(), "lab: {e:#}");
            }
        }
    }
    // Records that never got their name hold nothing yet. Whoever makes one right now holds the lock.
    if !Path::new(record::ROOT).exists() {
        return Ok(removed);
    }
    let _lock = lock()?;
    for entry in fs::read_dir(record::ROOT).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(".new-")
            && record::living_owner(&entry.path()).is_none()
        {
            fs::remove_dir_all(entry.path()).or_else(gone)?;
        }
    }
    bpffs::restore();
    let _ = fs::remove_dir(record::ROOT);
    Ok(removed)
}

/// The directories of all records.
pub(super) fn records() -> Vec<PathBuf> {
    let entries = fs::read_dir(record::ROOT).into_iter().flatten().flatten();
    entries.map(|e| e.path()).filter(|p| p.file_name().is_some_and(|n| n.len() == ID_LEN)).collect()
}

/// Excludes other labs from what all share (bpffs). Taken on the directory itself: no lock file stays behind.
pub(super) fn lock() -> Result<Flock<File>> {
    loop {
        // Not `create_dir_all`: that fails when the directory is removed between its being there and being looked at.
        fs::create_dir(record::ROOT).or_else(there)?;
        let dir = match File::open(record::ROOT) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            dir => dir?,
        };
        let locked = Flock::lock(dir, FlockArg::LockExclusive).map_err(|(_, e)| e)?;
        // Whoever had it before may have removed the directory: a lock on what has no name excludes nobody.
        let named = fs::metadata(record::ROOT).is_ok_and(|now| {
            locked.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (now.dev(), now.ino()))
        });
        if named {
            return Ok(locked);
        }
    }
}

fn end_processes(items: &[Item]) {
    let alive = || {
        items.iter().filter_map(|item| match item {
            Item::Process { pid, start } if process::start_time(*pid) == Some(*start) => {
                Some(Pid::from_raw(*pid))
            }
            _ => None,
        })
    };
    let deadline = Instant::now() + Duration::from_secs(5);
    while alive().next().is_some() && Instant::now() < deadline {
        for pid in alive() {
            // A process of the lab leads a group with all that it starts itself.
            let _ = killpg(pid, Signal::SIGKILL);
        }
        sleep(Duration::from_millis(10));
    }
}

/// Whether a path is `DIR/lbx-[LETTERS]ID[-...]` in one of the directories a lab puts things into.
///
/// A test may put letters (no hexadecimal digit, or it could spell another lab's id) in front of the id, to have
/// several instances in one lab.
fn bears_id(path: &Path, id: &str) -> bool {
    let parent = path.parent().and_then(Path::to_str).unwrap_or_default();
    let name =
        path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_prefix("lbx-")).unwrap_or_default();
    let name = name.trim_start_matches(|c: char| c.is_ascii_lowercase() && !c.is_ascii_hexdigit());
    (parent == bpffs::PATH || parent == "/run" || parent.starts_with("/sys/fs/cgroup"))
        && name.strip_prefix(id).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

fn pins_of(id: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(bpffs::PATH).into_iter().flatten().flatten();
    entries.map(|e| e.path()).filter(|p| bears_id(p, id)).collect()
}

fn remove_dir(path: &Path) -> Result<()> {
    fs::remove_dir_all(path).or_else(gone).with_context(|| format!("removing {}", path.display()))
}

/// What is there already need not be made.
fn there(e: std::io::Error) -> std::io::Result<()> {
    if e.kind() == std::io::ErrorKind::AlreadyExists { Ok(()) } else { Err(e) }
}

/// What is gone already need not be removed.
fn gone(e: std::io::Error) -> std::io::Result<()> {
    if e.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(e) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_labs_own_directories_bear_its_id() {
        assert!(bears_id(Path::new("/sys/fs/bpf/lbx-0a1b2c"), "0a1b2c"));
        assert!(bears_id(Path::new("/run/lbx-0a1b2c-host2"), "0a1b2c"));
        assert!(bears_id(Path::new("/sys/fs/bpf/lbx-t0a1b2c"), "0a1b2c"));
        for other in [
            "/run/lbx-0a1b2cd",
            "/run/lbx",
            "/",
            "/run/0a1b2c",
            "/sys/fs/bpf/lbx-0a1b2c/..",
            "/etc/lbx-0a1b2c",
        ] {
            assert!(!bears_id(Path::new(other), "0a1b2c"), "{other}");
        }
    }
}
