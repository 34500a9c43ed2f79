//! Live migration of a guest to another host of the lab (or to another tap of its own), by QMP.
//!
//! ```text
//!  source host                                   destination host
//!  QEMU, running ── TCP between the bridges ──>  QEMU -incoming defer, on a tap of its own
//!    STOP            the rest of its memory          RESUME, then RARP for its MAC
//! ```
//!
//! lbx is not told anything: it has QMP sockets of its own at both QEMUs.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::process::Process;
use super::qmp::Qmp;
use super::topology::Lab;
use super::vm::Seat;

/// The port that the incoming QEMU listens on.
const PORT: u16 = 4444;

/// How to migrate.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Through a unix socket rather than TCP over the shared segment.
    pub unix: bool,
    /// At most so many bytes a second.
    pub bandwidth: u64,
    /// The longest pause QEMU may plan with, in milliseconds.
    pub downtime_ms: u64,
    /// The guest stays stopped so long before it is handed over.
    pub pause: Option<Duration>,
}

impl Default for Options {
    /// What QEMU does by itself: 128 MiB/s, 300 ms.
    fn default() -> Self {
        Self { unix: false, bandwidth: 128 << 20, downtime_ms: 300, pause: None }
    }
}

/// When what happened, in microseconds since the epoch, as the QEMUs stamped their events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeline {
    /// The command was given.
    pub begun: u64,
    /// The source says `active`.
    pub active: u64,
    /// The guest stopped at the source.
    pub stopped: u64,
    /// The guest runs at the destination.
    pub resumed: u64,
    /// The source says `completed`.
    pub completed: u64,
}

impl Timeline {
    /// How long the guest did not run.
    pub fn pause(&self) -> Duration {
        Duration::from_micros(self.resumed.saturating_sub(self.stopped))
    }

    /// From the command to the later of completion and resumption.
    pub fn duration(&self) -> Duration {
        Duration::from_micros(self.completed.max(self.resumed).saturating_sub(self.begun))
    }
}

/// How a migration ended, as the source says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The guest is at the destination.
    Completed,
    /// The guest is where it was.
    Failed,
    /// The guest is where it was.
    Cancelled,
}

/// A migration that is prepared or under way. Dropping it before its end kills the destination.
pub struct Migration {
    name: String,
    uri: String,
    seat: Seat,
    source: Qmp,
    destination: Qmp,
    process: Process,
    times: Timeline,
    pause: Option<Duration>,
}

impl Lab {
    /// Migrates a guest to a host, and returns when it runs there. What it ran in before is ended.
    pub fn migrate(&mut self, name: &str, host: usize) -> Result<Timeline> {
        self.migrate_with(name, host, Options::default())
    }

    /// The same in a way of one's own.
    pub fn migrate_with(&mut self, name: &str, host: usize, options: Options) -> Result<Timeline> {
        let mut migration = self.prepare_migration(name, host, options)?;
        migration.start()?;
        match migration.wait(Duration::from_mins(1))? {
            Outcome::Completed => Ok(migration.finish(self)?.0),
            other => bail!("the migration of {name} to host {host}: {other:?}"),
        }
    }

    /// Makes the tap and the QEMU at the destination, and both sides ready.
    pub fn prepare_migration(&self, name: &str, host: usize, options: Options) -> Result<Migration> {
        let vm = self.vm(name)?;
        let to = self.hosts.get(host).with_context(|| format!("no host {host}"))?;
        let seat = vm.next_seat(host, &to.ns, self.spec.mtu)?;
        let process = vm.expect(&self.record, &seat)?;
        let [path, _] = vm.qmp_paths(&seat);
        let uri = if options.unix {
            format!("unix:{}", path.with_extension("migration").display())
        } else {
            format!("tcp:{}", SocketAddr::new(to.addr.v4.into(), PORT))
        };
        let mut destination = connect(&path).with_context(|| process.log())?;
        let mut source = vm.qmp().with_context(|| vm.log())?;
        for side in [&mut source, &mut destination] {
            let events = json!({ "capabilities": [{ "capability": "events", "state": true }] });
            side.execute("migrate-set-capabilities", &events)?;
        }
        // A QEMU keeps what an earlier migration was given.
        let waits = json!({ "capability": "pause-before-switchover", "state": options.pause.is_some() });
        source.execute("migrate-set-capabilities", &json!({ "capabilities": [waits] }))?;
        let limits = json!({ "max-bandwidth": options.bandwidth, "downtime-limit": options.downtime_ms });
        source.execute("migrate-set-parameters", &limits)?;
        destination.execute("migrate-incoming", &json!({ "uri": uri }))?;
        Ok(Migration {
            name: name.into(),
            uri,
            seat,
            source,
            destination,
            process,
            times: Timeline::default(),
            pause: options.pause,
        })
    }
}

