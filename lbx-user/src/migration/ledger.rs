//! All migrations this host knows of: those under way, and the records of those that ended.
//!
//! No I/O: who says what, what the facts are and what time it is come in as arguments.

use std::collections::{BTreeMap, VecDeque};

use lbx_common::migration::{
    Event, Facts, Heard, Here, Machine, Micros, Phase, Place, Rules, Source, There, Want, What,
};

use super::{Told, VmId};

/// Records of ended migrations that are kept.
const KEPT: usize = 64;
/// Entries a record has at most: beyond, only the end is added.
const ENTRIES: usize = 256;
/// Who was here when it began and is gone is looked into after so long: what its monitor said last is heard by then.
const GONE: Micros = 200_000;
/// Where it was handed over to it does not come any more when it has had no process for so long: a look there may be a
/// moment late.
const DESERTED: Micros = 200_000;
/// The same as [`GONE`] where it went to: it may have gone on from there, and will be heard of from where it is.
const GONE_THERE: Micros = 500_000;

/// One line of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What was said.
    pub event: Event,
    /// What that was to the phase.
    pub heard: Heard,
    /// How long before it happened.
    pub lag: Option<Micros>,
    /// How long after it the targets' states stood in the maps.
    pub written: Option<Micros>,
    /// So many times in a row; the last at `last`.
    pub times: u32,
    /// When it was said last.
    pub last: Micros,
}

/// What is remembered of a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Counts up.
    pub id: u64,
    /// The VM, with all that is known of its identity.
    pub vm: VmId,
    /// Its targets by their full names.
    pub targets: Vec<String>,
    /// The other host.
    pub host: Option<String>,
    /// When the first event was heard.
    pub began: Micros,
    /// Where it stands, or how it ended.
    pub machine: Machine,
    /// What was heard, in the order it was.
    pub entries: Vec<Entry>,
    /// What each other host said: it runs there.
    pub there: BTreeMap<String, bool>,
    /// Since when its process is gone, here or where it went, if nobody has looked into it since.
    pub gone: Option<Micros>,
    /// Since when the host it was handed over to has no process of it.
    pub deserted: Option<Micros>,
    /// When there was news of it last, or it was looked into.
    pub(super) asked: Micros,
}

impl Record {
    fn begin(id: u64, vm: VmId, targets: Vec<String>, machine: Machine, event: &Event) -> Self {
        let (host, began) = (event.host.clone(), event.at);
        Self {
            id,
            vm,
            targets,
            host,
            began,
            machine,
            entries: Vec::new(),
            there: BTreeMap::new(),
            gone: None,
            deserted: None,
            asked: began,
        }
    }

    /// Whether it may run on another host by now, or should: there, who does not say that it does has to have been heard
    /// since.
    pub const fn may_be_there(&self) -> bool {
        let machine = &self.machine;
        match machine.phase {
            Phase::Stopped => machine.handed_over,
            Phase::Resumed | Phase::Done => matches!(machine.place, Some(Place::There)),
            _ => false,
        }
    }

    /// Whether it counts that somebody who was heard last at a time does not say that it runs there.
    fn counts(&self, heard: Option<Micros>) -> bool {
        heard.is_some_and(|at| !self.may_be_there() || at >= self.asked)
    }

    /// When an event that was news was heard last.
    pub fn when(&self, is: impl Fn(What) -> bool) -> Option<Micros> {
        let news = self.entries.iter().rev().find(|entry| entry.heard == Heard::News && is(entry.event.what));
        news.map(|entry| entry.event.at)
    }

    /// How long the VM stood still as far as this host knows: from its last stop to when it ran again.
    pub fn pause(&self) -> Option<Micros> {
        let stopped = self.when(|what| what == What::Stopped)?;
        let runs = |what| matches!(what, What::Resumed(_) | What::Done(_) | What::Failed | What::Cancelled);
        let after = self
            .entries
            .iter()
            .find(|entry| entry.heard == Heard::News && runs(entry.event.what) && entry.event.at >= stopped);
        after.map(|entry| entry.event.at - stopped)
    }

    /// What is wanted of its targets.
    pub fn want(&self, now: Micros, rules: &Rules) -> Want {
        self.machine.want(now, &self.rules(rules))
    }

    /// Packets can only wait at a host that is known.
    fn rules(&self, rules: &Rules) -> Rules {
        Rules { hold: rules.hold && self.host.is_some(), ..*rules }
    }

