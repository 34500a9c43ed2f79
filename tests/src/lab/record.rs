//! What a lab made, on disk, so that anyone can remove it: `/run/lbx-lab/ID/`.
//!
//! `owner` holds the pid and start time of the process the lab belongs to; `items` one [`Item`] per line, each
//! written before the thing it names is made. Start times (clock ticks since boot, /proc/PID/stat field 22) tell
//! a process from a later one with the same pid.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};

use super::{cleanup, process};

/// The directory of all records.
pub const ROOT: &str = "/run/lbx-lab";
/// All lab ids have this length: no id is the beginning of another.
pub const ID_LEN: usize = 6;

/// One thing to remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A named network namespace, with all links in it.
    Netns(String),
    /// A process, to be killed if it still is the one that was started.
    Process {
        /// Its pid.
        pid: i32,
        /// Its start time in clock ticks since boot.
        start: u64,
    },
    /// A directory to remove with everything in it: pins under /sys/fs/bpf, or a run directory under /run.
    Dir(PathBuf),
    /// A cgroup directory.
    Cgroup(PathBuf),
}

/// The record of one lab of this process.
#[derive(Clone, Debug)]
pub struct Record {
    id: String,
    dir: PathBuf,
    items: Arc<File>,
}

impl Record {
    /// Makes the record of a new lab with a fresh id, and has it removed when this process is told to end.
    pub fn create() -> Result<Self> {
        cleanup::install()?;
        // Another lab's end removes this directory when it finds it empty, and whatever in it has no owner yet.
        let _lock = cleanup::lock().with_context(|| format!("making {ROOT}: are you root?"))?;
        let me = std::process::id() as i32;
        let owner = format!("{me} {}\n", process::start_time(me).context("own start time")?);
        for attempt in 0..100 {
            let id = fresh_id(attempt);
            // Complete before it gets its name, also if this process is killed: a record without an owner would be
            // taken for a leftover.
            let (new, dir) = (Path::new(ROOT).join(format!(".new-{me}-{id}")), Path::new(ROOT).join(&id));
            fs::create_dir_all(&new)?;
            fs::write(new.join("owner"), &owner)?;
            fs::write(new.join("items"), "")?;
            if dir.exists() || fs::rename(&new, &dir).is_err() {
                fs::remove_dir_all(&new)?;
                continue;
            }
            let items = OpenOptions::new().append(true).open(dir.join("items"))?;
            cleanup::register(&dir);
            return Ok(Self { id, dir, items: Arc::new(items) });
        }
        bail!("no free lab id")
    }

    /// The lab's id: part of every name it gives.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The record's directory, where logs and sockets of the lab live too.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Notes an item.
    pub fn add(&self, item: &Item) -> Result<()> {
        self.with(item, || ())
    }

    /// Notes an item, then makes it with `make`. Once a signal has started the removal this blocks until the end.
    pub fn with<T>(&self, item: &Item, make: impl FnOnce() -> T) -> Result<T> {
        let _open = cleanup::gate();
        (&*self.items).write_all(format!("{item}\n").as_bytes()).context("writing the lab's record")?;
        Ok(make())
    }

    /// The file that a child appends its own [`Item::Process`] line to, between fork and exec.
    pub(super) fn items_file(&self) -> Arc<File> {
        Arc::clone(&self.items)
    }
}

impl std::fmt::Display for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Netns(name) => write!(f, "netns {name}"),
            Self::Process { pid, start } => write!(f, "process {pid} {start}"),
            Self::Dir(path) => write!(f, "dir {}", path.display()),
            Self::Cgroup(path) => write!(f, "cgroup {}", path.display()),
        }
    }
}

impl FromStr for Item {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Self> {
        let (kind, rest) = line.split_once(' ').context("an item has two words")?;
        Ok(match kind {
            "netns" => Self::Netns(rest.into()),
            "dir" => Self::Dir(rest.into()),
            "cgroup" => Self::Cgroup(rest.into()),
            "process" => {
                let (pid, start) = rest.split_once(' ').context("a process has a start time")?;
                Self::Process { pid: pid.parse()?, start: start.parse()? }
            }
            _ => bail!("unknown item {kind}"),
        })
    }
}

/// Reads the items of a record; a line cut short by the end of its writer is left out.
pub fn items(dir: &Path) -> Vec<Item> {
    let text = fs::read_to_string(dir.join("items")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// The owner of a record, if it still runs.
pub fn living_owner(dir: &Path) -> Option<i32> {
    let text = fs::read_to_string(dir.join("owner")).ok()?;
    let (pid, start) = text.trim().split_once(' ')?;
    let pid = pid.parse().ok()?;
    (process::start_time(pid) == start.parse().ok()).then_some(pid)
}

fn fresh_id(attempt: u64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    // Threads of one process may ask at one moment.
    static ASKED: AtomicU64 = AtomicU64::new(0);
    let attempt = attempt ^ (ASKED.fetch_add(1, Ordering::Relaxed) << 16);
    let seed = now.as_nanos() as u64 ^ (u64::from(std::process::id()) << 32) ^ attempt;
    let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{:06x}", mixed >> 40)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_round_trip() {
        for item in [
            Item::Netns("lbx-0a1b2c-client".into()),
            Item::Process { pid: 12, start: 3456 },
            Item::Dir("/sys/fs/bpf/lbx-0a1b2c".into()),
            Item::Cgroup("/sys/fs/cgroup/lbx-0a1b2c".into()),
        ] {
            assert_eq!(item.to_string().parse::<Item>().unwrap(), item);
        }
        for bad in ["", "netns", "process 12", "process x 1", "what ever"] {
            assert!(bad.parse::<Item>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_have_one_length() {
        for attempt in 0..1000 {
            let id = fresh_id(attempt);
            assert_eq!(id.len(), ID_LEN);
            assert!(id.bytes().all(|b| b.is_ascii_hexdigit()));
        }
    }
}
