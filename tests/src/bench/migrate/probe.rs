//! Probes: requests and datagrams at a steady pace, each noted with its time.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::lab::Netns;
use crate::lab::client::http::Connection;
use crate::lab::client::udp;
use crate::lab::migrate::now;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// HTTP on a connection that stays, to the VM that migrates.
    KeepAlive,
    /// HTTP on a new connection each time.
    Fresh,
    /// Datagrams of one flow to the VM that migrates; nobody waits for an answer before sending the next.
    Datagram,
}

/// One question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// When it was asked, in microseconds since the epoch.
    pub at: u64,
    /// It was answered, and rightly.
    pub good: bool,
    /// Microseconds to its answer, or until it had failed.
    pub took: u32,
    /// The VM that migrates gave it.
    pub migrating: bool,
    /// A datagram: microseconds until the kernel had sent it.
    pub sending: u32,
}

/// How to probe.
#[derive(Debug, Clone)]
pub struct Probe {
    /// What is asked.
    pub kind: Kind,
    /// Who is asked.
    pub at: SocketAddr,
    /// Addresses to ask from, in turn.
    pub sources: Vec<IpAddr>,
    /// Time between two questions.
    pub interval: Duration,
    /// The VM that migrates.
    pub vm: String,
}

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(10);

/// A probe at work.
pub struct Running {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Sample>>>,
}

impl Probe {
    /// Starts it in a namespace; returns when it has who it wants to talk to.
    pub fn start(self, ns: &Netns) -> Running {
        let (stop, ready) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (theirs, told, ns) = (Arc::clone(&stop), Arc::clone(&ready), ns.clone());
        let thread = thread::spawn(move || {
            ns.enter()?;
            match self.kind {
                Kind::KeepAlive => self.keep_alive(&theirs, &told),
                Kind::Fresh => Ok(self.fresh(&theirs, &told)),
                Kind::Datagram => self.datagrams(&theirs, &told),
            }
        });
        while !ready.load(Ordering::SeqCst) && !thread.is_finished() {
            sleep(Duration::from_millis(5));
        }
        Running { stop, thread }
    }

    fn source(&self, n: usize) -> Option<IpAddr> {
        self.sources.get(n % self.sources.len().max(1)).copied()
    }

    /// Connections are opened until one is the VM's.
    fn keep_alive(&self, stop: &AtomicBool, ready: &AtomicBool) -> Result<Vec<Sample>> {
        let open = |n: usize| Connection::open(self.at, self.source(n), LIMIT);
        let mut connection = None;
        for n in 0..300 {
            let mut one = open(n)?;
            if one.request("GET", "/", b"", None)?.vm == self.vm {
                connection = Some(one);
                break;
            }
        }
        let mut connection = Some(connection.with_context(|| format!("no connection came to {}", self.vm))?);
        ready.store(true, Ordering::SeqCst);
        let mut samples = Vec::new();
        while !stop.load(Ordering::SeqCst) {
            let (at, start) = (now(), Instant::now());
            let answer = match &mut connection {
                Some(one) => one.request("GET", "/", b"", None),
                None => open(samples.len()).map_err(Into::into).and_then(|mut one| {
                    let answer = one.request("GET", "/", b"", None)?;
                    connection = Some(one);
                    Ok(answer)
                }),
            };
            let good = answer.as_ref().is_ok_and(|answer| answer.status == 200);
            samples.push(sample(at, start, good, answer.as_ref().is_ok_and(|answer| answer.vm == self.vm)));
            if !good {
                // Nothing is asked again: that one failed, and the next one has a new connection.
                connection = None;
            }
            sleep(self.interval.saturating_sub(start.elapsed()));
        }
        Ok(samples)
    }

    fn fresh(&self, stop: &AtomicBool, ready: &AtomicBool) -> Vec<Sample> {
        ready.store(true, Ordering::SeqCst);
        let mut samples = Vec::new();
        while !stop.load(Ordering::SeqCst) {
            let (at, start) = (now(), Instant::now());
            let answer = Connection::open(self.at, self.source(samples.len()), LIMIT)
                .map_err(Into::into)
                .and_then(|mut one| one.request("GET", "/", b"", None));
            let good = answer.as_ref().is_ok_and(|answer| answer.status == 200);
            samples.push(sample(at, start, good, answer.is_ok_and(|answer| answer.vm == self.vm)));
            sleep(self.interval.saturating_sub(start.elapsed()));
        }
        samples
    }

    /// Flows are opened until one is the VM's.
    fn datagrams(&self, stop: &AtomicBool, ready: &AtomicBool) -> Result<Vec<Sample>> {
        let mut found = None;
        for n in 0..300 {
            let socket = udp::socket(self.at, self.source(n), Duration::from_secs(1))?;
            if udp::ask(&socket, b"who").is_ok_and(|vm| vm == self.vm) {
                found = Some(socket);
                break;
            }
        }
        let socket = found.with_context(|| format!("no flow came to {}", self.vm))?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let samples: Arc<Mutex<Vec<Sample>>> = Arc::default();
        let (theirs, input, over) =
            (Arc::clone(&samples), socket.try_clone()?, Arc::new(AtomicBool::new(false)));
        let (ended, vm) = (Arc::clone(&over), format!("{} ", self.vm));
        let reader = thread::spawn(move || {
            let mut answer = [0; 128];
            while !ended.load(Ordering::SeqCst) {
                let Ok(n) = input.recv(&mut answer) else { continue };
                let Some(number) = answer[..n].last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))
                else {
                    continue;
                };
                let mut all = theirs.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(one) = all.get_mut(number as usize) {
                    one.took = now().saturating_sub(one.at).min(u64::from(u32::MAX)) as u32;
                    one.good = true;
                    one.migrating = answer.starts_with(vm.as_bytes());
                }
            }
        });
        ready.store(true, Ordering::SeqCst);
        let (start, mut number) = (Instant::now(), 0_u32);
        while !stop.load(Ordering::SeqCst) {
            samples.lock().unwrap_or_else(PoisonError::into_inner).push(Sample {
                at: now(),
                good: false,
                took: 0,
                migrating: false,
                sending: 0,
            });
            let begun = Instant::now();
            // Refused is lost, and counted as that.
            let _ = socket.send(&u64::from(number).to_be_bytes());
            if let Some(one) = samples.lock().unwrap_or_else(PoisonError::into_inner).last_mut() {
                one.sending = micros(begun);
            }
            number += 1;
            sleep((self.interval * number).saturating_sub(start.elapsed()));
        }
        sleep(Duration::from_secs(1));
        over.store(true, Ordering::SeqCst);
        reader.join().map_err(|_| anyhow!("the reader of a probe panicked"))?;
        let mut samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut *samples))
    }
}

impl Running {
    /// Ends it; what it asked.
    pub fn stop(self) -> Result<Vec<Sample>> {
        self.stop.store(true, Ordering::SeqCst);
        match self.thread.join() {
            Ok(samples) => samples,
            Err(_) => bail!("a probe panicked"),
        }
    }
}

fn sample(at: u64, start: Instant, good: bool, migrating: bool) -> Sample {
    Sample { at, good, took: micros(start), migrating, sending: 0 }
}

fn micros(since: Instant) -> u32 {
    since.elapsed().as_micros().min(u128::from(u32::MAX)) as u32
}
