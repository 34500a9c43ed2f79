//! Health of targets: a TCP connect from the host to the VM's own address, with rise and fall.
//!
//! A new target counts as healthy until its checks have failed `fall` times in a row. A check that this host
//! could not make (no descriptors, no route, no buffers) says nothing about the target: it neither raises nor
//! fells, so that a checker in trouble never takes all targets down.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::{Config, Service, Target, TcpHealth};
use crate::control::resolve::Found;
use crate::host::View;

/// What to check, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Full name of the target.
    pub target: String,
    /// Where to connect to; none if the target's address is not known.
    pub to: Option<SocketAddr>,
    /// How often, how long, how many.
    pub how: TcpHealth,
}

/// What is known about a target's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Healthy or not; `None` while there is no verdict.
    pub healthy: Option<bool>,
    /// The last result in words.
    pub detail: String,
    /// Where the check connects to.
    pub to: Option<SocketAddr>,
    /// Results of one kind in a row.
    pub in_row: u32,
    /// When the verdict last changed, in seconds since 1970.
    pub since: Option<u64>,
    /// How long the last connect took, in microseconds; none if it failed.
    pub micros: Option<u64>,
}

/// The outcome of one connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Good,
    Bad,
    /// The check itself failed.
    Unknown,
}

/// Counts results in a row and turns them into a verdict.
#[derive(Debug, Clone)]
struct Judge {
    healthy: Option<bool>,
    good: u32,
    bad: u32,
}

impl Judge {
    fn hear(&mut self, outcome: Outcome, rise: u32, fall: u32) {
        match outcome {
            Outcome::Good => {
                (self.good, self.bad) = (self.good.saturating_add(1), 0);
                // The first verdict does not wait: the target is in use already.
                if self.good >= rise || self.healthy.is_none() {
                    self.healthy = Some(true);
                }
            }
            Outcome::Bad => {
                (self.bad, self.good) = (self.bad.saturating_add(1), 0);
                if self.bad >= fall {
                    self.healthy = Some(false);
                }
            }
            Outcome::Unknown => {}
        }
    }
}

fn judge_error(error: &io::Error) -> Outcome {
    match error.raw_os_error() {
        // Descriptors, memory, local ports, rights, or a network this host has no way to: our trouble.
        Some(
            libc::EMFILE
            | libc::ENFILE
            | libc::ENOBUFS
            | libc::ENOMEM
            | libc::EADDRNOTAVAIL
            | libc::EACCES
            | libc::EPERM
            | libc::ENETUNREACH
            | libc::ENETDOWN
            | libc::EAGAIN
            | libc::EAFNOSUPPORT,
        ) => Outcome::Unknown,
        _ => Outcome::Bad,
    }
}

/// The checks of a config, with addresses as far as they are known.
pub fn checks(config: &Config, found: &[Found], view: &View) -> Vec<Check> {
    let mut checks = Vec::new();
    for service in &config.services {
        let Some(how) = &service.health.tcp else { continue };
        let own = found.iter().filter(|one| one.base.service == service.name);
        for (target, one) in service.targets.iter().zip(own) {
            let port = how.port.or(target.port).or(service.ports.single());
            let addr = address(service, target, one, view);
            let to = addr.zip(port).map(|(addr, port)| SocketAddr::new(addr, port));
            checks.push(Check { target: one.full_name(), to, how: how.clone() });
        }
    }
    checks
}

/// The configured address, else the one neighbour of this host that has the target's MAC.
fn address(service: &Service, target: &Target, found: &Found, view: &View) -> Option<IpAddr> {
    let configured = target.address.map(IpAddr::V4).or(target.address6.map(IpAddr::V6));
    configured.or_else(|| {
        let mac = found.base.mac?;
        let known = view.neighbours.iter().filter(|one| one.mac == Some(mac));
        let mut usable = known.map(|one| one.address).filter(|addr| {
            let local = matches!(addr, IpAddr::V6(v6) if v6.is_unicast_link_local());
            !local && !service.vips.contains(addr)
        });
        usable.next()
    })
}

/// Runs until `lists` is closed. Each message replaces the whole list; a target that is on both keeps its
/// verdict.
pub async fn run(mut lists: mpsc::Receiver<Vec<Check>>, news: mpsc::Sender<(String, Checked)>) {
    let mut running: BTreeMap<String, (Check, JoinHandle<()>)> = BTreeMap::new();
    while let Some(list) = lists.recv().await {
        running.retain(|name, (check, task)| {
            let stays = list.iter().any(|new| new.target == *name && new == check);
            if !stays {
                task.abort();
            }
            stays
        });
        for check in list {
            if !running.contains_key(&check.target) {
                let task = tokio::spawn(watch(check.clone(), news.clone()));
                running.insert(check.target.clone(), (check, task));
            }
        }
    }
    for (_, task) in running.into_values() {
        task.abort();
    }
}

