//! Migrations in the daemon: what is said of them, and what follows for targets.

mod arm;
mod hold;
mod identify;
mod part;
mod spare;
mod tell;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lbx_common::migration::{Event, Here, Place, Role, Source, Want, What};
use tokio::sync::mpsc::UnboundedReceiver;

use self::spare::{Wanted, spare_the_last};
use super::core::Core;
use crate::host::libvirt::Sources;
use crate::measure::vm::Vm;
use crate::migration::ears::Ears;
use crate::migration::facts::Board;
use crate::migration::fast::Fast;
use crate::migration::ledger::{About, Ledger, Outcome, Record};
use crate::migration::{Stream, Told, VmId, now};

/// Nothing is looked into more often, whatever the clocks say.
const SOONEST: Duration = Duration::from_millis(20);

/// Where the flows of a target that moved are to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovedTo {
    /// The VM's new host, by the name it has in the config; `None`: nobody said.
    pub host: Option<String>,
    /// The VM does not run there yet: its packets wait.
    pub hold: bool,
}

/// What the core knows of migrations.
#[derive(Debug)]
pub struct Migrations {
    /// Where sources say what they know.
    pub stream: Stream,
    /// Those under way, and the records of others.
    pub ledger: Ledger,
    /// libvirt daemons that are listened to.
    pub(super) libvirt: Sources,
    told: Option<UnboundedReceiver<Told>>,
    /// What must not wait for the core.
    fast: Fast,
    /// What is wanted of targets now.
    wants: BTreeMap<String, Want>,
    moved: BTreeMap<String, MovedTo>,
    /// Packets that were sent on to wait.
    held: hold::Ledger,
    /// Targets that are not drained: their service would have nobody left.
    last: BTreeSet<String>,
    /// Records whose flows of datagrams were taken from the VM.
    parted: BTreeSet<u64>,
    /// What was said about what the VM does here, by process: its monitor's word.
    said: Board,
    /// Something was heard that tables and files do not say yet.
    unsettled: bool,
}

impl Default for Migrations {
    fn default() -> Self {
        let (stream, told) = Stream::new();
        Self {
            stream,
            ledger: Ledger::default(),
            libvirt: Sources::default(),
            told: Some(told),
            fast: Fast::default(),
            wants: BTreeMap::new(),
            moved: BTreeMap::new(),
            held: hold::Ledger::default(),
            last: BTreeSet::new(),
            parted: BTreeSet::new(),
            said: Board::default(),
            unsettled: false,
        }
    }
}

impl Migrations {
    /// Where events come out; once.
    pub(super) fn take(&mut self) -> Option<UnboundedReceiver<Told>> {
        self.told.take()
    }

    /// For whoever hears monitors.
    pub fn ears(&self) -> Ears {
        Ears { stream: self.stream.clone(), facts: self.said.clone(), fast: self.fast.clone() }
    }

    /// What migration wants of a target (full name).
    pub fn want(&self, target: &str) -> Want {
        self.wants.get(target).copied().unwrap_or_default()
    }

    /// Where the flows of a target go, if migration wants them moved.
    pub fn moved_to(&self, target: &str) -> Option<&MovedTo> {
        self.moved.get(target)
    }

    /// The other host of the migration a target's VM is in, by full name of the target, where somebody said which: known
    /// from the start, so that the way there is prepared.
    pub fn hosts(&self) -> BTreeMap<String, String> {
        let records = self.ledger.open.values();
        let known = records.filter_map(|record| Some((&record.targets, record.host.as_ref()?)));
        known
            .flat_map(|(targets, host)| targets.iter().map(move |name| (name.clone(), host.clone())))
            .collect()
    }

    /// Whether a target keeps getting new flows although its VM migrates: its service has nobody else.
    pub fn is_last(&self, target: &str) -> bool {
        self.last.contains(target)
    }
}

impl Core {
    /// Somebody said something about the migration of a VM. What became of it.
    pub fn migration(&mut self, told: Told) -> Outcome {
        let mut about = self.identify(&told.vm);
        if matches!(told.event.what, What::Resumed(Place::Here) | What::Done(Place::Here))
            && self.runs_unheard(&about)
        {
            about.here = Here::Present;
        }
        let (key, vm, event) = (about.key.clone(), about.vm.clone(), told.event.clone());
        if about.targets.is_empty() && event.source == Source::Peer {
            // Other hosts speak of VMs that are none of this one's.
            tracing::debug!("{vm} is no target here: {}", event.what.name());
            self.take_back(&told.flipped);
            return Outcome::Nothing;
        }
        let flipped = told.flipped.clone();
        let outcome = self.migrations.ledger.hear(about, told);
        if !outcome.is_news() {
            tracing::debug!(
                "migration of {vm}: {} ({}): {outcome:?}",
                event.what.name(),
                event.source.name()
            );
            self.take_back(&flipped);
            return outcome;
        }
        let host = event.host.as_ref().map_or(String::new(), |host| format!(" (the other host: {host})"));
        tracing::info!("migration of {vm}: {}, says {}{host}", event.what.name(), event.source.name());
        self.migrations.fast.release(&flipped);
        self.flip_or_say();
        self.migrations.ledger.written(&key, now().saturating_sub(event.at));
        // Other hosts wait for it as the packets here did: tables can follow later.
        self.pass_on(&Told::new(vm, event));
        self.ask_about(&key);
        self.arm_migrations();
        self.migrations.unsettled = true;
        outcome
    }

