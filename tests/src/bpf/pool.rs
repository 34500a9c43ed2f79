//! Loaded datapaths that are used again. Most of a test over one would be loading it: the verifier takes seconds for
//! all the programs. Who gives one back leaves maps behind in which anything may be; they are put back, whole, to what
//! was in them right after loading.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};

use anyhow::{Context, Result, bail};
use lbx_user::datapath::{self, Datapath, Instance, Options, RawMap};

use crate::lab::cleanup;
use crate::lab::record::Record;

/// `enum bpf_map_type`, as far as the datapath goes.
mod kind {
    pub const HASH: u32 = 1;
    pub const PROGRAMS: u32 = 3;
    pub const LRU_HASH: u32 = 9;
    pub const DEVICES: u32 = 14;
    pub const CPUS: u32 = 16;
    pub const RING: u32 = 27;
}

/// How many wait to be used again, at most.
const MOST: usize = 6;

/// What is there once and used by one test after the other.
pub(super) struct Loaded {
    pub datapath: Datapath,
    pub instance: Instance,
    record: Record,
    key: String,
    kept: Vec<Kept>,
}

/// A map, and what is to be in it.
struct Kept {
    name: String,
    map: RawMap,
    /// All values of an array; other maps have nothing in them.
    values: Option<Vec<u8>>,
}

static IDLE: Mutex<Vec<Loaded>> = Mutex::new(Vec::new());

/// One that waits, loaded with these options; none if there is none.
pub(super) fn take(options: &Options) -> Option<Loaded> {
    let key = format!("{options:?}");
    let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
    let at = idle.iter().position(|one| one.key == key)?;
    Some(idle.remove(at))
}

/// Puts everything back and has it wait, in place of what has waited longest.
pub(super) fn give(mut loaded: Loaded) -> Result<()> {
    for at in datapath::list(&loaded.instance)? {
        loaded.datapath.detach(&at.device, at.point)?;
    }
    loaded.restore()?;
    remove_at_the_end();
    let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
    idle.push(loaded);
    let old = (idle.len() > MOST).then(|| idle.remove(0));
    drop(idle);
    drop(old);
    Ok(())
}

/// What waits when the process ends is nobody's: statics are not dropped.
fn remove_at_the_end() {
    extern "C" fn remove() {
        IDLE.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the function takes nothing and does not unwind: what it drops reports its errors and goes on.
        let registered = unsafe { libc::atexit(remove) };
        assert_eq!(registered, 0, "no memory to register what runs at the end");
    });
}

impl Loaded {
    /// Of what was just loaded, before anything was written into it.
    pub fn new(datapath: Datapath, record: Record, options: &Options) -> Result<Self> {
        let instance = datapath.instance().clone();
        let kept = keep(&instance)?;
        Ok(Self { datapath, instance, record, key: format!("{options:?}"), kept })
    }

    /// Puts every map back.
    pub fn restore(&self) -> Result<()> {
        for Kept { name, map, values } in &self.kept {
            let put = match values {
                Some(values) => map.write_all(values),
                None => map.clear(),
            };
            put.with_context(|| format!("putting {name} back"))?;
        }
        let mut events = self.datapath.maps().events().context("events")?;
        while events.next_event().is_some() {}
        Ok(())
    }

    /// The names of the maps that hold anything else than after loading.
    pub fn changed(&self) -> Result<Vec<String>> {
        let mut changed = Vec::new();
        for Kept { name, map, values } in &self.kept {
            let same = match values {
                Some(values) => map.read_all().with_context(|| name.clone())? == *values,
                None => map.is_empty().with_context(|| name.clone())?,
            };
            if !same {
                changed.push(name.clone());
            }
        }
        Ok(changed)
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // Pinned links outlive the namespace.
        if let Err(e) = datapath::detach_all(&self.instance) {
            eprintln!("detaching {:?}: {e}", self.instance);
        }
        let _ = cleanup::remove(self.record.dir());
    }
}

/// Reads all maps that are pinned.
fn keep(instance: &Instance) -> Result<Vec<Kept>> {
    let mut kept = Vec::new();
    for pin in pins(&instance.dir())? {
        let name = pin.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(map) = RawMap::open(&pin).with_context(|| pin.display().to_string())? else { continue };
        let values = match map.info().map_type {
            _ if map.is_array() => Some(map.read_all().with_context(|| name.clone())?),
            kind::HASH | kind::LRU_HASH | kind::DEVICES | kind::CPUS => None,
            // Written by the loader alone, and read to its end.
            kind::PROGRAMS | kind::RING => continue,
            other => bail!("the map {name} is of type {other}: how is it put back?"),
        };
        kept.push(Kept { name, map, values });
    }
    Ok(kept)
}

/// Everything pinned below a directory.
fn pins(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(pins(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    Ok(found)
}
