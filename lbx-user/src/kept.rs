//! What a daemon leaves in its run directory for the one after it.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Which boot of the machine this is. What was kept in another is about processes and times that are no more, and a run
/// directory that is no tmpfs would keep it for ever.
pub(crate) fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Writes a file in one step: whoever reads it finds the old or the new content, also after this process was killed. It
/// is not forced to a disk: what is kept is of no use after another boot, and a run directory that is no tmpfs would have
/// the daemon wait for a disk that others keep busy, while packets wait for the daemon.
///
/// # Errors
/// It could not be written; what was there stays.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let next = path.with_added_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&next)?;
    file.write_all(bytes)?;
    fs::rename(&next, path)
}
