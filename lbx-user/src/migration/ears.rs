//! What QEMU's monitor says, as events of a migration.
//!
//! `STOP`, `RESUME`, `MIGRATION`, `MIGRATION_PASS` (the last two need the migration capability `events`), and the
//! answers to `query-status` and `query-migrate` for what was said while nobody listened (QEMU's qapi/run-state.json
//! and qapi/migration.json).

use std::time::{SystemTime, UNIX_EPOCH};

use lbx_common::migration::{Event, Here, Micros, Place, Source, What};
use serde_json::Value;

use super::facts::Board;
use super::fast::{Fast, Trigger};
use super::{Stream, Told, VmId, now};
use crate::peers::message::VmHere;

/// Whom to tell. By default nobody.
#[derive(Debug, Clone, Default)]
pub struct Ears {
    /// The core.
    pub stream: Stream,
    /// Whoever wants to know what a VM is doing.
    pub facts: Board,
    /// What must not wait for the core.
    pub fast: Fast,
}

impl Ears {
    /// A peer says that a VM runs there, since a moment ago. Stores what the core has worked out for that, and tells the
    /// core; where nothing was worked out, it hears of it as a step of the migration, and decides then.
    pub fn runs_there(&self, peer: &str, vm: &VmHere) {
        let at = now();
        // Its monitor knows better.
        let runs = |(pid, start)| self.facts.get(pid, start).and_then(Here::runs) == Some(true);
        let Some((id, flipped)) = self.fast.fire_there(peer, vm, runs) else {
            tracing::debug!("peer {peer} has {} now; nothing was worked out for that", vm.name);
            return;
        };
        let written = (!flipped.is_empty()).then(|| now().saturating_sub(at));
        let event = Event::new(What::Resumed(Place::There), Source::Peer, at).with_host(peer);
        self.stream.say(Told { written, flipped, ..Told::new(id, event) });
    }
}

/// One VM's monitor.
#[derive(Debug)]
pub struct Ear {
    ears: Ears,
    vm: VmId,
    process: (u32, u64),
    /// It was awaited here when it was heard first, and has not fully arrived.
    arriving: bool,
    /// Its CPUs run.
    running: bool,
    /// A migration is under way.
    migrating: bool,
    /// It was handed over.
    gone: bool,
    heard: u64,
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.ears.facts.set(self.process.0, self.process.1, None);
    }
}

impl Ear {
    /// For the VM of a process.
    pub fn new(ears: Ears, vm: VmId, process: (u32, u64)) -> Self {
        Self { ears, vm, process, arriving: false, running: true, migrating: false, gone: false, heard: 0 }
    }

    /// Events so far that say what the VM does.
    pub const fn heard(&self) -> u64 {
        self.heard
    }

    /// What `query-status` answered, when the monitor is heard first and from time to time, and whether `query-migrate`
    /// says that a migration is under way, if it was asked. `asked`: what had been heard before they were asked. QEMU
    /// finds an answer first and sends it later, and an event that happens between is sent before it: then the event is
    /// the newer one, and the answer, which counts for nothing, is to be asked for again. Whether it counts.
    pub fn status(&mut self, status: &Value, under_way: Option<bool>, asked: u64, first: bool) -> bool {
        if self.heard != asked {
            return false;
        }
        self.answered(status, under_way, first);
        true
    }

    fn answered(&mut self, status: &Value, under_way: Option<bool>, first: bool) {
        let Some(status) = status["status"].as_str() else { return };
        let before = self.here();
        // A guest that sleeps is not stopped: its first packet may wake it.
        self.running = matches!(status, "running" | "suspended" | "colo" | "watchdog");
        self.gone = status == "postmigrate";
        self.arriving |= status == "inmigrate";
        self.migrating = under_way.unwrap_or(self.migrating) || status == "finish-migrate";
        self.know();
        if !first && self.here() == before {
            return;
        }
        let whats: &[What] = match self.here() {
            Here::Incoming if self.migrating => &[What::Expected, What::Transferring],
            Here::Incoming => &[What::Expected],
            Here::Migrating => &[What::Transferring],
            Here::Finishing => &[What::Transferring, What::Stopped],
            Here::Paused => &[What::Stopped],
            Here::Gone => &[What::HandedOver],
            _ => &[What::Resumed(Place::Here)],
        };
        for what in whats {
            self.say(*what, None);
        }
    }

