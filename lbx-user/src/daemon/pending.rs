//! An attach that waits for its confirmation: kept as a file, so that daemon, timer and CLI agree.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// An unconfirmed attach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Tells this attach from an earlier one.
    pub token: String,
    /// The switches it attached.
    pub switches: Vec<String>,
    /// When it is undone, in seconds since 1970.
    pub undone_at: u64,
}

fn file(run_dir: &Path) -> PathBuf {
    run_dir.join("attach-pending.json")
}

/// Reads it, if there is one.
pub fn read(run_dir: &Path) -> Option<Pending> {
    serde_json::from_slice(&fs::read(file(run_dir)).ok()?).ok()
}

/// Writes it.
///
/// # Errors
/// The file could not be written.
pub fn write(run_dir: &Path, pending: &Pending) -> Result<()> {
    let path = file(run_dir);
    fs::write(&path, serde_json::to_vec(pending)?).with_context(|| format!("cannot write {}", path.display()))
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
