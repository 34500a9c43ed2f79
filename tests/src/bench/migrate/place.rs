//! Where migrations are measured: a lab of two hosts, lbx in it or not, and the load.

mod hold;

use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::figures::{Counters, Figures, Outage};
use super::line::Line;
use super::losses::{Found, Received, numbers};
use super::probe::{Kind, Probe, Running, Sample};
use super::{Arm, Pace};
use crate::guest::{echo, stats};
use crate::lab::client::load::Load;
use crate::lab::client::long::{self, Long};
use crate::lab::config::{File, Service, Target};
use crate::lab::migrate::{Options, Outcome, now};
use crate::lab::vm::Family;
use crate::lab::{Lab, LabSpec, Lbx, VmKind, addr, ring};
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
            _ => vec![addr::vip(0).v4.into()],
        };
        let sources = lab.client().sources.iter().map(|pair| IpAddr::V4(pair.v4)).collect();
        let mut place = Self { arm, lbx: Vec::new(), lab, at, sources };
        let hosts = match arm {
            Arm::Aware | Arm::Hold => 2,
            Arm::Unaware => 1,
            Arm::Plain => 0,
        };
        let dir = place.lab.record.dir().join("ca");
        for host in 0..hosts {
            let config = place.config(host, &dir)?;
            place.lbx.push(Lbx::new(&place.lab, host, &config)?);
        }
        if arm.hears() {
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
        if self.arm == Arm::Hold {
            top += "stopped = \"hold\"\n";
        }
        if self.arm.hears() {
            let seat = crate::lab::vm::Seat { host, ..vm.seat() };
            let [_, socket] = vm.qmp_paths(&seat);
            top += &format!("[measure]\nqmp = \"{}\"\n", socket.display().to_string().replace(VM, "{vm}"));
            let hosts = if self.arm == Arm::Hold { peers::with_tunnels } else { peers::top };
            top += &hosts(&self.lab, host, &peers::name(host), dir);
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
        for verb in [format!("dirty/{DIRTY}"), "forget".into()] {
            self.lab.vm(VM)?.control(&self.lab.client().ns, &verb)?;
        }
        self.serves()?;
        let busy = self.busy(pace)?;
        sleep(CALM);
        let mut outages = Vec::new();
        for host in [1, 0].into_iter().cycle().take(2 * pairs) {
            self.settle(outages.last_mut().map(|(_, outage)| outage))?;
            outages.push((host == 1, self.migrate(host, Options::default())?));
            if self.arm == Arm::Unaware && host == 1 {
                sleep(AWAY);
            }
        }
        let all = |running: Vec<Running>| -> Result<Vec<Sample>> {
            let each: Vec<_> = running.into_iter().map(Running::stop).collect::<Result<_>>()?;
            Ok(each.concat())
        };
        let (requests, fresh, datagrams) = (all(busy.requests)?, all(busy.fresh)?, all(busy.datagrams)?);
        self.settle(outages.last_mut().map(|(_, outage)| outage))?;
        for long in busy.long {
            let report = long.stop()?;
            if self.arm == Arm::Aware && report.broken + report.moved > 0 {
                eprintln!("{:?}\n{}", report.errors, self.story());
            }
            figures.long(&report, VM);
        }
        figures.asked(&requests, &fresh, &datagrams);
        let received = Received(self.lab.vm(VM)?.seen(&self.lab.client().ns)?);
        // From the first datagram to the last, each belongs to one migration.
        let later = outages.iter().skip(1).map(|(_, outage)| outage.times.begun).chain([u64::MAX]);
        let mut from = 0;
        for ((there, outage), to) in outages.iter().zip(later.collect::<Vec<_>>()) {
            figures.migration(outage, &requests, (&datagrams, &received), (from, to), pace.interval);
            from = to;
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
    fn migrate(&mut self, host: usize, options: Options) -> Result<Outage> {
        let (vm, dump) = (self.lab.vm(VM)?, self.lab.record.dir().join("taken.pcap"));
        let (tap, qemu) = (vm.port.clone(), vm.pid().context("no QEMU")?);
        let mut migration = self.lab.prepare_migration(VM, host, options)?;
        if options.pause.is_some() {
            self.can_wait()?;
        }
        let (there, full) = (migration.seat().port.clone(), self.overflows(&tap)?);
        let before = self.counters(&there)?;
        ring::write_down(migration.source(), &dump)?;
        migration.start()?;
        let outcome = migration.wait(Duration::from_mins(2))?;
        if outcome != Outcome::Completed {
            bail!("{}: the migration to host {host}: {outcome:?}", self.arm.name());
        }
        let ram = migration.source().execute("query-migrate", &json!({}))?["ram"].take();
        // Its process is still there, and in the ring what it never took.
        sleep(CALM);
        let found = Found { ring: numbers(&ring::take(qemu, &tap)?), taken: numbers(&ring::written(&dump)?) };
        std::fs::remove_file(&dump)?;
        let full = self.overflows(&tap)?.saturating_sub(full);
        let (times, process) = migration.finish(&mut self.lab)?;
        drop(process);
        let states = if self.arm.hears() { self.states(times.begun)? } else { Vec::new() };
        let outage = Outage {
            times,
            dropped: 0,
            found,
            full,
            before,
            states,
            sent: ram["transferred"].as_f64().unwrap_or(0.0) / 1e6,
            passes: ram["dirty-sync-count"].as_f64().unwrap_or(0.0),
        };
        eprintln!("{}, to host {host}: {}", self.arm.name(), outage.line());
        Ok(outage)
    }

    /// Takes into account what was counted since a migration began: before the next one begins, or when nobody asks any
    /// more.
    fn settle(&self, outage: Option<&mut Outage>) -> Result<()> {
        let Some(outage) = outage else { return Ok(()) };
        let now = self.counters(&self.lab.vm(VM)?.port)?;
        outage.dropped = now.dropped.saturating_sub(outage.before.dropped);
        outage.full += now.full.saturating_sub(outage.before.full);
        Ok(())
    }

    /// What was counted so far of datagrams to the guest, which has this tap or is about to have it.
    fn counters(&self, tap: &str) -> Result<Counters> {
        let (vm, client) = (self.lab.vm(VM)?, &self.lab.client().ns);
        let mut dropped = 0;
        if let Some(lbx) = self.lbx.first() {
            let all = lbx.json(&["targets"])?;
            let rows = all["targets"].as_array();
            let row = rows.and_then(|all| all.iter().find(|row| row["name"] == DATAGRAMS));
            dropped = row
                .and_then(|row| row["counters"]["drops"].as_u64())
                .with_context(|| format!("no {DATAGRAMS} in {all}"))?;
        }
        // What is zero is not listed. The guest takes its own along.
        let sockets = vm.stats(client)?["kernel"][FULL].as_u64().unwrap_or(0)
            + client.run(stats::counters)?.get(FULL).copied().unwrap_or(0);
        Ok(Counters { dropped, full: sockets + self.overflows(tap)? })
    }

    /// Frames that found no room in the ring of a tap so far, as the lbx of its host says.
    fn overflows(&self, tap: &str) -> Result<u64> {
        let mut frames = 0;
        for lbx in &self.lbx {
            let all = lbx.json(&["queues"])?;
            let rows = all["queues"].as_array().context("no queues")?;
            let of_tap = rows.iter().filter(|row| row["nic"] == tap);
            frames += of_tap.filter_map(|row| row["drops"].as_u64()).sum::<u64>();
        }
        Ok(frames)
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