    /// An event.
    pub fn event(&mut self, event: &Value) {
        let lag = || lag(&event["timestamp"]);
        let says = matches!(event["event"].as_str(), Some("STOP" | "RESUME" | "MIGRATION"));
        self.heard += u64::from(says);
        match event["event"].as_str() {
            Some("STOP") if !self.arriving => self.stopped(lag()),
            Some("RESUME") => self.resumed(lag()),
            Some("MIGRATION") => self.migration(event["data"]["status"].as_str().unwrap_or_default(), lag()),
            Some("MIGRATION_PASS") => self.say(What::Transferring, lag()),
            _ => {}
        }
    }

    fn stopped(&mut self, lag: Option<Micros>) {
        let told = self.fire(What::Stopped, Trigger::Stop, lag);
        self.running = false;
        self.know();
        self.ears.stream.say(told);
    }

    fn resumed(&mut self, lag: Option<Micros>) {
        let told = self.fire(What::Resumed(Place::Here), Trigger::Resume, lag);
        (self.running, self.gone) = (true, false);
        self.know();
        self.ears.stream.say(told);
    }

    /// Stores what must not wait, and notes how long that took.
    fn fire(&self, what: What, trigger: Trigger, lag: Option<Micros>) -> Told {
        let at = now();
        let flipped = self.ears.fast.fire(self.process.0, self.process.1, trigger);
        let written = (!flipped.is_empty()).then(|| now().saturating_sub(at));
        Told { lag, written, flipped, ..Told::new(self.vm.clone(), Event::new(what, Source::Qmp, at)) }
    }

    fn migration(&mut self, status: &str, lag: Option<Micros>) {
        let what = match status {
            "completed" if self.arriving => {
                self.arriving = false;
                What::Done(Place::Here)
            }
            "completed" => {
                self.gone = true;
                What::HandedOver
            }
            "failed" => What::Failed,
            "cancelled" => What::Cancelled,
            status if is_under_way(status) => What::Transferring,
            _ => return,
        };
        self.migrating = what == What::Transferring;
        self.know();
        self.say(what, lag);
    }

    const fn here(&self) -> Here {
        match (self.running, self.migrating) {
            _ if self.gone => Here::Gone,
            (false, _) if self.arriving => Here::Incoming,
            (true, true) if !self.arriving => Here::Migrating,
            (true, _) => Here::Running,
            (false, true) => Here::Finishing,
            (false, false) => Here::Paused,
        }
    }

    fn know(&self) {
        self.ears.facts.set(self.process.0, self.process.1, Some(self.here()));
    }

    fn say(&self, what: What, lag: Option<Micros>) {
        let told = Told::new(self.vm.clone(), Event::new(what, Source::Qmp, now()));
        self.ears.stream.say(Told { lag, ..told });
    }
}

/// Whether a `MigrationStatus` is one of those between beginning and end.
pub fn is_under_way(status: &str) -> bool {
    matches!(
        status,
        "setup"
            | "active"
            | "device"
            | "pre-switchover"
            | "wait-unplug"
            | "cancelling"
            | "colo"
            | "postcopy-active"
            | "postcopy-paused"
            | "postcopy-recover"
    )
}

