//! Migrations as hosts tell each other of them: every step so far, in the order in which it became known.
//!
//! Steps name hosts, where events know only `here` and `there`; so they mean the same to everybody. Pure: time comes
//! in as an argument.

use std::collections::BTreeMap;

use lbx_common::migration::{Event, Micros, Phase, Place, Source, What};
use serde::{Deserialize, Serialize};

use super::message::{VmHere, at_most, text};

/// Most migrations that are told at once: the oldest that are over give way first.
pub const MOST: usize = 256;
/// Most steps of one.
const MOST_STEPS: usize = 64;
/// How long one that is over is still told, for those who were away when it ended, in microseconds.
const KEPT: Micros = 300_000_000;

/// One migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Tells it from all others of the same host, also after the daemon's next start.
    pub id: u64,
    /// The VM, by all that is known of it.
    pub vm: VmHere,
    /// What happened.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Counted from 1 within the migration.
    pub number: u64,
    /// [`What::name`]; what a later lbx has besides is passed over.
    pub what: String,
    /// Where the VM runs, if it is about that and it is known.
    #[serde(default)]
    pub on: Option<String>,
    /// The other host, if it is known: where the VM goes to, or comes from.
    #[serde(default)]
    pub host: Option<String>,
    /// Who said so on the host that tells it.
    #[serde(default)]
    pub source: String,
}

impl Account {
    /// Whether it is within bounds.
    ///
    /// # Errors
    /// What is not, in words.
    pub fn check(&self) -> Result<(), String> {
        self.vm.check()?;
        at_most("steps of a migration", self.steps.len(), MOST_STEPS)?;
        self.steps.iter().try_for_each(|step| {
            text("step", &step.what)?;
            text("host", step.on.as_deref().unwrap_or_default())?;
            text("host", step.host.as_deref().unwrap_or_default())?;
            text("source", &step.source)
        })
    }

    /// Whether nothing follows any more.
    pub fn is_over(&self) -> bool {
        self.steps.last().is_some_and(|step| Phase::from_name(&step.what).is_some_and(Phase::is_end))
    }
}

impl Step {
    /// An event as everybody understands it. `own` is this host.
    fn of(event: &Event, own: &str, number: u64) -> Self {
        let on = match event.what {
            What::Resumed(place) | What::Done(place) => match place {
                Place::Here => Some(own.to_owned()),
                Place::There => event.host.clone(),
            },
            _ => None,
        };
        let (what, source) = (event.what.name().to_owned(), event.source.name().to_owned());
        Self { number, what, on, host: event.host.clone(), source }
    }

    /// What it means on this host: `own`, which has a process of the VM or not (`here`). `from` told it.
    pub fn event(&self, own: &str, from: &str, here: bool, at: Micros) -> Option<Event> {
        let ends_here = match &self.on {
            Some(on) => on == own,
            // Elsewhere than at whoever tells it, who does not know where: here, if there is somebody waiting.
            None => here,
        };
        let place = if ends_here { Place::Here } else { Place::There };
        let what = match self.what.as_str() {
            // Who awaits it says as much as that it will come.
            "announced" | "expected" => What::Announced,
            "transferring" => What::Transferring,
            "stopped" => What::Stopped,
            "handed_over" => What::HandedOver,
            "resumed" => What::Resumed(place),
            "done" => What::Done(place),
            "failed" => What::Failed,
            "cancelled" => What::Cancelled,
            _ => return None,
        };
        let host = match (what, &self.on, &self.host) {
            (What::Resumed(Place::There) | What::Done(Place::There), on, _) => on.clone(),
            (What::Resumed(Place::Here) | What::Done(Place::Here), ..) => Some(from.to_owned()),
            _ if self.what == What::Expected.name() => Some(from.to_owned()),
            (.., Some(host)) if host != own => Some(host.clone()),
            (.., Some(_)) => Some(from.to_owned()),
            (.., None) => here.then(|| from.to_owned()),
        };
        Some(Event { what, source: Source::Peer, at, host })
    }
}

/// What this host tells of migrations.
#[derive(Debug, Default)]
pub struct Ledger {
    /// With the time of the last step.
    accounts: Vec<(Micros, Account)>,
}

