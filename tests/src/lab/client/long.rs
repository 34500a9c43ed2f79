//! Long TCP connections to the echo service: each moves hashed data at an interval, and every reply must name the
//! VM that the first one named.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};

use super::{PerVm, note, socket};
use crate::guest::{echo, pattern};
use crate::lab::Netns;

/// What to do.
#[derive(Debug, Clone)]
pub struct Long {
    /// The echo service, port [`echo::PORT`] or what a service maps to it.
    pub server: SocketAddr,
    /// How many connections at a time.
    pub connections: usize,
    /// Addresses to connect from, in turn; those of the other family are left out.
    pub sources: Vec<IpAddr>,
    /// Time between two frames of a connection.
    pub interval: Duration,
    /// Longest frame in bytes; lengths vary from one to this.
    pub frame: usize,
    /// How long a reply may take before the connection counts as broken.
    pub limit: Duration,
}

/// What happened.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Connections that were opened and got a first reply, by VM.
    pub opened: PerVm,
    /// Connections open now (0 after the end).
    pub open: PerVm,
    /// Connections that could not be opened.
    pub refused: u64,
    /// Replies that named another VM than the connection's first.
    pub moved: u64,
    /// Connections that ended, or whose data came back wrong.
    pub broken: u64,
    /// Frames answered correctly.
    pub frames: u64,
    /// The first few failures.
    pub errors: Vec<String>,
    /// The longest time a reply took.
    pub slowest: Duration,
}

impl Report {
    /// Fails unless every connection opened and none moved or broke.
    pub fn check(&self, connections: usize) -> Result<()> {
        let opened: u64 = self.opened.values().sum();
        if opened != connections as u64 || self.refused + self.moved + self.broken > 0 || self.frames == 0 {
            bail!("long connections: {self:?}");
        }
        Ok(())
    }
}

impl Long {
    /// `connections` to the server, a frame of up to 1,400 bytes every 100 ms.
    pub fn new(server: SocketAddr, connections: usize) -> Self {
        Self {
            server,
            connections,
            sources: Vec::new(),
            interval: Duration::from_millis(100),
            frame: 1400,
            limit: Duration::from_secs(10),
        }
    }

    /// Opens all connections and returns once each has had its first reply (or failed).
    pub fn start(self, ns: &Netns) -> Result<Running> {
        let sources: Vec<_> =
            self.sources.iter().copied().filter(|s| s.is_ipv4() == self.server.is_ipv4()).collect();
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), report: Mutex::default() });
        let mut threads = Vec::new();
        for number in 0..self.connections {
            let (long, shared, ns) = (self.clone(), Arc::clone(&shared), ns.clone());
            let source = sources.get(number % sources.len().max(1)).copied();
            threads.push(thread::Builder::new().stack_size(256 * 1024).spawn(move || {
                if let Err(e) = ns.enter().and_then(|()| shared.connection(&long, number as u64, source)) {
                    note(&mut shared.report().errors, format!("connection {number}: {e:#}"));
                }
            })?);
        }
        let running = Running { shared, threads };
        let deadline = Instant::now() + self.limit * 2;
        while Instant::now() < deadline {
            let report = running.so_far();
            if report.opened.values().sum::<u64>() + report.refused >= self.connections as u64 {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(running)
    }
}

/// Long connections in the background.
pub struct Running {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    /// What happened so far.
    pub fn so_far(&self) -> Report {
        self.shared.report().clone()
    }

    /// Closes all connections, each after a last reply, and reports.
    pub fn stop(mut self) -> Result<Report> {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow!("a client thread panicked"))?;
        }
        Ok(self.so_far())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

struct Shared {
    stop: AtomicBool,
    report: Mutex<Report>,
}

impl Shared {
    fn report(&self) -> std::sync::MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn connection(&self, long: &Long, number: u64, source: Option<IpAddr>) -> Result<()> {
        let refused = |e| {
            self.report().refused += 1;
            e
        };
        let mut output = socket::tcp(long.server, source, long.limit).map_err(refused)?;
        let mut input = BufReader::new(output.try_clone().map_err(refused)?);
        let mut vm = None;
        let mut frames = 0;
        let result = loop {
            let start = Instant::now();
            let (length, offset) =
                (1 + (number * 131 + frames * 977) as usize % long.frame, number << 20 | frames);
            match exchange(&mut output, &mut input, length, offset) {
                Ok(name) => self.answered(&mut vm, name, start.elapsed()),
                Err(e) => break Err(e),
            }
            frames += 1;
            if self.stop.load(Ordering::SeqCst) {
                break Ok(());
            }
            thread::sleep(long.interval.saturating_sub(start.elapsed()));
        };
        let mut report = self.report();
        if let Some(vm) = &vm {
            *report.open.entry(vm.clone()).or_default() -= 1;
        }
        match (&result, vm) {
            (Ok(()), _) => {}
            (Err(_), Some(_)) => report.broken += 1,
            (Err(_), None) => report.refused += 1,
        }
        result
    }

    fn answered(&self, vm: &mut Option<String>, name: String, took: Duration) {
        let mut report = self.report();
        report.frames += 1;
        report.slowest = report.slowest.max(took);
        match vm {
            None => {
                *report.opened.entry(name.clone()).or_default() += 1;
                *report.open.entry(name.clone()).or_default() += 1;
                *vm = Some(name);
            }
            Some(first) if *first != name => {
                report.moved += 1;
                let message = format!("a connection of {first} was answered by {name}");
                note(&mut report.errors, message);
            }
            Some(_) => {}
        }
    }
}

/// Sends a frame, checks the hash in the reply, and returns the VM's name.
fn exchange(output: &mut impl Write, input: &mut impl BufRead, length: usize, offset: u64) -> Result<String> {
    let mut frame = vec![0; 4 + length];
    frame[..4].copy_from_slice(&(length as u32).to_be_bytes());
    pattern::fill(offset, &mut frame[4..]);
    output.write_all(&frame)?;
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        bail!("closed by the server");
    }
    let name = line.split_whitespace().next().unwrap_or_default();
    if line != echo::reply(name, &frame[4..]) {
        bail!("{length} bytes came back as `{}`", line.trim());
    }
    Ok(name.into())
}