/// From the time QEMU stamped to now, both by the wall's clock of this host: unless somebody has set that meanwhile.
fn lag(timestamp: &Value) -> Option<Micros> {
    const LONGEST: Micros = 60_000_000;
    let then = timestamp["seconds"].as_u64()? * 1_000_000 + timestamp["microseconds"].as_u64()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_micros() as u64;
    now.checked_sub(then).filter(|lag| *lag < LONGEST)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ear() -> (Ear, tokio::sync::mpsc::UnboundedReceiver<Told>) {
        let (stream, told) = Stream::new();
        let ears = Ears { stream, facts: Board::default(), fast: Fast::default() };
        (Ear::new(ears, VmId::named("web-1"), (7, 9)), told)
    }

    /// Asks, and nothing happens meanwhile.
    fn asked(ear: &mut Ear, status: &str, under_way: Option<bool>, first: bool) {
        let heard = ear.heard();
        assert!(ear.status(&json!({ "status": status }), under_way, heard, first));
    }

    fn said(told: &mut tokio::sync::mpsc::UnboundedReceiver<Told>) -> Vec<What> {
        std::iter::from_fn(|| told.try_recv().ok()).map(|told| told.event.what).collect()
    }

    fn migration(status: &str) -> Value {
        json!({ "event": "MIGRATION", "data": { "status": status } })
    }

    #[test]
    fn a_source_is_heard_from_active_to_handed_over() {
        let (mut ear, mut told) = ear();
        let facts = ear.ears.facts.clone();
        asked(&mut ear, "running", Some(false), true);
        assert_eq!(said(&mut told), [What::Resumed(Place::Here)]);
        let here = || facts.get(7, 9);
        for (event, what, is) in [
            (migration("setup"), What::Transferring, Here::Migrating),
            (migration("active"), What::Transferring, Here::Migrating),
            (json!({ "event": "MIGRATION_PASS" }), What::Transferring, Here::Migrating),
            (json!({ "event": "STOP" }), What::Stopped, Here::Finishing),
            (migration("completed"), What::HandedOver, Here::Gone),
        ] {
            ear.event(&event);
            assert_eq!((said(&mut told), here()), (vec![what], Some(is)), "{event}");
        }
        asked(&mut ear, "postmigrate", None, false);
        assert_eq!(said(&mut told), [], "nothing new");
        drop(ear);
        assert_eq!(facts.get(7, 9), None, "not heard any more");
    }

    #[test]
    fn a_destination_is_heard_until_it_has_arrived() {
        let (mut ear, mut told) = ear();
        asked(&mut ear, "inmigrate", Some(false), true);
        ear.event(&migration("active"));
        ear.event(&json!({ "event": "RESUME" }));
        ear.event(&migration("completed"));
        let whats = [What::Expected, What::Transferring, What::Resumed(Place::Here), What::Done(Place::Here)];
        assert_eq!(said(&mut told), whats);
        assert_eq!(ear.ears.facts.get(7, 9), Some(Here::Running));
        // And is a source from then on.
        ear.event(&migration("active"));
        assert_eq!(ear.ears.facts.get(7, 9), Some(Here::Migrating));
        ear.event(&migration("failed"));
        assert_eq!(said(&mut told), [What::Transferring, What::Failed]);
    }

    #[test]
    fn an_event_is_newer_than_an_answer_that_it_overtook() {
        let (mut ear, mut told) = ear();
        asked(&mut ear, "inmigrate", Some(false), true);
        said(&mut told);
        let before = ear.heard();
        ear.event(&json!({ "event": "RESUME" }));
        ear.event(&migration("completed"));
        said(&mut told);
        let old = json!({ "status": "inmigrate" });
        assert!(!ear.status(&old, None, before, false), "found before RESUME, sent after it");
        assert_eq!((said(&mut told), ear.ears.facts.get(7, 9)), (vec![], Some(Here::Running)));
        // It has not become a VM that is awaited again: its stop is heard.
        ear.event(&json!({ "event": "STOP" }));
        assert_eq!(said(&mut told), [What::Stopped]);
    }

    #[test]
    fn what_was_missed_is_found_out() {
        let (mut ear, mut told) = ear();
        asked(&mut ear, "running", Some(false), true);
        said(&mut told);
        asked(&mut ear, "finish-migrate", None, false);
        assert_eq!(said(&mut told), [What::Transferring, What::Stopped]);
        asked(&mut ear, "running", Some(false), false);
        assert_eq!(said(&mut told), [What::Resumed(Place::Here)]);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let stamp = |seconds| json!({ "seconds": seconds, "microseconds": 5 });
        assert!(lag(&stamp(now - 1)).is_some_and(|lag| lag > 0) && lag(&Value::Null).is_none());
        assert_eq!([lag(&stamp(1)), lag(&stamp(now + 3600))], [None, None], "the clock was set meanwhile");
    }
}
