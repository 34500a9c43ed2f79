//! What was told and heard of migrations, on disk: a daemon that starts again goes on where the last one was, tells
//! the end of what that one began, and hears no step twice.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use lbx_common::migration::Micros;
use serde::{Deserialize, Serialize};

use super::account::{Account, Ledger, Seen};
use crate::kept::{boot, replace};

/// File name within the run directory.
const FILE: &str = "peers.json";
/// Layout of the file.
const SCHEMA: u32 = 1;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    schema: u32,
    /// Times are counted from it.
    boot: String,
    told: Vec<(Micros, Account)>,
    seen: BTreeMap<String, Seen>,
}

/// Reads it. Without the file, or with one of another boot or that makes no sense, there is nothing to go on with.
pub(super) fn load(run_dir: &Path) -> (Ledger, BTreeMap<String, Seen>) {
    let bytes = fs::read(run_dir.join(FILE)).unwrap_or_default();
    let kept: Kept = serde_json::from_slice(&bytes).unwrap_or_default();
    if kept.schema != SCHEMA || kept.boot != boot() {
        return Default::default();
    }
    (Ledger::of(kept.told), kept.seen)
}

/// Writes it in one step.
///
/// # Errors
/// The file could not be written.
pub(super) fn save(run_dir: &Path, ledger: &Ledger, seen: &BTreeMap<String, Seen>) -> Result<()> {
    let path = run_dir.join(FILE);
    let kept = Kept { schema: SCHEMA, boot: boot(), told: ledger.dated().to_vec(), seen: seen.clone() };
    replace(&path, &serde_json::to_vec(&kept)?).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use lbx_common::migration::{Event, Source, What};

    use super::*;
    use crate::peers::message::VmHere;

    #[test]
    fn a_new_daemon_knows_what_the_last_one_did() {
        let dir = tempfile::tempdir().unwrap();
        let (mut ledger, mut seen) = load(dir.path());
        assert!(ledger.list().is_empty() && seen.is_empty(), "nothing yet");
        let vm = VmHere { name: "web-1".into(), uuid: None, macs: Vec::new(), runs: None, holds: false };
        ledger.note(7, vm.clone(), &Event::new(What::Announced, Source::Qmp, 1), "a");
        assert_eq!(seen.entry("b".into()).or_default().news(&ledger.list()).len(), 1);
        save(dir.path(), &ledger, &seen).unwrap();

        let (mut again, mut seen) = load(dir.path());
        assert_eq!(again.list(), ledger.list());
        again.note(8, vm, &Event::new(What::Failed, Source::Qmp, 2), "a");
        let list = again.list();
        let news = seen.get_mut("b").unwrap().news(&list);
        assert_eq!(news.iter().map(|(_, step)| step.what.as_str()).collect::<Vec<_>>(), ["failed"]);

        let path = dir.path().join(FILE);
        let other = fs::read_to_string(&path).unwrap().replace(&boot(), "another-boot");
        fs::write(&path, other).unwrap();
        assert!(load(dir.path()).1.is_empty(), "of another boot");
        fs::write(&path, "{").unwrap();
        assert!(load(dir.path()).0.list().is_empty(), "no sense");
    }
}
