//! An attach that waits for its confirmation: kept as a file, so that daemon, timer and CLI agree.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
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
    /// When it is undone, in seconds since 1970.
    pub undone_at: u64,
    /// The process that will undo it; 0 until it is up.
    pub pid: u32,
    /// That process's start time (/proc/PID/stat field 22): tells a pid from its next user.
    pub start_time: u64,
}

impl Pending {
    /// As the API shows it.
    pub fn shown(&self) -> PendingAttach {
        let undone_in = self.undone_at.saturating_sub(crate::control::unix_now());
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
    let (path, next) = (file(run_dir), run_dir.join("attach-pending.json.new"));
    fs::write(&next, serde_json::to_vec(pending)?)
        .and_then(|()| fs::rename(&next, &path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Confirms: nothing is pending any more. Whether anything was.
///
/// # Errors
/// The file could not be removed.
pub fn clear(run_dir: &Path) -> Result<bool> {
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
            undone_at: crate::control::unix_now() + 60,
            pid: 7,
            start_time: 8,
        };
        write(dir.path(), &pending).unwrap();
        assert!((59..=60).contains(&pending.shown().undone_in));
        assert_eq!(read(dir.path()), Some(pending));
        assert!(clear(dir.path()).unwrap());
        assert!(!clear(dir.path()).unwrap());
    }
}
