//! How every peer is: written by the connections, read by the API, metrics and the log.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::message::{Hello, VmHere};
use crate::config;
use crate::migration::{self, Micros};

/// One direction of what connects this host and a peer.
#[derive(Debug, Clone, Default)]
pub struct Line {
    /// Since when it is up; `None`: it is not.
    pub up: Option<Instant>,
    /// Since when it is not.
    pub down: Option<Instant>,
    /// Why it is not.
    pub error: Option<String>,
    /// How often it came up.
    pub times: u64,
    /// Messages over it.
    pub messages: u64,
}

impl Line {
    fn rise(&mut self) {
        *self = Self {
            up: Some(Instant::now()),
            down: None,
            error: None,
            times: self.times + 1,
            messages: self.messages,
        };
    }

    /// Whether that is news, or another reason than before.
    fn fall(&mut self, why: String) -> bool {
        let news = self.up.is_some() || self.error.as_ref() != Some(&why);
        if self.up.take().is_some() || self.down.is_none() {
            self.down = Some(Instant::now());
        }
        self.error = Some(why);
        news
    }
}

/// A peer.
#[derive(Debug, Clone)]
pub struct Row {
    /// Where it listens.
    pub address: SocketAddr,
    /// What this host tells it.
    pub to: Line,
    /// What is heard from it.
    pub from: Line,
    /// When it was heard last.
    pub heard: Option<Instant>,
    /// When it answered last.
    pub answered: Option<Instant>,
    /// Who speaks there.
    pub hello: Option<Hello>,
    /// The VMs it has, or had when it was heard last.
    pub vms: Vec<VmHere>,
    /// Which connection from it counts: the newest.
    newest: u64,
}

/// Who is heard says so every second; after two without a word nobody knows any more how things are there.
const FRESH: Duration = Duration::from_secs(2);

impl Row {
    fn is_heard(&self) -> bool {
        self.from.up.is_some() && self.heard.is_some_and(|at| at.elapsed() < FRESH)
    }
}

/// Somebody who was refused.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// When.
    pub at: Instant,
    /// Where it came from.
    pub from: SocketAddr,
    /// Why.
    pub why: String,
}

/// Everything.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// Peers by name.
    pub rows: BTreeMap<String, Row>,
    /// Why there is no listening.
    pub problem: Option<String>,
    /// Connections that were refused or closed for what came over them, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// The last of them.
    pub last: Option<Refusal>,
}

/// The one table.
#[derive(Debug, Clone, Default)]
pub struct Shared(Arc<Mutex<Table>>);

impl Shared {
    /// To look at; nobody holds it across a wait.
    pub fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Other peers from now on, or none. What was counted stays.
    pub(super) fn begin(&self, config: Option<&config::Peers>) {
        let mut table = self.lock();
        table.problem = None;
        let others = config.map(|config| config.others.as_slice()).unwrap_or_default();
        let fresh = |peer: &config::Peer| Row {
            address: peer.address,
            to: Line::default(),
            from: Line::default(),
            heard: None,
            answered: None,
            hello: None,
            vms: Vec::new(),
            newest: 0,
        };
        table.rows = others.iter().map(|peer| (peer.name.clone(), fresh(peer))).collect();
    }

    /// Why there are no peers, or no listening; `None`: all is well.
    pub fn set_problem(&self, problem: Option<String>) {
        let mut table = self.lock();
        if table.problem != problem {
            match &problem {
                Some(text) => tracing::error!("peers: {text}"),
                None => tracing::info!("peers: that is over"),
            }
            table.problem = problem;
        }
    }

    fn row(&self, peer: &str, change: impl FnOnce(&mut Row)) {
        if let Some(row) = self.lock().rows.get_mut(peer) {
            change(row);
        }
    }

    pub(super) fn reached(&self, peer: &str) {
        self.row(peer, |row| {
            row.to.rise();
            tracing::info!("peer {peer} ({}) is reached", row.address);
        });
    }

    pub(super) fn unreachable(&self, peer: &str, why: &str) {
        self.row(peer, |row| {
            if row.to.fall(why.to_owned()) {
                tracing::warn!("peer {peer} ({}) is not reached: {why}", row.address);
            }
        });
    }

    pub(super) fn sent(&self, peer: &str) {
        self.row(peer, |row| row.to.messages += 1);
    }

    pub(super) fn answered(&self, peer: &str) {
        self.row(peer, |row| row.answered = Some(Instant::now()));
    }

    /// A connection from the peer: its number, and whether the peer has started anew since the one before.
    pub(super) fn heard_first(&self, peer: &str, hello: Hello) -> (u64, bool) {
        let mut result = (0, false);
        self.row(peer, |row| {
            let anew = row.hello.as_ref().is_none_or(|before| before.instance != hello.instance);
            row.from.rise();
            row.heard = Some(Instant::now());
            row.hello = Some(hello);
            row.newest += 1;
            result = (row.newest, anew);
        });
        result
    }

    /// Something came over connection `number`; whether that is still the one that counts.
    pub(super) fn heard(&self, peer: &str, number: u64, vms: Option<&[VmHere]>) -> bool {
        let mut counts = false;
        self.row(peer, |row| {
            counts = row.newest == number;
            if counts {
                row.heard = Some(Instant::now());
                row.from.messages += 1;
                if let Some(vms) = vms {
                    row.vms = vms.to_vec();
                }
            }
        });
        counts
    }

    /// Connection `number` is over; whether it was the one that counted.
    pub(super) fn lost(&self, peer: &str, number: u64, why: &str) -> bool {
        let mut counted = false;
        self.row(peer, |row| {
            counted = row.newest == number;
            if counted && row.from.fall(why.to_owned()) {
                tracing::warn!("peer {peer} is not heard any more: {why}");
            }
        });
        counted
    }

