//! Probing all targets side by side: a task for each check, and one that judges them all.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lbx_common::health::{Doubt, Judge, Outcome, doubt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Check, Checked, Listed, Row, Way};

/// A new target is not kept waiting for a whole interval.
const SOON: Duration = Duration::from_millis(100);

/// Target and kind of check.
type Key = (String, &'static str);

/// What a probe found.
struct Found {
    key: Key,
    /// Of the task, so that the last words of one that was ended are told from its successor's.
    serial: u64,
    outcome: Outcome,
    detail: String,
    took: Duration,
}

/// A check that runs.
struct Running {
    check: Check,
    way: Way,
    judge: Judge,
    serial: u64,
    /// Since when nobody answers it.
    silent: Option<Instant>,
    row: Row,
    task: Option<JoinHandle<()>>,
}

/// All checks, and who was heard last on which interface.
struct Checks {
    all: BTreeMap<Key, Running>,
    heard: BTreeMap<Option<u32>, Instant>,
    started: Instant,
    serial: u64,
    found: mpsc::Sender<Found>,
}

/// Runs until `lists` is closed. Each message replaces the whole list; a check that is on both keeps its verdict.
/// What is known of a target is sent whenever it was probed.
pub async fn run(mut lists: mpsc::Receiver<Vec<Listed>>, news: mpsc::Sender<(String, Checked)>) {
    let (sender, mut found) = mpsc::channel(64);
    let (all, heard) = (BTreeMap::new(), BTreeMap::new());
    let mut checks = Checks { all, heard, started: Instant::now(), serial: 0, found: sender };
    loop {
        let changed = tokio::select! {
            list = lists.recv() => match list {
                Some(list) => checks.follow(list),
                None => break,
            },
            Some(one) = found.recv() => checks.hear(one).into_iter().collect(),
        };
        for target in changed {
            let checked = checks.of(&target);
            if news.send((target, checked)).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        self.all.values().for_each(Running::end);
    }
}

impl Running {
    fn end(&self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Checks {
    /// Takes over another list; the targets with news.
    fn follow(&mut self, list: Vec<Listed>) -> Vec<String> {
        self.all.retain(|(target, kind), running| {
            let stays = list.iter().any(|one| {
                one.check == running.check
                    && one.check.target == *target
                    && one.check.how.probe.kind() == *kind
            });
            if !stays {
                running.end();
            }
            stays
        });
        let mut changed = Vec::new();
        for Listed { check, known, way } in list {
            let key = (check.target.clone(), check.how.probe.kind());
            if let Some(running) = self.all.get_mut(&key) {
                running.way = way;
                continue;
            }
            changed.push(check.target.clone());
            self.serial += 1;
            let running = start(check, known, way, self.serial, &self.found);
            self.all.insert(key, running);
        }
        changed.dedup();
        changed
    }

    /// Judges what a probe found; the target with news.
    fn hear(&mut self, found: Found) -> Option<String> {
        let now = Instant::now();
        let running = self.all.get_mut(&found.key).filter(|one| one.serial == found.serial)?;
        let link = running.way.link;
        match found.outcome {
            Outcome::Good | Outcome::Refused => {
                running.silent = None;
                self.heard.insert(link, now);
            }
            Outcome::Silent => running.silent = running.silent.or(Some(now)),
            Outcome::Unknown => {}
        }
        let doubt = self.doubt(&found.key);
        let running = self.all.get_mut(&found.key)?;
        let (before, how) = (running.judge.healthy(), &running.check.how);
        let held = running.judge.hear(found.outcome, how.rise, how.fall, doubt);
        let row = &mut running.row;
        row.healthy = running.judge.healthy();
        if row.healthy != before {
            row.since = Some(crate::control::boot_now());
        }
        row.good = found.outcome == Outcome::Good;
        row.took = row.good.then_some(found.took);
        row.in_row = running.judge.in_row();
        // An outcome that says nothing is told in words; the verdict before it stands, and grows old.
        if found.outcome != Outcome::Unknown {
            row.at = Some(now);
        }
        row.detail = found.detail;
        let before = row.held.take();
        row.held = held.then(|| match doubt {
            Doubt::Cut => running.way.cut.clone().unwrap_or_default(),
            _ => "all targets of the service fell silent at once, and nobody else was heard".to_owned(),
        });
        if let (Some(why), None) = (&row.held, before) {
            tracing::warn!("{}: its failing {} check does not count yet: {why}", found.key.0, found.key.1);
        }
        Some(found.key.0)
    }

    fn doubt(&self, key: &Key) -> Doubt {
        let Some(asked) = self.all.get(key) else { return Doubt::None };
        let millis = |at: Instant| at.saturating_duration_since(self.started).as_millis() as u64;
        let service = &asked.check.service;
        let of_service = |one: &&Running| one.check.service == *service && !one.row.impossible;
        let same = self.all.iter().filter(|((_, kind), _)| *kind == key.1).map(|(_, one)| one);
        let peers = same.filter(of_service);
        let silent: Vec<Option<u64>> = peers.map(|one| one.silent.map(millis)).collect();
        let how = &asked.check.how;
        let round = (how.interval * 11 / 10 + how.timeout).as_millis() as u64;
        let heard = self.heard.get(&asked.way.link).copied().map(millis);
        doubt(asked.way.cut.is_some(), &silent, round, heard)
    }

    /// What is known of a target, by all of its checks.
    fn of(&self, target: &str) -> Checked {
        let own = || self.all.iter().filter(|((name, _), _)| name == target).map(|(_, one)| one);
        let rows: Vec<Row> = own().map(|one| one.row.clone()).collect();
        let returns = own().map(|one| one.check.returns).min().unwrap_or(0);
        let healthy = if rows.iter().any(|row| row.healthy == Some(false)) {
            Some(false)
        } else {
            rows.iter().all(|row| row.healthy == Some(true)).then_some(true)
        };
        Checked { healthy, rows, returns }
    }
}

fn start(check: Check, known: Option<bool>, way: Way, serial: u64, found: &mpsc::Sender<Found>) -> Running {
    let impossible = check.impossible();
    let row = Row {
        kind: check.how.probe.kind(),
        what: check.what(),
        healthy: known,
        detail: impossible.unwrap_or("not checked yet").to_owned(),
        good: false,
        in_row: 0,
        since: None,
        took: None,
        at: None,
        held: None,
        impossible: impossible.is_some(),
    };
    let task = impossible.is_none().then(|| {
        let first = if known.is_none() { SOON.min(check.how.interval) } else { check.how.interval };
        tokio::spawn(watch(check.clone(), first, serial, found.clone()))
    });
    Running { check, way, judge: Judge::new(known), serial, silent: None, row, task }
}

async fn watch(check: Check, first: Duration, serial: u64, found: mpsc::Sender<Found>) {
    let key = (check.target.clone(), check.how.probe.kind());
    let mut round = lbx_common::algo::maglev::seed(&check.target) ^ serial;
    // Spread over an interval, so that not all targets are asked at once.
    tokio::time::sleep(jitter(first, &mut round)).await;
    loop {
        let started = Instant::now();
        let (outcome, detail) = check.probe().await;
        let one = Found { key: key.clone(), serial, outcome, detail, took: started.elapsed() };
        if found.send(one).await.is_err() {
            return;
        }
        // 90 to 110 % of the interval.
        let tenth = check.how.interval / 10;
        tokio::time::sleep(check.how.interval.saturating_sub(tenth) + jitter(2 * tenth, &mut round)).await;
    }
}

/// A time below `most`, another one each round (splitmix64).
fn jitter(most: Duration, round: &mut u64) -> Duration {
    *round = round.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *round;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    most.mul_f64((mixed >> 40) as f64 / (1u64 << 24) as f64)
}

#[cfg(test)]
mod tests;