impl Ledger {
    /// Notes what was news here. `id` is for one that begins. Whether there is anything to tell.
    pub fn note(&mut self, id: u64, vm: VmHere, event: &Event, own: &str) -> bool {
        let open = self.accounts.iter().position(|(_, one)| !one.is_over() && one.vm.is_same(&vm));
        // That a VM is awaited is seen, by whoever finds its process.
        let seen = event.source != Source::Watchdog || event.what == What::Expected;
        let begins = !event.what.phase().is_end() && seen;
        let (at, account) = match open {
            Some(at) => &mut self.accounts[at],
            None if begins => {
                let last = self.accounts.iter().map(|(_, one)| one.id).max();
                let id = id.max(last.map_or(0, |last| last + 1));
                self.accounts.push((event.at, Account { id, vm: vm.clone(), steps: Vec::new() }));
                let newest = self.accounts.len() - 1;
                &mut self.accounts[newest]
            }
            // The end of what was never begun, or what only passing time has told.
            None => return false,
        };
        *at = event.at;
        account.vm.learn(vm);
        let step = Step::of(event, own, account.steps.last().map_or(1, |last| last.number + 1));
        let said = account.steps.iter().rev().find(|one| one.what == step.what);
        // A pass over memory after the other, and what two sources say alike.
        if said.is_some_and(|said| said.on == step.on && said.host == step.host)
            && matches!(event.what, What::Announced | What::Expected | What::Transferring)
        {
            return false;
        }
        if account.steps.len() == MOST_STEPS {
            // Beginning and end matter.
            account.steps.remove(MOST_STEPS / 2);
        }
        account.steps.push(step);
        true
    }

    /// Forgets what has been over for long. Whether there was anything.
    pub fn forget(&mut self, now: Micros) -> bool {
        let before = self.accounts.len();
        self.accounts.retain(|(at, one)| !one.is_over() || now.saturating_sub(*at) < KEPT);
        while self.accounts.len() > MOST {
            let over = self.accounts.iter().position(|(_, one)| one.is_over());
            self.accounts.remove(over.unwrap_or(0));
        }
        self.accounts.len() != before
    }

    /// What an earlier daemon of this boot has told.
    pub(super) const fn of(accounts: Vec<(Micros, Account)>) -> Self {
        Self { accounts }
    }

    /// All of them, each with the time of its last step.
    pub(super) fn dated(&self) -> &[(Micros, Account)] {
        &self.accounts
    }

    /// All of them.
    pub fn list(&self) -> Vec<Account> {
        self.accounts.iter().map(|(_, account)| account.clone()).collect()
    }
}

/// How much of what a peer tells was heard before: the last step of each account.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Seen(BTreeMap<u64, u64>);

