//! That a verb leaves the machine as it found it: no namespaces, pins, mounts, links or processes of ours.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Result, anyhow, bail};

use crate::process::interrupted;
use crate::{artifacts, bpffs};

/// What the machine looked like before.
#[derive(Debug)]
pub struct Traces {
    links: BTreeSet<String>,
    bpffs: bool,
}

impl Traces {
    /// Looks before anything is started; call it before the BPF file system is mounted.
    pub fn before() -> Self {
        Self { links: links(), bpffs: bpffs::mounted() }
    }

    /// Looks again after everything has ended, whatever came of it, and adds what was left to `result`.
    ///
    /// # Errors
    /// That of `result`, else when something was left behind.
    pub fn after(self, release: bool, result: Result<()>) -> Result<()> {
        let mut left: Vec<String> =
            artifacts::nothing_left(release).err().map(|e| format!("{e:#}")).into_iter().collect();
        left.extend(links().difference(&self.links).map(|link| format!("the link {link} was left behind")));
        if bpffs::mounted() && !self.bpffs {
            left.push("the BPF file system stayed mounted".to_owned());
        }
        match result {
            Ok(()) if left.is_empty() => Ok(()),
            Ok(()) => bail!("{}", left.join("; ")),
            // An interrupt keeps its exit code.
            Err(error) if interrupted(&error) => {
                for line in left {
                    eprintln!("xtask: {line}");
                }
                Err(error)
            }
            Err(error) => Err(left.into_iter().fold(error, |error, line| anyhow!("{error:#}; {line}"))),
        }
    }
}

/// The network links of this namespace.
fn links() -> BTreeSet<String> {
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
