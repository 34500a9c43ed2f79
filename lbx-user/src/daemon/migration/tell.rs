//! What the daemon says of migrations, and what operators say to it.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use lbx_common::migration::{Event, Heard, Micros, Phase, Place, Source, Want, What};

use super::super::core::Core;
use crate::api::model::{
    MigratingTarget, Migration, MigrationChanged, MigrationEvent, MigrationRequest, Migrations,
};
use crate::migration::ledger::{Entry, Outcome, Record};
use crate::migration::{Told, VmId, now};
use crate::view;

impl Core {
    /// An operator or an orchestrator says where the migration of a VM stands.
    ///
    /// # Errors
    /// A phase or place that does not exist, a VM that is no target, or what its own monitor says otherwise.
    pub fn operator_says(&mut self, request: &MigrationRequest) -> Result<MigrationChanged> {
        let what = what(request).map_err(view::Error::Invalid)?;
        let uuid = is_uuid(&request.vm).then(|| request.vm.to_lowercase());
        let id = VmId { uuid, ..VmId::named(request.vm.as_str()) };
        let about = self.identify(&id);
        if about.targets.is_empty() {
            let text = format!("no target is a VM \"{}\" (its name or UUID, or a target's name)", request.vm);
            return Err(view::Error::NotFound(text).into());
        }
        let event = Event { host: request.host.clone(), ..Event::new(what, Source::Operator, now()) };
        let outcome = self.migration(Told::new(about.vm, event));
        self.settle_migrations();
        let about = self.identify(&id);
        let name = about.vm.to_string();
        let record = self.migrations.ledger.open.get(&about.key);
        let phase = record.map(|record| record.machine.phase.name().to_owned());
        let said = match (outcome, record) {
            (Outcome::Heard(Heard::Contradicted), _) => {
                bail!("{name} is {}, says its own monitor; nothing was changed", about.here.name())
            }
            (Outcome::Nothing, _) => format!("no migration of {name} is under way"),
            (_, Some(record)) => {
                let want = record.want(now(), &self.config.migration.rules());
                let waits = record.targets.iter().any(|target| self.migrations.want(target) == Want::Hold);
                let want = if want == Want::Hold && !waits { Want::Blackhole } else { want };
                let reason = want.reason();
                let last = about.targets.iter().find(|target| self.migrations.is_last(target));
                let last = last.map_or(String::new(), |target| {
                    format!("; {target} is the last one and keeps its share")
                });
                format!("{name} is {}: {reason}{last}", record.machine.phase.name())
            }
            (_, None) => format!("the migration of {name} is over"),
        };
        Ok(MigrationChanged {
            vm: name,
            targets: about.targets,
            changed: outcome.is_news(),
            phase,
            now: said,
            drain_ms: self.config.migration.drain.as_millis() as u64,
        })
    }

    /// The migrations this host knows of.
    ///
    /// # Errors
    /// The maps could not be read.
    pub fn migrations(&self) -> view::Result<Migrations> {
        let flows: BTreeMap<String, u64> = if self.migrations.ledger.open.is_empty() {
            BTreeMap::new()
        } else {
            self.view()?
                .targets()?
                .targets
                .into_iter()
                .map(|target| (target.name, target.open_flows))
                .collect()
        };
        let at = now();
        Ok(Migrations {
            migrations: self
                .migrations
                .ledger
                .all()
                .map(|record| self.migration_of(record, at, &flows))
                .collect(),
        })
    }