    /// The peers that were heard a moment ago, and when they last said or answered something: what others said last may
    /// be so no more.
    pub fn heard_now(&self) -> BTreeMap<String, Micros> {
        let (table, now) = (self.lock(), migration::now());
        let at = |row: &Row| {
            let ago = row.heard.max(row.answered)?.elapsed();
            Some(now.saturating_sub(ago.as_micros() as u64))
        };
        let heard = table.rows.iter().filter(|(_, row)| row.is_heard());
        heard.filter_map(|(name, row)| Some((name.clone(), at(row)?))).collect()
    }

    /// What each peer that is heard says of a VM: whether it runs there. Of a VM that is not on this host (`absent`)
    /// a process on another host says enough, where its lbx knows no more.
    pub fn say(&self, vm: &VmHere, absent: bool) -> Vec<(String, bool)> {
        let table = self.lock();
        let heard = table.rows.iter().filter(|(_, row)| row.is_heard());
        heard
            .filter_map(|(peer, row)| {
                let runs = match row.vms.iter().find(|one| one.is_same(vm)) {
                    Some(one) => one.runs.or(absent.then_some(true))?,
                    None => false,
                };
                Some((peer.clone(), runs))
            })
            .collect()
    }

    /// Whether a peer that is heard lets packets for a VM wait until it runs there.
    pub fn holds(&self, peer: &str, vm: &VmHere) -> bool {
        let table = self.lock();
        let row = table.rows.get(peer).filter(|row| row.from.up.is_some());
        row.is_some_and(|row| row.vms.iter().any(|one| one.holds && one.is_same(vm)))
    }

    /// Whether a peer that is heard has a process of a VM.
    pub fn has(&self, peer: &str, vm: &VmHere) -> Option<bool> {
        let table = self.lock();
        let row = table.rows.get(peer).filter(|row| row.is_heard())?;
        Some(row.vms.iter().any(|one| one.is_same(vm)))
    }

    pub(super) fn refuse(&self, from: SocketAddr, kind: &'static str, why: String) {
        let mut table = self.lock();
        *table.refused.entry(kind).or_default() += 1;
        // Whoever knocks on and on fills no log.
        if table.last.as_ref().is_none_or(|last| last.why != why || last.from.ip() != from.ip()) {
            tracing::warn!("peers: {from} is refused ({kind}): {why}");
        }
        table.last = Some(Refusal { at: Instant::now(), from, why });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_connection_counts() {
        let shared = Shared::default();
        let at = "10.0.0.2:9346".parse().unwrap();
        let others = vec![config::Peer { name: "b".into(), address: at, tunnel: None, tunnel_mtu: None }];
        let (listen, path) = (at, std::path::PathBuf::new());
        let (ca, certificate, key) = (path.clone(), path.clone(), path);
        let config = config::Peers { name: "a".into(), listen, ca, certificate, key, tunnel: None, others };
        shared.begin(Some(&config));
        let hello = |instance: &str| Hello {
            name: "b".into(),
            instance: instance.to_owned(),
            software: String::new(),
        };
        let (one, anew) = shared.heard_first("b", hello("1"));
        assert!(anew);
        let (two, anew) = shared.heard_first("b", hello("1"));
        assert!(!anew, "the same daemon");
        assert!(!shared.heard("b", one, None) && shared.heard("b", two, Some(&[])));
        assert!(!shared.lost("b", one, "closed"));
        assert!(shared.lock().rows["b"].from.up.is_some());
        assert!(shared.lost("b", two, "closed"));
        assert!(shared.lock().rows["b"].from.up.is_none());
        assert!(shared.heard_first("b", hello("2")).1);
        assert!(!shared.heard("stranger", 0, None));
    }

    #[test]
    fn what_a_peer_has_and_what_runs_there() {
        let vm = |runs| VmHere { name: "web-1".into(), uuid: None, macs: Vec::new(), runs, holds: false };
        let other = VmHere { name: "web-2".into(), ..vm(Some(true)) };
        let shared = Shared::default();
        let row = |vms: Vec<VmHere>, up: bool| Row {
            address: "10.0.0.2:9346".parse().unwrap(),
            to: Line::default(),
            from: Line { up: up.then(Instant::now), ..Line::default() },
            heard: up.then(Instant::now),
            answered: None,
            hello: None,
            vms,
            newest: 0,
        };
        let has = [
            ("a", row(vec![vm(Some(true))], false)),
            ("b", row(vec![vm(Some(false))], true)),
            ("c", row(vec![vm(None), other], true)),
            ("d", row(Vec::new(), true)),
        ];
        shared.lock().rows = has.map(|(name, row)| (name.to_owned(), row)).into();
        let say = |absent| shared.say(&vm(None), absent).into_iter().map(|(p, runs)| format!("{p} {runs}"));
        assert_eq!(say(false).collect::<Vec<_>>(), ["b false", "d false"], "a is not heard, c does not know");
        assert_eq!(say(true).collect::<Vec<_>>(), ["b false", "c true", "d false"]);
        let has = ["a", "b", "d", "e"].map(|peer| shared.has(peer, &vm(None)));
        assert_eq!(has, [None, Some(true), Some(false), None]);
    }

    #[test]
    fn a_line_that_stays_down_keeps_its_time() {
        let mut line = Line::default();
        assert!(line.fall("no route".into()));
        let since = line.down;
        assert!(!line.fall("no route".into()), "no news");
        assert!(line.fall("refused".into()));
        assert_eq!(line.down, since);
        line.rise();
        assert!(line.fall("refused".into()));
        assert!(line.down >= since && line.times == 1);
    }
}
