//! Migrations under way, on disk: a daemon that starts again goes on where the last one was.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lbx_common::addr::Mac;
use lbx_common::migration::{Machine, Phase, Place, Role};
use serde::{Deserialize, Serialize};

use super::VmId;
use super::ledger::{Ledger, Record};
use crate::kept::{boot, replace};

/// File name within the run directory.
const FILE: &str = "migrations.json";

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    schema: u32,
    /// Times are counted from it.
    boot: String,
    next: u64,
    open: BTreeMap<String, KeptRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptRecord {
    id: u64,
    name: Option<String>,
    uuid: Option<String>,
    macs: Vec<Mac>,
    targets: Vec<String>,
    host: Option<String>,
    began: u64,
    role: String,
    /// What an earlier version did not write: it made a bystander of such a host.
    #[serde(default)]
    absent: bool,
    phase: String,
    place: Option<String>,
    since: u64,
    heard: u64,
    grows: Option<u64>,
    handed_over: bool,
    pause: bool,
    paused: Option<bool>,
    down: bool,
    verified: bool,
}

impl KeptRecord {
    fn of(record: &Record) -> Self {
        let machine = &record.machine;
        Self {
            id: record.id,
            name: record.vm.name.clone(),
            uuid: record.vm.uuid.clone(),
            macs: record.vm.macs.clone(),
            targets: record.targets.clone(),
            host: record.host.clone(),
            began: record.began,
            role: machine.role.name().to_owned(),
            absent: machine.absent,
            phase: machine.phase.name().to_owned(),
            place: machine.place.map(|place| place.name().to_owned()),
            since: machine.since,
            heard: machine.heard,
            grows: machine.grows,
            handed_over: machine.handed_over,
            pause: machine.pause,
            paused: machine.paused,
            down: machine.down,
            verified: machine.verified,
        }
    }

    /// `None` if this version does not know a word.
    fn record(self) -> Option<Record> {
        let role =
            [Role::Source, Role::Destination, Role::Bystander].into_iter().find(|r| r.name() == self.role)?;
        let place = match self.place.as_deref() {
            None => None,
            Some(name) => Some([Place::Here, Place::There].into_iter().find(|p| p.name() == name)?),
        };
        let machine = Machine {
            role,
            absent: self.absent,
            phase: Phase::from_name(&self.phase)?,
            since: self.since,
            place,
            handed_over: self.handed_over,
            pause: self.pause,
            paused: self.paused,
            down: self.down,
            heard: self.heard,
            grows: self.grows,
            verified: self.verified,
        };
        Some(Record {
            id: self.id,
            vm: VmId { name: self.name, uuid: self.uuid, macs: self.macs },
            targets: self.targets,
            host: self.host,
            began: self.began,
            machine,
            entries: Vec::new(),
            there: BTreeMap::new(),
            gone: None,
            deserted: None,
            asked: self.heard,
        })
    }
}

fn file(run_dir: &Path) -> PathBuf {
    run_dir.join(FILE)
}

impl Ledger {
    /// What the last daemon of this boot knew. A file that makes no sense is as good as none: what a VM is doing is
    /// asked anew anyway.
    pub fn load(run_dir: &Path) -> Self {
        let Ok(bytes) = fs::read(file(run_dir)) else { return Self::default() };
        let kept: Kept = match serde_json::from_slice(&bytes) {
            Ok(kept) => kept,
            Err(error) => {
                tracing::warn!("{} makes no sense: {error}", file(run_dir).display());
                return Self::default();
            }
        };
        if kept.schema != 1 || kept.boot != boot() {
            return Self::default();
        }
        let open = kept.open.into_iter().filter_map(|(key, record)| Some((key, record.record()?)));
        Self { open: open.collect(), next: kept.next, ..Self::default() }
    }

    /// Keeps what is under way.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn save(&self, run_dir: &Path) -> Result<()> {
        let open = self.open.iter().map(|(key, record)| (key.clone(), KeptRecord::of(record))).collect();
        let kept = Kept { schema: 1, boot: boot(), next: self.next, open };
        let path = file(run_dir);
        replace(&path, &serde_json::to_vec(&kept)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use lbx_common::migration::{Event, Here, Source, What};

    use super::*;
    use crate::migration::Told;
    use crate::migration::ledger::About;

    #[test]
    fn what_is_under_way_survives_the_daemon() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Ledger::load(dir.path()), Ledger::default());
        let mut ledger = Ledger::default();
        let vm = VmId { macs: vec![[2, 0, 0, 0, 0, 1]], ..VmId::named("web-1") };
        for what in [What::Announced, What::Stopped] {
            let about = About {
                key: "web-1".into(),
                vm: vm.clone(),
                targets: vec!["web/web-1".into()],
                here: Here::Present,
            };
            let event = Event::new(what, Source::Operator, 7).with_host("b");
            ledger.hear(about, Told::new(vm.clone(), event));
        }
        ledger.save(dir.path()).unwrap();
        let back = Ledger::load(dir.path());
        let before = ledger.open.remove("web-1").unwrap();
        assert_eq!(back.open["web-1"], Record { entries: Vec::new(), ..before });
        assert_eq!(back.next, 1);
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(Ledger::load(dir.path()), Ledger::default());
    }

    #[test]
    fn who_is_not_awaited_any_more_is_kept_and_a_file_without_that_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::default();
        let vm = VmId::named("web-1");
        let targets = vec!["web/web-1".into()];
        let about = About { key: "web-1".into(), vm: vm.clone(), targets, here: Here::Incoming };
        ledger.hear(about, Told::new(vm, Event::new(What::Expected, Source::Qmp, 7)));
        ledger.resolve("web-1", Here::Absent, 9);
        ledger.save(dir.path()).unwrap();
        let part = || {
            let machine = Ledger::load(dir.path()).open["web-1"].machine;
            (machine.role, machine.part())
        };
        assert_eq!(part(), (Role::Destination, Role::Bystander));

        // As it was written before there was such a word: a bystander, or somebody who still awaits it.
        let path = dir.path().join(FILE);
        let mut file: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let record = file["open"]["web-1"].as_object_mut().unwrap();
        assert_eq!(record.remove("absent"), Some(true.into()));
        for role in [Role::Bystander, Role::Destination] {
            file["open"]["web-1"]["role"] = role.name().into();
            fs::write(&path, file.to_string()).unwrap();
            assert_eq!(part(), (role, role));
        }
    }
}