    /// When it is to be looked into, unless there is news before.
    fn due(&self, rules: &Rules) -> Option<Micros> {
        let machine = &self.machine;
        let wait = match machine.phase {
            // Whoever handed it over may go; it will be heard of from where it runs.
            phase if phase <= Phase::Stopped && !machine.handed_over => Some(GONE),
            // Stopped when it failed, or awaited here: packets are dropped, or sent to where it is no more.
            Phase::Failed | Phase::Cancelled => Some(GONE),
            Phase::Resumed | Phase::Done if machine.place == Some(Place::There) && !machine.down => {
                Some(GONE_THERE)
            }
            _ => None,
        };
        let gone = self.gone.zip(wait).map(|(at, wait)| at.saturating_add(wait));
        gone.into_iter().chain(machine.due(rules)).min()
    }

    fn facts(&self, here: Here, now: Micros) -> Facts {
        let says = |host: &String| self.there.get(host).copied();
        let deserted = self.deserted.is_some_and(|since| now.saturating_sub(since) >= DESERTED);
        let there = match (self.there.values().any(|runs| *runs), self.host.as_ref().and_then(says)) {
            (true, _) => There::Running,
            (_, Some(false)) if deserted => There::Gone,
            (_, Some(false)) => There::NotRunning,
            _ => There::Unknown,
        };
        Facts { here, there }
    }

    fn note(&mut self, told: Told, heard: Heard) {
        let Told { event, lag, written, .. } = told;
        if let Some(host) = event.host.as_ref().filter(|_| heard != Heard::Contradicted) {
            self.host = Some(host.clone());
        }
        if let Some(last) = self.entries.last_mut() {
            let same = last.event.what == event.what && last.event.source == event.source;
            if same && heard != Heard::News {
                (last.times, last.last) = (last.times + 1, event.at);
                return;
            }
        }
        if self.entries.len() < ENTRIES || heard == Heard::News && event.what.phase().is_end() {
            let last = event.at;
            self.entries.push(Entry { event, heard, lag, written, times: 1, last });
        }
    }
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It began a migration.
    Began,
    /// It was about the one under way.
    Heard(Heard),
    /// None is under way, and it begins none.
    Nothing,
}

impl Outcome {
    /// Whether anything follows from it.
    pub const fn is_news(self) -> bool {
        matches!(self, Self::Began | Self::Heard(Heard::News))
    }
}

/// Who an event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// By this the VM is told from all others.
    pub key: String,
    /// All that is known of its identity.
    pub vm: VmId,
    /// Its targets by their full names.
    pub targets: Vec<String>,
    /// What it is doing here.
    pub here: Here,
}

/// The migrations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Those that still want something of targets, by the VM's key.
    pub open: BTreeMap<String, Record>,
    /// Those that ended, the last one last.
    pub past: VecDeque<Record>,
    pub(super) next: u64,
    pub(super) ended: BTreeMap<Phase, u64>,
}

impl Ledger {
    /// Somebody said something.
    pub fn hear(&mut self, about: About, told: Told) -> Outcome {
        let Some(record) = self.open.get_mut(&about.key) else {
            let Some(machine) = Machine::begin(&told.event, about.here) else { return Outcome::Nothing };
            self.begin(about, machine, told);
            return Outcome::Began;
        };
        let before = record.machine;
        let heard = record.machine.hear(&told.event, about.here);
        if heard == Heard::News && before.phase.is_end() && !record.machine.phase.is_end() {
            // The next migration of the same VM.
            let machine = std::mem::replace(&mut record.machine, before);
            if let Some(record) = self.open.remove(&about.key) {
                self.archive(record);
            }
            self.begin(about, machine, told);
            return Outcome::Began;
        }
        record.targets = about.targets;
        if heard == Heard::News {
            (record.asked, record.deserted) = (told.event.at, None);
        }
        record.note(told, heard);
        Outcome::Heard(heard)
    }

    fn begin(&mut self, about: About, machine: Machine, told: Told) {
        self.next += 1;
        let mut record = Record::begin(self.next, about.vm, about.targets, machine, &told.event);
        record.note(told, Heard::News);
        self.open.insert(about.key, record);
    }

    /// How many ended how since the daemon started.
    pub const fn ended(&self) -> &BTreeMap<Phase, u64> {
        &self.ended
    }

    fn archive(&mut self, record: Record) {
        *self.ended.entry(record.machine.phase).or_default() += 1;
        if self.past.len() == KEPT {
            self.past.pop_front();
        }
        self.past.push_back(record);
    }

