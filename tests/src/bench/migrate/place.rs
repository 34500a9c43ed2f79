//! Where migrations are measured: a lab of two hosts, lbx in it or not, and the load.

use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::figures::{Figures, Outage};
use super::line::Line;
use super::probe::{Kind, Probe, Running, Sample};
use super::{Arm, Pace};
use crate::guest::{echo, stats};
use crate::lab::client::load::Load;
use crate::lab::client::long::{self, Long};
use crate::lab::config::{File, Service, Target};
use crate::lab::migrate::{Options, Outcome, now};
use crate::lab::vm::Family;
use crate::lab::{Lab, LabSpec, Lbx, VmKind, addr};
use crate::scenario::{eventually, peers};

/// The guest that migrates; another one stays.
pub const VM: &str = "vm1";
/// The guest that stays.
const OTHER: &str = "vm2";
/// MB a second that the guest writes to memory.
pub const DIRTY: u32 = 20;
/// Memory of a guest: with a minute's connections that are over, and with those that wait, 128 MiB run out.
const MEMORY_MIB: u32 = 256;
/// Port of the web service.
const WEB: u16 = 80;
/// Datagrams that a kernel dropped because nobody had taken those before them (/proc/net/snmp).
const FULL: &str = "Udp.RcvbufErrors";
/// The target whose packets are datagrams of one flow, and nothing else.
const DATAGRAMS: &str = "datagrams/vm1";
/// How long things are given to become calm: longer than the effects of a migration are looked for.
const CALM: Duration = Duration::from_millis(1200);
/// How long the guest stays away where lbx is unaware: long enough for lbx to see that it is not here any more.
const AWAY: Duration = Duration::from_secs(4);
/// The longest that anything is waited for.
const PATIENCE: Duration = Duration::from_mins(1);

/// A lab, and lbx on its hosts.
pub struct Place {
    arm: Arm,
    // Before the lab: they end before their namespaces do.
    lbx: Vec<Lbx>,
    lab: Lab,
    /// Who is asked: the VIP, or both guests in turn, the one that migrates first.
    at: Vec<IpAddr>,
    sources: Vec<IpAddr>,
}

/// What asks all the time.
struct Busy {
    long: Vec<long::Running>,
    requests: Vec<Running>,
    fresh: Vec<Running>,
    datagrams: Vec<Running>,
}

impl Place {
    /// With all guests idle.
    pub fn build(arm: Arm) -> Result<Self> {
        let mut spec = LabSpec::hosts(&[2, 0], VmKind::Guest);
        for vm in spec.hosts.iter_mut().flat_map(|host| &mut host.vms) {
            vm.memory_mib = MEMORY_MIB;
        }
        let lab = Lab::start(spec)?;
        let at = match arm {
            Arm::Plain => vec![lab.vm(VM)?.ip(Family::V4), lab.vm(OTHER)?.ip(Family::V4)],
            Arm::Aware | Arm::Unaware => vec![addr::vip(0).v4.into()],
        };
        let sources = lab.client().sources.iter().map(|pair| IpAddr::V4(pair.v4)).collect();
        let mut place = Self { arm, lbx: Vec::new(), lab, at, sources };
        let hosts = match arm {
            Arm::Aware => 2,
            Arm::Unaware => 1,
            Arm::Plain => 0,
        };
        let dir = place.lab.record.dir().join("ca");
        for host in 0..hosts {
            let config = place.config(host, &dir)?;
            place.lbx.push(Lbx::new(&place.lab, host, &config)?);
        }
        if arm == Arm::Aware {
            peers::certificates(&place.lbx[0], &dir, &["kvm1", "kvm2"])?;
        }
        if let Some(first) = place.lbx.first_mut() {
            // The first is the one that answers for the VIP.
            first.run()?;
            place.serves()?;
        }
        if let Some(second) = place.lbx.get_mut(1) {
            second.run()?;
            let up = || Ok(place.lbx[0].json(&["peers"])?["peers"][0]["state"] == "up");
            if !eventually(PATIENCE, up)? {
                bail!("the hosts do not know each other\n{}", place.lbx[0].log());
            }
        }
        Ok(place)
    }

