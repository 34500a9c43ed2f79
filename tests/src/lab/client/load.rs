//! HTTP load: new connections (or kept ones) from many threads, counted by the VM that answered.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::http::{Connection, LIMIT};
use super::{PerVm, note};
use crate::lab::Netns;

/// What to do.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where to connect.
    pub server: SocketAddr,
    /// How many connections altogether; `None` until stopped.
    pub connections: Option<u64>,
    /// Requests on each connection before it is closed.
    pub requests_per_connection: u64,
    /// Connections open at a time.
    pub threads: usize,
    /// Addresses to connect from, in turn; empty for the kernel's choice. Those of the other family are left out.
    pub sources: Vec<IpAddr>,
    /// What to ask for.
    pub path: String,
    /// Service time asked of the guest, in milliseconds.
    pub service_ms: Option<u64>,
    /// Pause between the requests of a thread.
    pub pause: Duration,
    /// How long anything may take before it counts as failed.
    pub limit: Duration,
}

/// What happened.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Connections by the VM that answered their first request.
    pub connections: PerVm,
    /// Requests by the VM that answered them.
    pub requests: PerVm,
    /// Connections or requests that failed.
    pub failed: u64,
    /// Answers that came from another VM than the first one on the same connection.
    pub moved: u64,
    /// The first few failures.
    pub errors: Vec<String>,
    /// Time of each request, connecting included for the first on a connection; sorted, in microseconds.
    pub latency_us: Vec<u32>,
    /// From the start to the end (or to the moment of asking).
    pub took: Duration,
}

impl Load {
    /// 16 threads, one request `GET /` per connection.
    pub fn new(server: SocketAddr, connections: u64) -> Self {
        Self {
            server,
            connections: Some(connections),
            requests_per_connection: 1,
            threads: 16,
            sources: Vec::new(),
            path: "/".into(),
            service_ms: None,
            pause: Duration::ZERO,
            limit: LIMIT,
        }
    }

    /// Until [`Running::stop`].
    pub fn endless(server: SocketAddr) -> Self {
        Self { connections: None, ..Self::new(server, 0) }
    }

    /// Runs to the end, from inside a namespace.
    pub fn run(self, ns: &Netns) -> Result<Report> {
        self.start(ns).finish()
    }

    /// Starts in the background.
    pub fn start(self, ns: &Netns) -> Running {
        let sources: Vec<_> =
            self.sources.iter().copied().filter(|s| s.is_ipv4() == self.server.is_ipv4()).collect();
        let load = Self { sources, ..self };
        let shared = Arc::new(Shared {
            begun: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            report: Mutex::default(),
            start: Instant::now(),
        });
        let threads = (0..load.threads)
            .map(|_| {
                let (load, shared, ns) = (load.clone(), Arc::clone(&shared), ns.clone());
                std::thread::spawn(move || {
                    ns.enter()?;
                    shared.work(&load);
                    Ok(())
                })
            })
            .collect();
        Running { shared, threads }
    }
}

impl Report {
    /// All requests answered.
    pub fn total(&self) -> u64 {
        self.requests.values().sum()
    }

    /// All connections on which something was answered.
    pub fn total_connections(&self) -> u64 {
        self.connections.values().sum()
    }

    /// The request time, in microseconds, that a fraction `q` of all requests did not exceed.
    pub fn quantile_us(&self, q: f64) -> u32 {
        let last = self.latency_us.len().saturating_sub(1);
        self.latency_us.get((last as f64 * q).round() as usize).copied().unwrap_or(0)
    }
}

/// A load in the background.
pub struct Running {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Running {
    /// What happened so far, without latencies.
    pub fn so_far(&self) -> Report {
        let report = self.shared.report();
        Report { latency_us: Vec::new(), took: self.shared.start.elapsed(), ..report.clone() }
    }

    /// Lets the connections that are open end, and reports.
    pub fn stop(self) -> Result<Report> {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.finish()
    }

    /// Waits for the end, and reports.
    pub fn finish(mut self) -> Result<Report> {
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow!("a client thread panicked"))??;
        }
        let mut report = std::mem::take(&mut *self.shared.report());
        report.latency_us.sort_unstable();
        report.took = self.shared.start.elapsed();
        Ok(report)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

struct Shared {
    begun: AtomicU64,
    stop: AtomicBool,
    report: Mutex<Report>,
    start: Instant,
}

impl Shared {
    fn report(&self) -> std::sync::MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn work(&self, load: &Load) {
        while !self.stop.load(Ordering::SeqCst) {
            let number = self.begun.fetch_add(1, Ordering::SeqCst);
            if load.connections.is_some_and(|n| number >= n) {
                break;
            }
            let source = load.sources.get(number as usize % load.sources.len().max(1)).copied();
            if let Err(e) = self.connection(load, source) {
                let mut report = self.report();
                report.failed += 1;
                let at = self.start.elapsed().as_secs_f64();
                note(&mut report.errors, format!("at {at:.3} s, connection {number}: {e:#}"));
            }
        }
    }

    fn connection(&self, load: &Load, source: Option<IpAddr>) -> Result<()> {
        let mut start = Instant::now();
        let mut connection = Connection::open(load.server, source, load.limit)?;
        let mut first = None;
        for _ in 0..load.requests_per_connection {
            if first.is_some() && self.stop.load(Ordering::SeqCst) {
                break;
            }
            let answer = connection.request("GET", &load.path, b"", load.service_ms)?;
            if answer.status != 200 || answer.vm.is_empty() {
                return Err(anyhow!("status {} from `{}`", answer.status, answer.vm));
            }
            let latency = start.elapsed().as_micros() as u32;
            {
                let mut report = self.report();
                report.latency_us.push(latency);
                *report.requests.entry(answer.vm.clone()).or_default() += 1;
                match &first {
                    None => *report.connections.entry(answer.vm.clone()).or_default() += 1,
                    Some(vm) if *vm != answer.vm => report.moved += 1,
                    Some(_) => {}
                }
            }
            first.get_or_insert(answer.vm);
            if !load.pause.is_zero() {
                std::thread::sleep(load.pause);
            }
            start = Instant::now();
        }
        Ok(())
    }
}