    /// How long after the last event about a VM the maps say what follows from it.
    pub fn written(&mut self, key: &str, after: Micros) {
        let entry = self.open.get_mut(key).and_then(|record| record.entries.last_mut());
        if let Some(entry) = entry {
            entry.written.get_or_insert(after);
        }
    }

    /// A peer says whether a VM runs there.
    pub fn peer_says(&mut self, key: &str, host: &str, runs: bool) {
        if let Some(record) = self.open.get_mut(key) {
            record.there.insert(host.to_owned(), runs);
        }
    }

    /// Whether it counts that a host which was heard last at a time does not say that a VM runs there: what was so before
    /// the VM was handed over is no news of where it is now.
    pub fn counts(&self, key: &str, heard: Option<Micros>) -> bool {
        self.open.get(key).is_some_and(|record| record.counts(heard))
    }

    /// When every peer was heard last: what others said, and what does not count, is forgotten.
    pub fn believe(&mut self, heard: &BTreeMap<String, Micros>) {
        for record in self.open.values_mut() {
            let mut there = std::mem::take(&mut record.there);
            there.retain(|host, runs| {
                let at = heard.get(host).copied();
                at.is_some() && (*runs || record.counts(at))
            });
            record.there = there;
        }
    }

    /// The process of a VM on this host is gone.
    pub fn gone(&mut self, key: &str, now: Micros) {
        if let Some(record) = self.open.get_mut(key) {
            let runs = matches!(record.machine.phase, Phase::Resumed | Phase::Done);
            record.gone = Some(now).filter(|_| !runs);
        }
    }

    /// The host that a VM went to has it (or not): where nobody has it any more, its flows go to others.
    pub fn has(&mut self, key: &str, host: &str, has: bool, now: Micros) {
        let Some(record) = self.open.get_mut(key).filter(|record| record.may_be_there()) else { return };
        if record.host.as_deref() != Some(host) || record.machine.down {
            return;
        }
        if record.machine.phase == Phase::Stopped {
            // It is looked into soon anyway.
            record.deserted = (!has).then(|| record.deserted.unwrap_or(now));
        } else if has || record.there.values().any(|runs| *runs) {
            record.gone = None;
        } else {
            record.gone.get_or_insert(now);
        }
    }

    /// When the next VM has to be looked into.
    pub fn next_due(&self, rules: &Rules) -> Option<Micros> {
        self.open.values().filter_map(|record| record.due(rules)).min()
    }

    /// The VMs that have to be looked into now.
    pub fn due(&self, now: Micros, rules: &Rules) -> Vec<String> {
        let due = |record: &Record| record.due(rules).is_some_and(|due| due <= now);
        self.open.iter().filter(|(_, record)| due(record)).map(|(key, _)| key.clone()).collect()
    }

    /// Looks into one: what was found, as an event, if that is news.
    pub fn resolve(&mut self, key: &str, here: Here, now: Micros) -> Option<Event> {
        let record = self.open.get_mut(key)?;
        (record.gone, record.asked) = (None, now);
        let what = record.machine.resolve(record.facts(here, now), now)?;
        let event = Event { host: record.host.clone(), ..Event::new(what, Source::Watchdog, now) };
        let told = Told::new(record.vm.clone(), event.clone());
        record.note(told, Heard::News);
        Some(event)
    }

    /// Puts away what wants nothing any more.
    pub fn sweep(&mut self, now: Micros, rules: &Rules) {
        let over: Vec<String> = self
            .open
            .iter()
            .filter(|(_, record)| record.machine.is_over(now, rules))
            .map(|(key, _)| key.clone())
            .collect();
        for key in over {
            if let Some(record) = self.open.remove(&key) {
                self.archive(record);
            }
        }
    }

    /// A VM that moved away is here again, as another process: what was, is over.
    pub fn returned(&mut self, key: &str) -> bool {
        let moved =
            |record: &Record| record.machine.phase.is_end() && record.machine.place == Some(Place::There);
        if !self.open.get(key).is_some_and(moved) {
            return false;
        }
        if let Some(record) = self.open.remove(key) {
            self.archive(record);
        }
        true
    }

    /// All records, the oldest first.
    pub fn all(&self) -> impl Iterator<Item = &Record> {
        let mut all: Vec<&Record> = self.past.iter().chain(self.open.values()).collect();
        all.sort_by_key(|record| record.id);
        all.into_iter()
    }
}

#[cfg(test)]
mod tests;