    fn config(&self, host: usize, dir: &std::path::Path) -> Result<String> {
        let (vm, other) = (self.lab.vm(VM)?, self.lab.vm(OTHER)?);
        let targets = || {
            let other = if host == 0 { Target::guest(other) } else { Target::remote(other) };
            vec![Target::guest(vm), other]
        };
        let service = |name, protocol, port| Service::dsr(name, addr::vip(0), protocol, port, targets());
        let services = vec![
            service("web", "tcp", WEB),
            service("echo", "tcp", echo::PORT),
            service("datagrams", "udp", echo::PORT),
        ];
        let mut top = "[migration]\nslow_start = \"1s\"\n".to_owned();
        if self.arm == Arm::Aware {
            let seat = crate::lab::vm::Seat { host, ..vm.seat() };
            let [_, socket] = vm.qmp_paths(&seat);
            top += &format!("[measure]\nqmp = \"{}\"\n", socket.display().to_string().replace(VM, "{vm}"));
            top += &peers::top(&self.lab, host, &peers::name(host), dir);
        }
        Ok(File { top, ..File::of_guests(services) }.text())
    }

    /// So many times there and back, under load that is new.
    pub fn round(
        &mut self,
        pairs: usize,
        pace: &Pace,
        figures: &mut Figures,
        line: &mut Option<Line>,
    ) -> Result<()> {
        self.back()?;
        self.lab.vm(VM)?.control(&self.lab.client().ns, &format!("dirty/{DIRTY}"))?;
        self.serves()?;
        let busy = self.busy(pace)?;
        sleep(CALM);
        let mut outages = Vec::new();
        for host in [1, 0].into_iter().cycle().take(2 * pairs) {
            outages.push((host == 1, self.migrate(host)?));
            if self.arm == Arm::Unaware && host == 1 {
                sleep(AWAY);
            }
        }
        let all = |running: Vec<Running>| -> Result<Vec<Sample>> {
            let each: Vec<_> = running.into_iter().map(Running::stop).collect::<Result<_>>()?;
            Ok(each.concat())
        };
        let (requests, fresh, datagrams) = (all(busy.requests)?, all(busy.fresh)?, all(busy.datagrams)?);
        for long in busy.long {
            let report = long.stop()?;
            if self.arm == Arm::Aware && report.broken + report.moved > 0 {
                eprintln!("{:?}\n{}", report.errors, self.story());
            }
            figures.long(&report, VM);
        }
        figures.asked(&requests, &fresh, &datagrams);
        for (there, outage) in &outages {
            figures.migration(outage, &requests, &datagrams, pace.interval);
            if *there {
                figures.transfer(outage);
            }
        }
        if line.is_none() {
            let Outage { times, states, .. } = outages.swap_remove(0).1;
            *line = Some(Line { times, states, requests, fresh, datagrams });
        }
        self.lab.vm(VM)?.control(&self.lab.client().ns, "dirty/0")
    }

    /// Starts all that asks.
    fn busy(&self, pace: &Pace) -> Result<Busy> {
        let client = self.lab.client().ns.clone();
        let each = pace.long / self.at.len();
        let long = self.at.iter().map(|at| {
            let long = Long {
                sources: self.sources.clone(),
                limit: Duration::from_secs(30),
                interval: pace.frame,
                ..Long::new(SocketAddr::new(*at, echo::PORT), each)
            };
            long.start(&client)
        });
        let long = long.collect::<Result<_>>()?;
        let start = |kind, count: usize, port, interval, servers: usize| -> Vec<Running> {
            let one = |n: usize| Probe {
                kind,
                at: SocketAddr::new(self.at[n % servers], port),
                sources: self.sources.clone(),
                interval,
                vm: VM.to_owned(),
            };
            (0..count).map(|n| one(n).start(&client)).collect()
        };
        Ok(Busy {
            long,
            requests: start(Kind::KeepAlive, pace.keep_alive, WEB, pace.interval, 1),
            fresh: start(Kind::Fresh, pace.fresh, WEB, pace.interval, self.at.len()),
            datagrams: start(Kind::Datagram, 1, echo::PORT, pace.datagram, 1),
        })
    }

    /// Nobody said that what came back runs: by itself lbx that hears nothing believes it after a while.
    fn back(&self) -> Result<()> {
        if self.arm == Arm::Unaware {
            self.lbx[0].output(&["migration", "done", VM, "--where", "here"])?;
        }
        Ok(())
    }

    /// What lbx says of it all.
    fn story(&self) -> String {
        let tell = |lbx: &Lbx| {
            let said = lbx.cli(&["migrations", "-v"]).unwrap_or_else(|error| format!("{error:#}"));
            format!("{}:\n{said}\n{}", lbx.instance, lbx.log())
        };
        self.lbx.iter().map(tell).collect::<Vec<_>>().join("\n")
    }

    /// Waits until the guest gets new connections.
    fn serves(&self) -> Result<()> {
        let at = SocketAddr::new(self.at[0], WEB);
        let heard = || {
            let limit = Duration::from_secs(2);
            let load = Load { sources: self.sources.clone(), threads: 4, limit, ..Load::new(at, 20) };
            Ok(load.run(&self.lab.client().ns)?.connections.contains_key(VM))
        };
        if !eventually(PATIENCE, heard)? {
            let log = self.lbx.first().map_or_else(String::new, Lbx::log);
            bail!("{}: {VM} gets no new connections\n{log}", self.arm.name());
        }
        Ok(())
    }