async fn watch(check: Check, news: mpsc::Sender<(String, Checked)>) {
    let Some(to) = check.to else {
        let detail = "its address is not known: give the target an `address`".to_owned();
        let checked = Checked { healthy: None, detail, to: None, in_row: 0, since: None, micros: None };
        let _ = news.send((check.target, checked)).await;
        return;
    };
    let mut judge = Judge { healthy: None, good: 0, bad: 0 };
    let mut round = lbx_common::algo::maglev::seed(&check.target);
    // Spread over an interval, so that not all targets are asked at once.
    tokio::time::sleep(jitter(check.how.interval, &mut round)).await;
    let mut since = None;
    loop {
        let (started, before) = (Instant::now(), judge.healthy);
        let (outcome, detail) = connect(to, check.how.timeout).await;
        let micros = (outcome == Outcome::Good).then(|| started.elapsed().as_micros() as u64);
        judge.hear(outcome, check.how.rise, check.how.fall);
        if judge.healthy != before {
            since = Some(crate::control::unix_now());
        }
        let in_row = judge.good.max(judge.bad);
        // An unknown outcome is told in words; the verdict before it stands.
        let checked = Checked { healthy: judge.healthy, detail, to: Some(to), in_row, since, micros };
        if news.send((check.target.clone(), checked)).await.is_err() {
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

async fn connect(to: SocketAddr, timeout: Duration) -> (Outcome, String) {
    match tokio::time::timeout(timeout, TcpStream::connect(to)).await {
        Ok(Ok(_)) => (Outcome::Good, format!("connected to {to}")),
        Ok(Err(error)) => {
            let outcome = judge_error(&error);
            let whose = if outcome == Outcome::Unknown { "this host cannot check" } else { "no connection" };
            (outcome, format!("{whose}: {to}: {error}"))
        }
        Err(_) => (Outcome::Bad, format!("no answer from {to} within {} ms", timeout.as_millis())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(outcomes: &str) -> Vec<Option<bool>> {
        let mut judge = Judge { healthy: None, good: 0, bad: 0 };
        outcomes
            .chars()
            .map(|c| {
                let outcome = match c {
                    '+' => Outcome::Good,
                    '-' => Outcome::Bad,
                    _ => Outcome::Unknown,
                };
                judge.hear(outcome, 2, 3);
                judge.healthy
            })
            .collect()
    }

    #[test]
    fn falls_and_rises_as_configured() {
        assert_eq!(run("---").last(), Some(&Some(false)));
        assert_eq!(run("--").last(), Some(&None));
        assert_eq!(run("+--+--").last(), Some(&Some(true)));
        assert_eq!(run("---+").last(), Some(&Some(false)));
        assert_eq!(run("---++").last(), Some(&Some(true)));
    }

    #[test]
    fn a_checker_in_trouble_fells_nobody() {
        assert_eq!(run("+????????").last(), Some(&Some(true)));
        assert_eq!(run("--??-").last(), Some(&Some(false)), "it does not break a row either");
        for errno in [libc::EMFILE, libc::ENETUNREACH, libc::ENOBUFS] {
            assert_eq!(judge_error(&io::Error::from_raw_os_error(errno)), Outcome::Unknown);
        }
        for errno in [libc::ECONNREFUSED, libc::EHOSTUNREACH, libc::ETIMEDOUT] {
            assert_eq!(judge_error(&io::Error::from_raw_os_error(errno)), Outcome::Bad);
        }
    }

    #[test]
    fn jitter_stays_below_its_bound() {
        let mut round = 1;
        let all: Vec<Duration> = (0..100).map(|_| jitter(Duration::from_secs(1), &mut round)).collect();
        assert!(all.iter().all(|one| *one < Duration::from_secs(1)));
        assert!(all.iter().max() > all.iter().min());
    }

    #[tokio::test]
    async fn a_listener_is_found_and_its_absence_too() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        assert_eq!(connect(to, Duration::from_secs(2)).await.0, Outcome::Good);
        drop(listener);
        assert_eq!(connect(to, Duration::from_secs(2)).await.0, Outcome::Bad);
    }
}
