//! An open loop: requests are sent when they are due, whatever became of those before.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::lab::Netns;
use crate::lab::client::http::Connection;

/// So many requests can wait for an answer at a time. More are sent late, and that counts as their latency.
const MOST: usize = 768;
/// Threads do little.
const STACK: usize = 128 * 1024;
/// From the start of the threads to the first request.
const LEAD: Duration = Duration::from_millis(100);

/// When requests are due, from the start.
#[derive(Debug, Clone)]
pub struct Plan(pub Vec<Duration>);

/// What became of a request.
#[derive(Debug, Clone)]
pub struct Sent {
    /// When it was due.
    pub due: Duration,
    /// From then to the whole answer; `None` without one, or with one too late.
    pub took: Option<Duration>,
    /// Who answered.
    pub vm: Option<String>,
}

impl Plan {
    /// Poisson arrivals at a rate (a second) for so long.
    pub fn new(seed: u64, rate: f64, time: Duration) -> Self {
        let (mut random, mut at, mut due) = (Random::new(seed), 0.0, Vec::new());
        loop {
            at -= (1.0 - random.next()).ln() / rate;
            if at >= time.as_secs_f64() {
                return Self(due);
            }
            due.push(Duration::from_secs_f64(at));
        }
    }

    /// Sends them all, each on a connection of its own, and waits for the last answer.
    ///
    /// # Errors
    /// No threads, or no namespace.
    pub fn run(
        &self,
        ns: &Netns,
        server: SocketAddr,
        sources: &[IpAddr],
        limit: Duration,
    ) -> Result<Vec<Sent>> {
        let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(self.0.len())));
        let start = Instant::now() + LEAD;
        let work = || -> Result<()> {
            ns.enter()?;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(due) = self.0.get(number).copied() else { return Ok(()) };
                sleep((start + due).saturating_duration_since(Instant::now()));
                let source = sources.get(number % sources.len().max(1)).copied();
                let answer = ask(server, source, start + due + limit);
                let took = (start + due).elapsed();
                let vm = answer.ok().filter(|_| took <= limit);
                let sent = Sent { due, took: vm.is_some().then_some(took), vm };
                done.lock().unwrap_or_else(PoisonError::into_inner).push(sent);
            }
        };
        thread::scope(|scope| -> Result<()> {
            let threads: Vec<_> = (0..MOST.min(self.0.len()))
                .map(|_| thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work))
                .collect::<Result<_, _>>()?;
            for thread in threads {
                thread.join().map_err(|_| anyhow!("a client thread panicked"))??;
            }
            Ok(())
        })?;
        Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One request; the VM that answered.
fn ask(server: SocketAddr, source: Option<IpAddr>, until: Instant) -> Result<String> {
    let left = || until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let mut connection = Connection::open(server, source, left())?;
    connection.stream().set_read_timeout(Some(left()))?;
    let answer = connection.request("GET", "/", b"", None)?;
    if answer.status != 200 {
        return Err(anyhow!("status {}", answer.status));
    }
    Ok(answer.vm)
}

/// SplitMix64 (Steele, Lea, Flood 2014).
pub struct Random(u64);

impl Random {
    /// The same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From 0 to 1, without 1.
    pub fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_as_many_as_wanted_and_the_same_for_a_seed() {
        let (a, b) =
            (Plan::new(7, 200.0, Duration::from_secs(100)), Plan::new(7, 200.0, Duration::from_secs(100)));
        assert_eq!(a.0, b.0);
        assert!((19_300..20_700).contains(&a.0.len()), "{}", a.0.len());
        assert!(a.0.is_sorted() && a.0.last().is_some_and(|last| *last < Duration::from_secs(100)));
        // Of Poisson arrivals the variance of counts is their mean: nothing evenly spaced passes for it.
        let mut counts = [0f64; 100];
        a.0.iter().for_each(|at| counts[at.as_secs() as usize] += 1.0);
        let mean = counts.iter().sum::<f64>() / 100.0;
        let variance = counts.iter().map(|n| (n - mean).powi(2)).sum::<f64>() / 99.0;
        assert!((0.6..1.6).contains(&(variance / mean)), "{}", variance / mean);
        assert_ne!(
            Plan::new(8, 200.0, Duration::from_secs(1)).0,
            Plan::new(7, 200.0, Duration::from_secs(1)).0
        );
    }
}