    /// Where it matters who does not say that a VM runs there, peers are asked whether they are there to say it.
    fn ask_about(&self, key: &str) {
        if self.migrations.ledger.open.get(key).is_some_and(Record::may_be_there) {
            self.peers.ask();
        }
    }

    /// What was stored beforehand does not follow after all.
    fn take_back(&mut self, flipped: &[u32]) {
        if !flipped.is_empty() {
            self.migrations.fast.release(flipped);
            self.flip_or_say();
        }
    }

    /// Tables and files follow what was heard: after the last event of those that came together.
    pub(super) fn settle_migrations(&mut self) {
        if std::mem::take(&mut self.migrations.unsettled) {
            // A failure was logged, and the next pass tries again.
            let _ = self.settle();
            self.keep_migrations();
        }
    }

    fn flip_or_say(&mut self) {
        if let Err(error) = self.flip() {
            tracing::error!("a state could not be written: {error:#}");
        }
    }

    /// Another host says whether a VM runs there.
    pub fn peer_says(&mut self, vm: &VmId, host: &str, runs: bool) {
        let key = self.identify(vm).key;
        self.migrations.ledger.peer_says(&key, host, runs);
    }

    /// Whether a VM runs on this host, if that is known.
    pub fn runs_here(&self, vm: &VmId) -> Option<bool> {
        match self.identify(vm).here {
            Here::Absent => Some(false),
            here => here.runs(),
        }
    }

    /// When something has to be looked into that nobody speaks of any more.
    pub(super) fn migrations_due(&self) -> Option<tokio::time::Instant> {
        let due = self.migrations.ledger.next_due(&self.config.migration.rules())?;
        let wait = Duration::from_micros(due.saturating_sub(now())).max(SOONEST);
        Some(tokio::time::Instant::now() + wait)
    }

    /// What passes with time: shares grow, and what nobody speaks of any more is looked into.
    pub(super) fn migrations_tick(&mut self) {
        if self.migrations.ledger.open.is_empty() {
            return;
        }
        let (at, rules) = (now(), self.config.migration.rules());
        let due = self.migrations.ledger.due(at, &rules);
        if !due.is_empty() {
            self.hear_vms();
        }
        for key in due {
            let Some(record) = self.migrations.ledger.open.get(&key) else { continue };
            let (vm, about) = (record.vm.clone(), self.identify(&record.vm));
            let here = about.here;
            if let Some(event) = self.migrations.ledger.resolve(&key, here, at) {
                let what = event.what.name();
                tracing::warn!("migration of {vm}: nobody says more, and it is {}: {what}", here.name());
                self.pass_on(&Told::new(vm, event));
            }
            self.ask_about(&key);
        }
        self.part_datagrams(at, &rules);
        self.migrations.ledger.sweep(at, &rules);
        let (states, weights) = self.follow_migrations();
        if states {
            self.flip_or_say();
        }
        if states || weights {
            let _ = self.settle();
        }
        self.keep_migrations();
    }

