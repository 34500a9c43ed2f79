//! An attach that waits for its confirmation: kept as a file, so that daemon, timer and CLI agree.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::api::model::PendingAttach;

/// An unconfirmed attach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Tells this attach from an earlier one.
    pub token: String,
    /// The switches it attached.
    pub switches: Vec<String>,
    /// Their ports.
    pub ports: Vec<String>,
    /// Seconds from the end of the attach until it is undone.
    pub seconds: u64,
    /// When it is undone, in seconds since the machine was started; 0 until the attach has come to its end.
    pub undone_at: u64,
    /// The process that attaches.
    pub attaching: u32,
    /// The process that will undo it; 0 until it is up.
    pub pid: u32,
    /// That process's start time (/proc/PID/stat field 22): tells a pid from its next user.
    pub start_time: u64,
}

impl Pending {
    /// As the API shows it.
    pub fn shown(&self) -> PendingAttach {
        let undone_in = match self.undone_at {
            0 => self.seconds,
            at => at.saturating_sub(crate::control::boot_now()),
        };
        PendingAttach { switches: self.switches.clone(), undone_in }
    }
}

fn file(run_dir: &Path) -> PathBuf {
    run_dir.join("attach-pending.json")
}

/// Reads it, if there is one.
pub fn read(run_dir: &Path) -> Option<Pending> {
    serde_json::from_slice(&fs::read(file(run_dir)).ok()?).ok()
}

/// Writes it in one step.
///
/// # Errors
/// The file could not be written.
pub fn write(run_dir: &Path, pending: &Pending) -> Result<()> {
    let path = file(run_dir);
    crate::kept::replace(&path, &serde_json::to_vec(pending)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Changes what is written, unless it is gone or about another attach by now. Whether it was changed.
///
/// # Errors
/// The file could not be written.
pub fn change(run_dir: &Path, token: &str, change: impl FnOnce(&mut Pending)) -> Result<bool> {
    let _lock = lock(run_dir)?;
    let Some(mut waiting) = read(run_dir).filter(|waiting| waiting.token == token) else { return Ok(false) };
    change(&mut waiting);
    write(run_dir, &waiting)?;
    Ok(true)
}

/// Keeps a change from bringing back what is taken away at the same time.
fn lock(run_dir: &Path) -> Result<Flock<fs::File>> {
    let dir = fs::File::open(run_dir).with_context(|| format!("cannot open {}", run_dir.display()))?;
    let locked = Flock::lock(dir, FlockArg::LockExclusive).map_err(|(_, error)| error);
    locked.with_context(|| format!("cannot lock {}", run_dir.display()))
}

/// Confirms: nothing is pending any more. Whether anything was.
///
/// # Errors
/// The file could not be removed.
pub fn clear(run_dir: &Path) -> Result<bool> {
    if !run_dir.exists() {
        return Ok(false);
    }
    let _lock = lock(run_dir)?;
    match fs::remove_file(file(run_dir)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", file(run_dir).display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_takes_it_away() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), None);
        let pending = Pending {
            token: "1".into(),
            switches: vec!["br0".into()],
            ports: vec!["up0".into()],
            seconds: 60,
            undone_at: 0,
            attaching: 6,
            pid: 7,
            start_time: 8,
        };
        write(dir.path(), &pending).unwrap();
        assert_eq!(pending.shown().undone_in, 60, "it has not begun");
        assert_eq!(read(dir.path()), Some(pending));
        let begin = |pending: &mut Pending| pending.undone_at = crate::control::boot_now() + 60;
        assert!(!change(dir.path(), "2", begin).unwrap());
        assert!(change(dir.path(), "1", begin).unwrap());
        assert!((59..=60).contains(&read(dir.path()).unwrap().shown().undone_in));
        assert!(clear(dir.path()).unwrap());
        assert!(!clear(dir.path()).unwrap());
        assert!(!change(dir.path(), "1", begin).unwrap(), "what was confirmed does not come back");
        assert_eq!(read(dir.path()), None);
    }
}
