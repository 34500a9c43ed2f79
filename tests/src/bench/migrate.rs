//! Live migrations of a guest under load, there and back, in three ways: with lbx told of them, with lbx that hears of
//! none, and over plain bridges without lbx.

mod figures;
mod line;
mod probe;

use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, bail};

use self::figures::Figures;
use self::line::Line;
use self::probe::{Kind, Probe, Sample};
use super::{Report, Settings, clock};
use crate::demo::Claim;
use crate::guest::echo;
use crate::lab::client::load::Load;
use crate::lab::client::long::Long;
use crate::lab::config::{File, Service, guests};
use crate::lab::migrate::{Options, Outcome};
use crate::lab::vm::Family;
use crate::lab::{Lab, LabSpec, Lbx, Timeline, VmKind, addr};
use crate::scenario::eventually;

/// The guest that migrates; another one stays.
const VM: &str = "vm1";
/// MB a second that it writes to memory.
const DIRTY: u32 = 20;
/// Port of the web service.
const WEB: u16 = 80;
/// How long things are given to become calm.
const CALM: Duration = Duration::from_secs(2);

/// A way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arm {
    /// lbx is told each phase.
    Aware,
    /// lbx hears nothing.
    Unaware,
    /// There is no lbx; clients use the guest's own address.
    Plain,
}

impl Arm {
    const ALL: [Self; 3] = [Self::Aware, Self::Unaware, Self::Plain];

    const fn name(self) -> &'static str {
        match self {
            Self::Aware => "lbx, aware",
            Self::Unaware => "lbx, unaware",
            Self::Plain => "plain bridges",
        }
    }
}

/// How much is asked of the guests.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// There and back.
    pairs: usize,
    long: usize,
    keep_alive: usize,
    fresh: usize,
    /// Between two requests of one of these.
    interval: Duration,
    /// Between two datagrams.
    datagram: Duration,
}

const FULL: Pace = Pace {
    pairs: 50,
    long: 200,
    keep_alive: 8,
    fresh: 8,
    interval: Duration::from_millis(16),
    datagram: Duration::from_millis(2),
};
const QUICK: Pace = Pace {
    pairs: 2,
    long: 16,
    keep_alive: 2,
    fresh: 2,
    interval: Duration::from_millis(20),
    datagram: Duration::from_millis(5),
};

/// Measures all ways.
///
/// # Errors
/// When something does not start, or a migration fails.
pub fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    clock::unpin()?;
    report.section("migrate", "Live migration");
    let pace = settings.either(FULL, QUICK);
    report.say(&format!(
        "A QEMU guest (TCG) that writes {DIRTY} MB a second to memory is migrated from one host to another and back, \
         {} times each way, over TCP on the segment that the clients use too; all on the same {} cores. Meanwhile: {} \
         connections that move data all the time, HTTP on {} connections that stay and {} new ones after the other, a \
         request every {} ms on each, {:.0} datagrams a second of one flow. A second guest stays. Nothing is tried \
         twice. With lbx, clients use a VIP that the first host answers for. Aware, lbx there hears the guest's monitor \
         and is told by its command line what the other host would say; unaware it is told nothing, and the guest is \
         put back into use by hand before each pair. Latency: of requests on connections that stay, from the command to \
         a second after the end. Lost beyond the pause: datagrams sent while the guest ran. Silence beyond the pause: \
         the longest time between two answered datagrams, less the time from STOP to RESUME.",
        pace.pairs,
        super::machine::cpus(),
        pace.long,
        pace.keep_alive,
        pace.fresh,
        pace.interval.as_millis(),
        1.0 / pace.datagram.as_secs_f64(),
    ));
    let mut all = Vec::new();
    for arm in Arm::ALL {
        let mut figures = Figures::default();
        let mut line = None;
        let mut place = Place::build(arm)?;
        for _ in 0..pace.pairs {
            place.pair(&pace, &mut figures, &mut line)?;
        }
        if let (Arm::Aware, Some(dir), Some(line)) = (arm, &settings.plots, &line) {
            let [latency, share] = line.write(dir)?;
            report.picture("How long answers take during a migration", &latency);
            report.picture("Who gets what during a migration", &share);
        }
        all.push((arm, figures));
    }
    table(report, &all);
    claims(report, &all);
    Ok(())
}