impl Migration {
    /// Begins to transfer.
    pub fn start(&mut self) -> Result<()> {
        self.times.begun = now();
        self.source.execute("migrate", &json!({ "uri": self.uri }))?;
        Ok(())
    }

    /// Gives up: the guest goes on where it is.
    pub fn cancel(&mut self) -> Result<()> {
        self.source.execute("migrate_cancel", &json!({}))?;
        Ok(())
    }

    /// The source, for more commands.
    pub fn source(&mut self) -> &mut Qmp {
        &mut self.source
    }

    /// The destination's process, to be killed.
    pub fn destination(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Where the guest goes.
    pub fn seat(&self) -> &Seat {
        &self.seat
    }

    /// Waits until the source says how it ended and, where it completed, until the guest runs at the destination.
    pub fn wait(&mut self, limit: Duration) -> Result<Outcome> {
        self.wait_telling(limit, |_| Ok(()))
    }

    /// The same; `tell` is called with each step as it is heard of: `active`, `STOP`, `RESUME`, `completed`.
    pub fn wait_telling(
        &mut self,
        limit: Duration,
        mut tell: impl FnMut(&str) -> Result<()>,
    ) -> Result<Outcome> {
        let deadline = Instant::now() + limit;
        let outcome = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.source.next_event(left).with_context(|| {
                format!("{}: no end of its migration within {limit:?}: {:?}", self.name, self.times)
            })?;
            let at = stamp(&event);
            match (event["event"].as_str(), event["data"]["status"].as_str()) {
                (Some("STOP"), _) => {
                    self.times.stopped = at;
                    tell("STOP")?;
                }
                (Some("MIGRATION"), Some("active")) => {
                    self.times.active = at;
                    tell("active")?;
                }
                (Some("MIGRATION"), Some("pre-switchover")) => {
                    if let Some(pause) = self.pause {
                        let stopped = Duration::from_micros(now().saturating_sub(self.times.stopped));
                        std::thread::sleep(pause.saturating_sub(stopped));
                        self.source.execute("migrate-continue", &json!({ "state": "pre-switchover" }))?;
                    }
                }
                (Some("MIGRATION"), Some("completed")) => {
                    self.times.completed = at;
                    break Outcome::Completed;
                }
                (Some("MIGRATION"), Some("failed")) => break Outcome::Failed,
                (Some("MIGRATION"), Some("cancelled")) => break Outcome::Cancelled,
                _ => {}
            }
        };
        if outcome == Outcome::Completed {
            let left = deadline.saturating_duration_since(Instant::now());
            let resumed = self.destination.wait_event("RESUME", left);
            self.times.resumed = stamp(&resumed.with_context(|| self.process.log())?);
            tell("RESUME")?;
            tell("completed")?;
        }
        Ok(outcome)
    }

    /// After completion: the guest's place is the destination. Its old process, which ends when it is dropped.
    pub fn finish(self, lab: &mut Lab) -> Result<(Timeline, Option<Process>)> {
        let old = lab.vm_mut(&self.name)?.sit(self.seat, self.process);
        Ok((self.times, old))
    }
}

/// Connects to a QEMU that is just starting.
fn connect(path: &std::path::Path) -> Result<Qmp> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match Qmp::connect(path) {
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            other => return other,
        }
    }
}

/// Microseconds since the epoch of an event.
fn stamp(event: &Value) -> u64 {
    let part = |name: &str| event["timestamp"][name].as_u64().unwrap_or(0);
    part("seconds") * 1_000_000 + part("microseconds")
}

/// Microseconds since the epoch.
pub fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_from_events() {
        let event = json!({ "event": "STOP", "timestamp": { "seconds": 7, "microseconds": 42 } });
        assert_eq!(stamp(&event), 7_000_042);
        let times =
            Timeline { begun: 1000, stopped: 5000, resumed: 7000, completed: 6500, ..Timeline::default() };
        assert_eq!((times.pause(), times.duration()), (Duration::from_millis(2), Duration::from_millis(6)));
    }
}