    fn migration_of(&self, record: &Record, at: Micros, flows: &BTreeMap<String, u64>) -> Migration {
        let (rules, machine) = (self.config.migration.rules(), &record.machine);
        let waits = self.who_can_wait();
        let over = !self.migrations.ledger.open.values().any(|open| open.id == record.id);
        let targets = record.targets.iter().map(|target| MigratingTarget {
            target: target.clone(),
            wants: if over { Want::Nothing } else { self.migrations.want(target) }.reason().to_owned(),
            last: !over && self.migrations.is_last(target),
            open_flows: flows.get(target).copied().unwrap_or(0),
            can_wait: !over && waits.contains(target),
        });
        let end = if machine.phase.is_end() { machine.since } else { at };
        let unix = unix_micros();
        Migration {
            id: record.id,
            vm: record.vm.to_string(),
            uuid: record.vm.uuid.clone(),
            role: machine.role.name().to_owned(),
            phase: machine.phase.name().to_owned(),
            place: machine.place.map(|place| place.name().to_owned()),
            host: record.host.clone(),
            pause: machine.pause,
            over,
            phase_ms: at.saturating_sub(machine.since) / 1000,
            took_ms: end.saturating_sub(record.began) / 1000,
            stopped_ms: record.pause().map(millis),
            watchdog_ms: machine.due(&rules).filter(|_| !over).map(|due| due.saturating_sub(at) / 1000),
            targets: targets.collect(),
            events: record.entries.iter().map(|entry| said(entry, record.began, (at, unix))).collect(),
        }
    }

    /// Why migration wishes what it does for a target.
    pub(in super::super) fn migration_reason(&self, target: &str) -> String {
        self.migrations.want(target).reason().to_owned()
    }

    /// What `lbx status` says of migrations.
    pub(in super::super) fn migration_notes(&self) -> impl Iterator<Item = String> {
        let last = self.migrations.last.iter();
        let spared = last.map(|target| {
            format!(
                "{target} goes on getting new flows although its VM migrates: its service has nobody else"
            )
        });
        let down = self.migrations.wants.iter().filter(|(_, want)| **want == Want::Down);
        spared.chain(down.map(|(target, want)| format!("{target} is down: {}", want.reason())))
    }
}

fn what(request: &MigrationRequest) -> Result<What, String> {
    let place = match request.place.as_deref() {
        None | Some("here") => Place::Here,
        Some("there") => Place::There,
        Some(other) => return Err(format!("\"{other}\" is no place: here or there")),
    };
    // A host that is named is where it runs.
    let place = if request.host.is_some() && request.place.is_none() { Place::There } else { place };
    Ok(match Phase::from_name(&request.phase) {
        Some(Phase::Announced) => What::Announced,
        Some(Phase::Transferring) => What::Transferring,
        Some(Phase::Stopped) => What::Stopped,
        Some(Phase::Resumed) => What::Resumed(place),
        Some(Phase::Done) => What::Done(place),
        Some(Phase::Failed) => What::Failed,
        Some(Phase::Cancelled) => What::Cancelled,
        None => {
            let known: Vec<_> = Phase::ALL.iter().map(|phase| phase.name()).collect();
            return Err(format!("\"{}\" is no phase: {}", request.phase, known.join(", ")));
        }
    })
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

fn millis(micros: Micros) -> f64 {
    micros as f64 / 1e3
}

fn unix_micros() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_micros() as u64)
}

/// `now`: the same moment by the monotonic clock and by the wall's.
fn said(entry: &Entry, began: Micros, now: (Micros, u64)) -> MigrationEvent {
    let event = &entry.event;
    let place = match event.what {
        What::Resumed(place) | What::Done(place) => Some(place.name().to_owned()),
        _ => None,
    };
    MigrationEvent {
        unix_us: now.1.saturating_sub(now.0.saturating_sub(event.at)),
        after_ms: millis(event.at.saturating_sub(began)),
        event: event.what.name().to_owned(),
        place,
        source: event.source.name().to_owned(),
        host: event.host.clone(),
        heard: match entry.heard {
            Heard::News => "news",
            Heard::Repeated => "repeated",
            Heard::Late => "late",
            Heard::Contradicted => "contradicted",
        }
        .to_owned(),
        lag_us: entry.lag,
        written_us: entry.written,
        times: entry.times,
    }
}