/// A lab, and lbx in it.
struct Place {
    arm: Arm,
    // Before the lab: it ends before its namespace does.
    lbx: Option<Lbx>,
    lab: Lab,
    /// Who is asked.
    at: IpAddr,
    sources: Vec<IpAddr>,
}

impl Place {
    fn build(arm: Arm) -> Result<Self> {
        let lab = Lab::start(LabSpec::hosts(&[2, 0], VmKind::Guest))?;
        let at = match arm {
            Arm::Plain => lab.vm(VM)?.ip(Family::V4),
            Arm::Aware | Arm::Unaware => addr::vip(0).v4.into(),
        };
        let lbx = match arm {
            Arm::Plain => None,
            Arm::Aware | Arm::Unaware => {
                let service = |name, protocol, port| {
                    Service::dsr(name, addr::vip(0), protocol, port, guests(&lab, &[1, 1]))
                };
                let services = vec![
                    service("web", "tcp", WEB),
                    service("echo", "tcp", echo::PORT),
                    service("datagrams", "udp", echo::PORT),
                ];
                let mut top = "[migration]\nslow_start = \"1s\"\n".to_owned();
                if arm == Arm::Aware {
                    let socket = lab.vm(VM)?.qmp_path_for_lbx().display().to_string().replace(VM, "{vm}");
                    top += &format!("[measure]\nqmp = \"{socket}\"\n");
                }
                Some(Lbx::start(&lab, 0, &File { top, ..File::of_guests(services) }.text())?)
            }
        };
        let sources = lab.client().sources.iter().map(|pair| IpAddr::V4(pair.v4)).collect();
        lab.vm(VM)?.control(&lab.client().ns, &format!("dirty/{DIRTY}"))?;
        Ok(Self { arm, lbx, lab, at, sources })
    }

    /// There and back, under load that is new each time.
    fn pair(&mut self, pace: &Pace, figures: &mut Figures, line: &mut Option<Line>) -> Result<()> {
        self.serves()?;
        let client = self.lab.client().ns.clone();
        let long = Long {
            sources: self.sources.clone(),
            limit: Duration::from_secs(30),
            ..Long::new(SocketAddr::new(self.at, echo::PORT), pace.long)
        };
        let long = long.start(&client)?;
        let start = |kind, count: usize, port, interval| -> Vec<probe::Running> {
            let (at, sources) = (SocketAddr::new(self.at, port), self.sources.clone());
            let one = Probe { kind, at, sources, interval, vm: VM.to_owned() };
            (0..count).map(|_| one.clone().start(&client)).collect()
        };
        let keep_alive = start(Kind::KeepAlive, pace.keep_alive, WEB, pace.interval);
        let fresh = start(Kind::Fresh, pace.fresh, WEB, pace.interval);
        let datagrams = start(Kind::Datagram, 1, echo::PORT, pace.datagram);
        sleep(CALM);
        let mut times = Vec::new();
        for host in [1, 0] {
            times.push(self.migrate(host)?);
            sleep(CALM);
        }
        let all = |running: Vec<probe::Running>| -> Result<Vec<Sample>> {
            let each: Vec<_> = running.into_iter().map(probe::Running::stop).collect::<Result<_>>()?;
            Ok(each.concat())
        };
        let (requests, fresh, datagrams) = (all(keep_alive)?, all(fresh)?, all(datagrams)?);
        let long = long.stop()?;
        let failed = |samples: &[Sample]| samples.iter().filter(|one| one.took.is_none()).count() as u64;
        figures.long += long.opened.get(VM).copied().unwrap_or(0);
        figures.broken += long.broken + long.moved;
        figures.requests += requests.len() as u64;
        figures.failed += failed(&requests);
        figures.fresh += fresh.len() as u64;
        figures.fresh_failed += failed(&fresh);
        figures.datagrams += datagrams.len() as u64;
        figures.lost += failed(&datagrams);
        for times in &times {
            figures.migration(times, &requests, &datagrams);
        }
        if line.is_none() {
            *line = Some(Line { times: times[0], requests, fresh, datagrams });
        }
        Ok(())
    }

