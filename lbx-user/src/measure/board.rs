//! The last reading of everything measured.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::catalogue::{About, Metric};

/// One measured value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// In the unit of its metric.
    pub value: f64,
    /// When it was true; monotonic, so that a step of the clock changes nothing.
    pub at: Instant,
    /// Where it comes from, such as `schedstat` or `tap ring`.
    pub source: &'static str,
    /// What taking it cost; readings taken together share the cost of one.
    pub cost: Duration,
}

impl Reading {
    /// How old it is.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.at)
    }
}

/// The last reading of each metric, by what it is about: nothing (the host), a VM or a target.
#[derive(Debug, Clone, Default)]
pub struct Board {
    readings: Notes<Reading>,
    missing: Notes<String>,
}

/// Something noted for each metric, in the order of their names, by what it is about: found without making a key. Few
/// metrics are about one thing, so that looking at each is the quickest.
type Notes<T> = BTreeMap<About, BTreeMap<String, Vec<(&'static str, T)>>>;

fn note<T>(notes: &mut Notes<T>, about: About, name: &str, values: impl Iterator<Item = (&'static str, T)>) {
    let all = notes.entry(about).or_default();
    let Some(own) = all.get_mut(name) else {
        let mut own: Vec<_> = values.collect();
        own.sort_unstable_by_key(|(metric, _)| *metric);
        all.insert(name.to_owned(), own);
        return;
    };
    for (metric, value) in values {
        match own.iter().position(|(known, _)| *known >= metric) {
            Some(at) if own[at].0 == metric => own[at].1 = value,
            Some(at) => own.insert(at, (metric, value)),
            None => own.push((metric, value)),
        }
    }
}

fn noted<'a, T>(notes: &'a Notes<T>, metric: &Metric, name: &str) -> Option<&'a T> {
    let own = notes.get(&metric.about)?.get(name)?;
    own.iter().find(|(of, _)| *of == metric.name).map(|(_, value)| value)
}

impl Board {
    /// Notes a reading. `name` is the VM or the target; of the host it is empty.
    pub fn put(&mut self, metric: &Metric, name: &str, reading: Reading) {
        self.put_all(metric.about, name, &[(metric, reading)]);
    }

    /// Notes readings of different metrics about one thing.
    pub fn put_all(&mut self, about: About, name: &str, readings: &[(&Metric, Reading)]) {
        if let Some(missing) = self.missing.get_mut(&about).and_then(|all| all.get_mut(name)) {
            missing.retain(|(known, _)| readings.iter().all(|(metric, _)| metric.name != *known));
        }
        let named = readings.iter().map(|(metric, reading)| (metric.name, *reading));
        note(&mut self.readings, about, name, named);
    }

    /// Notes why there is no (new) reading. The last one stays, and grows old.
    pub fn miss(&mut self, metric: &Metric, name: &str, why: String) {
        note(&mut self.missing, metric.about, name, std::iter::once((metric.name, why)));
    }

    /// Why the last reading is not newer, or why there is none.
    pub fn why_missing(&self, metric: &Metric, name: &str) -> Option<&str> {
        noted(&self.missing, metric, name).map(String::as_str)
    }

    /// The last reading, however old.
    pub fn get(&self, metric: &Metric, name: &str) -> Option<Reading> {
        let name = if metric.about == About::Host { "" } else { name };
        noted(&self.readings, metric, name).copied()
    }

    /// All readings about one thing, by the names of their metrics.
    pub fn all(&self, about: About, name: &str) -> impl Iterator<Item = (&'static str, Reading)> {
        self.readings.get(&about).and_then(|all| all.get(name)).into_iter().flatten().copied()
    }

    /// The names of the VMs or targets with readings.
    pub fn names(&self, about: About) -> impl Iterator<Item = &str> {
        self.readings.get(&about).into_iter().flat_map(BTreeMap::keys).map(String::as_str)
    }

    /// Forgets what is gone: whatever `keep` does not want.
    pub fn retain(&mut self, about: About, keep: impl Fn(&str) -> bool) {
        self.readings.entry(about).or_default().retain(|name, _| keep(name));
        self.missing.entry(about).or_default().retain(|name, _| keep(name));
    }
}

/// A board that sources write and others read; clones are the same board.
#[derive(Debug, Clone, Default)]
pub struct Shared {
    board: Arc<Mutex<Board>>,
    alarm: Arc<Notify>,
}

impl Shared {
    /// Something was written that does not wait for the next look: a queue grows.
    pub fn raise(&self) {
        self.alarm.notify_one();
    }

    /// What [`Shared::raise`] wakes.
    pub fn alarm(&self) -> Arc<Notify> {
        Arc::clone(&self.alarm)
    }

    /// The board, for as long as it is looked at: no waiting, no I/O meanwhile.
    pub fn lock(&self) -> MutexGuard<'_, Board> {
        // A reading is one insert: whoever panicked left no half of one behind.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::find;
    use super::*;

    fn reading(value: f64) -> Reading {
        Reading { value, at: Instant::now(), source: "test", cost: Duration::ZERO }
    }

    #[test]
    fn the_last_reading_counts_until_its_vm_is_gone() {
        let board = Shared::default();
        let (cpu, host) = (find("vm_cpu").unwrap(), find("host_cpu").unwrap());
        board.lock().put(cpu, "web-1", reading(0.5));
        let second = reading(0.25);
        board.lock().put(cpu, "web-1", second);
        board.lock().put(host, "", reading(0.75));
        let of = |metric| board.lock().get(metric, "web-1");
        assert_eq!(of(cpu).unwrap(), second);
        assert!(of(host).is_some(), "the host is the same for all");
        assert_eq!(board.lock().names(About::Vm).collect::<Vec<_>>(), ["web-1"]);
        assert_eq!(board.lock().all(About::Vm, "web-1").count(), 1);
        board.lock().retain(About::Vm, |name| name != "web-1");
        assert_eq!(of(cpu), None);
        assert!(of(host).is_some());
    }

    #[test]
    fn what_is_missing_has_a_reason_until_it_is_there() {
        let (mut board, qmp) = (Board::default(), find("vm_qmp").unwrap());
        board.miss(qmp, "web-1", "no answer for 3 s".to_owned());
        assert_eq!(board.why_missing(qmp, "web-1"), Some("no answer for 3 s"));
        assert_eq!(board.why_missing(qmp, "web-2"), None);
        board.put(qmp, "web-1", reading(1.0));
        assert_eq!(board.why_missing(qmp, "web-1"), None);
        board.miss(qmp, "web-1", "gone".to_owned());
        assert!(board.get(qmp, "web-1").is_some(), "what was read stays, and grows old");
        board.retain(About::Vm, |_| false);
        assert_eq!(board.why_missing(qmp, "web-1"), None);
    }
}