    /// The host was looked at: who is behind which target may have changed, a VM that moved away may be here again,
    /// and one may be awaited.
    pub(super) fn migrations_look(&mut self, before: &[Vm]) {
        let vms = &self.host.vms;
        let is_there = |vm: &&Vm| vms.iter().any(|one| (one.pid, one.start_time) == (vm.pid, vm.start_time));
        let left: Vec<VmId> = before.iter().filter(|vm| !is_there(vm)).map(VmId::from).collect();
        self.migrations.said.keep(|pid, start| vms.iter().any(|vm| (vm.pid, vm.start_time) == (pid, start)));
        for vm in left {
            let about = self.identify(&vm);
            if self.local_vm(&vm).is_none() {
                self.migrations.ledger.gone(&about.key, now());
            }
        }
        let is_new =
            |vm: &&Vm| !before.iter().any(|old| (old.pid, old.start_time) == (vm.pid, vm.start_time));
        let new: Vec<Vm> = self.host.vms.iter().filter(is_new).cloned().collect();
        for vm in new {
            let id = VmId::from(&vm);
            let about = self.identify(&id);
            // Without a monitor to hear nobody might ever say that it runs: then only who says so awaits it.
            if vm.qmp.is_some() && about.here == Here::Incoming && !about.targets.is_empty() {
                let event = Event::new(What::Expected, Source::Watchdog, now());
                let told = Told::new(id, event);
                // Its monitor may never be heard of it, if it ends at once: others are told now who awaits it.
                if self.migrations.ledger.hear(about, told.clone()).is_news() {
                    self.pass_on(&told);
                }
            } else if self.migrations.ledger.returned(&about.key) {
                tracing::info!("{id} runs here again");
            }
        }
        let known: Vec<(String, VmId)> = self
            .migrations
            .ledger
            .open
            .iter()
            .map(|(key, record)| (key.clone(), record.vm.clone()))
            .collect();
        for (key, vm) in known {
            let about = self.identify(&vm);
            if let Some(record) = self.migrations.ledger.open.get_mut(&key) {
                (record.targets, record.vm) = (about.targets, about.vm);
            }
        }
    }

    /// Somebody says that a VM runs which no monitor speaks of, and which was started to be sent: now it has run.
    fn runs_unheard(&self, about: &About) -> bool {
        let Some(vm) = self.local_vm(&about.vm).filter(|_| about.here == Here::Incoming) else {
            return false;
        };
        let unheard = self.migrations.said.get(vm.pid, vm.start_time).is_none();
        if unheard {
            self.migrations.said.runs(vm.pid, vm.start_time);
        }
        unheard
    }

    fn keep_migrations(&self) {
        if let Err(error) = self.migrations.ledger.save(&self.paths.run_dir) {
            tracing::warn!("{error:#}");
        }
    }

    /// Goes on with what an earlier daemon of this boot knew.
    pub(super) fn load_migrations(&mut self) {
        match self.datapath.maps().flips() {
            Ok(flips) => self.migrations.fast.open(flips),
            Err(error) => tracing::error!("{error}: a VM that stops is blackholed a little later"),
        }
        self.migrations.ledger = Ledger::load(&self.paths.run_dir);
        for record in self.migrations.ledger.open.values() {
            tracing::info!(
                "migration of {}: {} when the daemon ended",
                record.vm,
                record.machine.phase.name()
            );
        }
        self.follow_migrations();
    }

    /// Makes migration's wishes what follows from the ledger. Whether a state changed, and whether a weight.
    pub(super) fn follow_migrations(&mut self) -> (bool, bool) {
        if self.migrations.ledger.open.is_empty() && self.migrations.wants.is_empty() {
            return (false, false);
        }
        let waits = self.who_can_wait();
        let Migrations { ledger, wants, moved, last, .. } = &mut self.migrations;
        let (at, rules) = (now(), self.config.migration.rules());
        let mut new: BTreeMap<String, Wanted> = BTreeMap::new();
        moved.clear();
        for record in ledger.open.values() {
            let want = record.want(at, &rules);
            let wanted = Wanted {
                want,
                falls_back: record.machine.falls_back(),
                // Who is only awaited here takes nothing, whoever else does.
                spared: record.machine.part() != Role::Destination,
            };
            for target in &record.targets {
                let wanted = hold::or_drop(wanted, waits.contains(target));
                let want = wanted.want;
                if matches!(want, Want::Moved | Want::Hold) {
                    let to = MovedTo { host: record.host.clone(), hold: want == Want::Hold };
                    moved.insert(target.clone(), to);
                }
                new.insert(target.clone(), wanted);
            }
        }
        for gone in wants.keys().filter(|target| !new.contains_key(*target)).cloned().collect::<Vec<_>>() {
            new.insert(gone, Wanted::default());
        }
        let before = std::mem::take(wants);
        *wants = new.iter().map(|(target, wanted)| (target.clone(), wanted.want)).collect();
        let turns = hold::turns(&before, wants);
        wants.retain(|_, want| *want != Want::Nothing);
        let spared = spare_the_last(&self.config, &self.book, &mut new);
        for target in spared.difference(last) {
            tracing::warn!("{target} goes on getting new flows although its VM migrates: nobody else would");
        }
        *last = spared;
        let (mut states, mut weights) = (false, false);
        for (target, wanted) in &new {
            let news = self.book.set_migration(target, wanted.want, wanted.falls_back);
            (states, weights) = (states || news.0, weights || news.1);
        }
        self.note_waiting(turns);
        (states, weights)
    }
}