    /// Waits until the guest gets new connections.
    fn serves(&self) -> Result<()> {
        if let (Arm::Unaware, Some(lbx)) = (self.arm, &self.lbx) {
            // Nobody said that what came back runs: by itself lbx believes it after a minute.
            lbx.output(&["migration", "done", VM, "--where", "here"])?;
        }
        let at = SocketAddr::new(self.at, WEB);
        let heard = || {
            let limit = Duration::from_secs(2);
            let load = Load { sources: self.sources.clone(), threads: 4, limit, ..Load::new(at, 20) };
            Ok(load.run(&self.lab.client().ns)?.connections.contains_key(VM))
        };
        if !eventually(Duration::from_mins(1), heard)? {
            let log = self.lbx.as_ref().map_or_else(String::new, Lbx::log);
            bail!("{}: {VM} gets no new connections\n{log}", self.arm.name());
        }
        Ok(())
    }

    fn migrate(&mut self, host: usize) -> Result<Timeline> {
        let mut migration = self.lab.prepare_migration(VM, host, Options::default())?;
        let lbx = self.lbx.as_ref().filter(|_| self.arm == Arm::Aware);
        let place = if host == 0 { "here" } else { "there" };
        let tell = |words: &[&str]| match lbx {
            Some(lbx) => lbx.cli(&[&["migration"], words].concat()).map(|_| ()),
            None => Ok(()),
        };
        tell(&["announce", VM])?;
        migration.start()?;
        let outcome = migration.wait_telling(Duration::from_mins(2), |step| match step {
            // What its monitor says lbx hears itself; what happens on the other host it is told.
            "active" | "STOP" => Ok(()),
            "RESUME" => tell(&["resumed", VM, "--where", place]),
            _ => tell(&["done", VM, "--where", place]),
        })?;
        if outcome != Outcome::Completed {
            bail!("{}: the migration to host {host}: {outcome:?}", self.arm.name());
        }
        Ok(migration.finish(&mut self.lab)?.0)
    }
}

fn table(report: &mut Report, all: &[(Arm, Figures)]) {
    let of = |part: u64, whole: u64| format!("{part} of {whole}");
    let head = [
        "",
        "connections broken",
        "requests failed",
        "new connections failed",
        "datagrams lost",
        "beyond the pause",
    ];
    let mut rows = vec![head.map(String::from).to_vec()];
    for (arm, figures) in all {
        rows.push(vec![
            arm.name().to_owned(),
            of(figures.broken, figures.long),
            of(figures.failed, figures.requests),
            of(figures.fresh_failed, figures.fresh),
            of(figures.lost, figures.datagrams),
            figures.lost_outside.to_string(),
        ]);
    }
    report.table(&rows);
    let head =
        ["milliseconds", "latency p50", "p99", "max", "duration", "pause", "p99", "silence beyond it", "p99"];
    let mut rows = vec![head.map(String::from).to_vec()];
    for (arm, figures) in all {
        let ms = |value: f64| format!("{value:.1}");
        rows.push(vec![
            arm.name().to_owned(),
            ms(figures.latency.median()),
            ms(figures.latency.quantile(0.99)),
            ms(figures.latency.max()),
            ms(figures.duration.median()),
            ms(figures.pause.median()),
            ms(figures.pause.quantile(0.99)),
            ms(figures.beyond.median()),
            ms(figures.beyond.quantile(0.99)),
        ]);
    }
    report.table(&rows);
}

fn claims(report: &mut Report, all: &[(Arm, Figures)]) {
    let [(_, aware), (_, unaware), _] = all else { return };
    report.claim(Claim::equal("migrate: connections broken, aware", aware.broken as f64, "", 0.0));
    report.claim(Claim::equal("migrate: requests failed, aware", aware.failed as f64, "", 0.0));
    let (mine, other) = (aware.duration.median(), unaware.duration.median());
    report.claim(Claim::at_most("migrate: duration, aware / unaware", mine / other, "", 1.0));
    let (mine, other) = (aware.latency.quantile(0.99), unaware.latency.quantile(0.99));
    report.claim(Claim::at_most("migrate: p99 latency, aware / unaware", mine / other, "", 1.0));
}