impl Seen {
    /// The steps that are new, in their order. A migration that was over before anything was heard of it is none of
    /// ours: nothing waits for it here.
    pub fn news<'a>(&mut self, accounts: &'a [Account]) -> Vec<(&'a VmHere, &'a Step)> {
        let mut news = Vec::new();
        for account in accounts {
            let last = account.steps.last().map_or(0, |step| step.number);
            let known = match self.0.insert(account.id, last) {
                None if account.is_over() => continue,
                known => known.unwrap_or(0),
            };
            let new = account.steps.iter().filter(|step| step.number > known);
            news.extend(new.map(|step| (&account.vm, step)));
        }
        self.0.retain(|id, _| accounts.iter().any(|account| account.id == *id));
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(name: &str) -> VmHere {
        VmHere {
            name: name.into(),
            uuid: None,
            macs: vec!["52:54:00:00:00:01".into()],
            runs: None,
            holds: false,
        }
    }

    /// What `a` notes of its own, and what then is new to somebody else.
    fn told(ledger: &mut Ledger, seen: &mut Seen, events: &[Event]) -> Vec<String> {
        for event in events {
            ledger.note(event.at, vm("web-1"), event, "a");
        }
        seen.news(&ledger.list()).iter().map(|(_, step)| step.what.clone()).collect()
    }

    fn event(what: What, at: Micros) -> Event {
        Event::new(what, Source::Qmp, at)
    }

    #[test]
    fn every_step_is_news_once_whatever_is_said_again() {
        let (mut ledger, mut seen) = (Ledger::default(), Seen::default());
        let begin = [event(What::Announced, 1), event(What::Transferring, 2), event(What::Transferring, 3)];
        assert_eq!(told(&mut ledger, &mut seen, &begin), ["announced", "transferring"]);
        assert_eq!(told(&mut ledger, &mut seen, &[]), [""; 0]);
        // Two steps that came in one message.
        let more = [event(What::Stopped, 4), event(What::HandedOver, 5).with_host("b")];
        assert_eq!(told(&mut ledger, &mut seen, &more), ["stopped", "handed_over"]);
        let end = [event(What::Done(Place::There), 6).with_host("b")];
        assert_eq!(told(&mut ledger, &mut seen, &end), ["done"]);
        // The next one is another; who comes now need not hear of the one that is over.
        let next = [event(What::Announced, 7)];
        assert_eq!(told(&mut ledger, &mut seen, &next), ["announced"]);
        assert_eq!(ledger.list().len(), 2);
        let late: Vec<_> = Seen::default().news(&ledger.list()).iter().map(|(_, s)| s.what.clone()).collect();
        assert_eq!(late, ["announced"]);
    }

    #[test]
    fn the_same_everywhere() {
        let resumed = Step::of(&event(What::Resumed(Place::There), 1).with_host("b"), "a", 1);
        assert_eq!(resumed.on.as_deref(), Some("b"));
        let on = |own: &str, here: bool| {
            let event = resumed.event(own, "a", here, 9).unwrap();
            assert_eq!((event.source, event.at), (Source::Peer, 9));
            (event.what, event.host)
        };
        assert_eq!(on("b", false), (What::Resumed(Place::Here), Some("a".into())), "it came from a");
        assert_eq!(on("c", true), (What::Resumed(Place::There), Some("b".into())));
        // Nobody has said where.
        let lost = Step::of(&event(What::Done(Place::There), 1), "a", 1);
        assert_eq!(lost.event("b", "a", true, 1).unwrap().what, What::Done(Place::Here));
        assert_eq!(lost.event("c", "a", false, 1).unwrap().what, What::Done(Place::There));
        let back = Step::of(&event(What::Done(Place::Here), 1), "a", 1);
        assert_eq!(back.event("b", "a", true, 1).unwrap().what, What::Done(Place::There));
        assert_eq!(back.event("b", "a", true, 1).unwrap().host.as_deref(), Some("a"));
        // Who awaits a VM announces it to all others, and says where it goes.
        let expected = Step::of(&event(What::Expected, 1), "b", 1).event("a", "b", true, 1).unwrap();
        assert_eq!((expected.what, expected.host.as_deref()), (What::Announced, Some("b")));
        let stopped = Step::of(&event(What::Stopped, 1).with_host("b"), "a", 1);
        assert_eq!(stopped.event("b", "a", true, 1).unwrap().host.as_deref(), Some("a"));
        let later = Step { what: "danced".into(), ..stopped };
        assert_eq!(later.event("b", "a", true, 1), None);
    }

    #[test]
    fn what_only_ends_begins_nothing() {
        let mut ledger = Ledger::default();
        for what in [What::Done(Place::Here), What::Failed, What::Cancelled] {
            assert!(!ledger.note(1, vm("web-1"), &event(what, 1), "a"));
        }
        assert!(!ledger.note(1, vm("web-1"), &Event::new(What::Transferring, Source::Watchdog, 1), "a"));
        assert_eq!(ledger.list(), []);
        // Who was found to be awaited, and ended before its monitor was heard.
        assert!(ledger.note(1, vm("web-1"), &Event::new(What::Expected, Source::Watchdog, 1), "a"));
        assert!(ledger.note(2, vm("web-1"), &Event::new(What::Failed, Source::Watchdog, 2), "a"));
        assert_eq!(ledger.list().len(), 1);
    }

    #[test]
    fn nothing_grows_without_end() {
        let mut ledger = Ledger::default();
        for n in 0..1_000 {
            let other = VmHere { macs: Vec::new(), ..vm(&format!("vm{n}")) };
            ledger.note(0, other.clone(), &event(What::Announced, n), "a");
            ledger.note(0, other, &event(What::Failed, n), "a");
        }
        for n in 0..200 {
            ledger.note(0, vm("x"), &event(What::Stopped, 5_000 + n), "a");
            ledger.note(0, vm("x"), &event(What::Resumed(Place::Here), 5_000 + n), "a");
        }
        assert!(ledger.forget(6_000));
        let list = ledger.list();
        assert_eq!(list.len(), MOST);
        let longest = list.iter().find(|one| one.vm.name == "x").unwrap();
        assert_eq!((longest.steps.len(), longest.steps.last().unwrap().number), (MOST_STEPS, 400));
        assert!(list.iter().all(|one| one.check().is_ok()));
        let ids: std::collections::BTreeSet<_> = list.iter().map(|one| one.id).collect();
        assert_eq!(ids.len(), MOST, "one id each");
        assert!(ledger.forget(KEPT * 2));
        assert_eq!(ledger.list().len(), 1, "only what goes on");
    }
}