    /// Migrates the guest to a host, and waits until that has no effects any more.
    fn migrate(&mut self, host: usize) -> Result<Outage> {
        let (tap, source) = (self.lab.vm(VM)?.port.clone(), self.lab.vm(VM)?.host);
        let mut migration = self.lab.prepare_migration(VM, host, Options::default())?;
        let (dropped, full) = (self.dropped()?, self.full()?);
        migration.start()?;
        let outcome = migration.wait(Duration::from_mins(2))?;
        if outcome != Outcome::Completed {
            bail!("{}: the migration to host {host}: {outcome:?}", self.arm.name());
        }
        let ram = migration.source().execute("query-migrate", &json!({}))?["ram"].take();
        // Its process is still there, and in the ring what it never took.
        sleep(CALM);
        let left = self.left(source, &tap)?;
        let dropped = self.dropped()?.saturating_sub(dropped);
        let full = self.full()?.saturating_sub(full);
        let (times, process) = migration.finish(&mut self.lab)?;
        drop(process);
        let states = if self.arm == Arm::Aware { self.states(times.begun)? } else { Vec::new() };
        let outage = Outage {
            times,
            dropped,
            left,
            full,
            states,
            sent: ram["transferred"].as_f64().unwrap_or(0.0) / 1e6,
            passes: ram["dirty-sync-count"].as_f64().unwrap_or(0.0),
        };
        eprintln!("{}, to host {host}: {}", self.arm.name(), outage.line());
        Ok(outage)
    }

    /// Packets to the flow of datagrams that lbx has dropped so far.
    fn dropped(&self) -> Result<u64> {
        let Some(lbx) = self.lbx.first() else { return Ok(0) };
        let all = lbx.json(&["targets"])?;
        let row = all["targets"].as_array().and_then(|all| all.iter().find(|row| row["name"] == DATAGRAMS));
        row.and_then(|row| row["counters"]["drops"].as_u64())
            .with_context(|| format!("no {DATAGRAMS} in {all}"))
    }

    /// Frames in the ring of a host's tap, as its lbx sees it.
    fn left(&self, host: usize, tap: &str) -> Result<Option<u64>> {
        let Some(lbx) = self.lbx.get(host) else { return Ok(None) };
        queues(lbx, tap, "depth")
    }

    /// What was dropped so far because a ring of the guest's taps was full, or a socket for datagrams: its own, which it
    /// takes along, or the client's.
    fn full(&self) -> Result<u64> {
        let (vm, client) = (self.lab.vm(VM)?, &self.lab.client().ns);
        let mut full = 0;
        for lbx in &self.lbx {
            full += queues(lbx, &vm.port, "drops")?.unwrap_or(0);
        }
        // What is zero is not listed.
        full += vm.stats(client)?["kernel"][FULL].as_u64().unwrap_or(0);
        Ok(full + client.run(stats::counters)?.get(FULL).copied().unwrap_or(0))
    }

    /// What the first host has heard of the migration that began then, and when its maps said what follows, in
    /// microseconds since the epoch.
    fn states(&self, begun: u64) -> Result<Vec<(u64, String)>> {
        let all = self.lbx[0].json(&["migrations"])?;
        let records = all["migrations"].as_array().context("no migrations")?;
        let events = records.iter().filter_map(|one| one["events"].as_array()).flatten();
        let at = |event: &Value| {
            let heard =
                event["unix_us"].as_u64().filter(|heard| *heard >= begun && event["heard"] == "news")?;
            let written = heard + event["written_us"].as_u64()?;
            let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            let place = text("place");
            if event["event"] == "stopped" && event["source"] != "qmp" {
                // It stopped where it is about to leave: from here its packets go there as before.
                return None;
            }
            let what = if place.is_empty() { text("event") } else { format!("{} {place}", text("event")) };
            Some((written, what))
        };
        let mut states: Vec<_> = events.filter_map(at).filter(|(at, _)| *at <= now()).collect();
        states.sort();
        Ok(states)
    }
}

/// A sum over the queues of a host's tap, as its lbx sees them; `None` if it does not tell.
fn queues(lbx: &Lbx, tap: &str, what: &str) -> Result<Option<u64>> {
    let all = lbx.json(&["queues"])?;
    let rows = all["queues"].as_array().context("no queues")?;
    Ok(rows.iter().filter(|row| row["nic"] == tap).map(|row| row[what].as_u64()).sum())
}
