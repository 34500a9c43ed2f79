//! From the first frame over a queue's threshold to the weight in the kernel's map.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lbx_user::control::{Names, map_name};
use lbx_user::datapath::{Instance, Maps};

use super::open::Random;
use crate::bench::{Report, Samples, Settings, clock};
use crate::bpf::tap::Tap;
use crate::bpf::wire::Wire;
use crate::demo::Claim;
use crate::guest::announce::mac_text;
use crate::lab::addr::{self, Pair};
use crate::lab::config::{File, Service, Target};
use crate::lab::{LabSpec, VmKind, tools};
use crate::scenario::{Scenario, eventually};

/// Targets, each a tap that nobody reads.
const TAPS: usize = 60;
/// A tap has its turn again after this long: a weight that falls and rises more often swings, and is held.
const AGAIN: Duration = Duration::from_secs(21);
/// Frames in a ring.
const RING: u32 = 1000;
/// Frames that are a burst and no queue yet: 5 % of the ring.
const SHALLOW: usize = 50;
/// Frames sent each time.
const FRAMES: usize = 150;
/// A weight that is so much smaller has been written because of them.
const LESS: f64 = 0.98;
/// The goal, milliseconds.
const GOAL: f64 = 10.0;
/// Where the moments of the rounds come from.
const SEED: u64 = 0x6c62_7802;

/// Fills one ring after the other, at moments that have nothing to do with the daemon's.
///
/// # Errors
/// When the lab cannot be built, or a weight does not move.
pub fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    clock::unpin()?;
    report.section("reaction", "From a queue that grows to its weight");
    let rounds = settings.either(300, TAPS);
    report.say(&format!(
        "{TAPS} taps that nobody reads are the targets of a service with adaptive weights. {rounds} times {FRAMES} \
         frames are put into one of them, at a random moment; the clock runs from the frame that makes more than \
         {SHALLOW} of {RING} to the store of a smaller weight in the map that the kernel reads."
    ));
    let mut rows = vec![
        ["queues are looked at every", "p50 ms", "p90 ms", "p99 ms", "max ms"].map(String::from).to_vec(),
    ];
    for (every, is_default) in [("10ms", true), ("5ms", false)] {
        let times = measure(every, rounds)?;
        let mut row = vec![every.to_owned()];
        row.extend([0.5, 0.9, 0.99, 1.0].map(|share| format!("{:.2}", times.quantile(share))));
        rows.push(row);
        let name = format!(
            "reaction: p99, queues looked at every {every}{}",
            if is_default { " (default)" } else { "" }
        );
        report.claim(Claim::at_most(&name, times.quantile(0.99), "ms", GOAL));
    }
    report.table(&rows);
    Ok(())
}

/// A lab with a daemon, and milliseconds of each round.
fn measure(every: &str, rounds: usize) -> Result<Samples> {
    let mut scenario = Scenario::start(LabSpec::one_host(0, VmKind::StandIn), &[])?;
    let host = scenario.lab.host().ns.clone();
    let mut taps = host.run(|| (0..TAPS).map(tap).collect::<Result<Vec<_>>>())??;
    let macs = (0..TAPS).map(|n| {
        let (ip, mac) = (own(n).v4, mac_text(addr::mac(0x01, 0, n + 1)));
        format!("neigh replace {ip} lladdr {mac} dev br0 nud permanent")
    });
    tools::ip(&host, &macs.collect::<Vec<_>>())?;
    let targets = (0..TAPS).map(|n| Target::local(&name(n), own(n))).collect();
    let mut service = Service::dsr("react", addr::vip(0), "udp", 9, targets);
    service.keys = String::from("weights = \"adaptive\"\navailability = \"1\"");
    let top = format!("[measure]\nqueues = \"{every}\"\n");
    let file = File { top, ..File::new(vec![service]) };
    scenario.lbx.push(crate::lab::Lbx::start(&scenario.lab, 0, &file.text())?);
    let maps = Maps::open_pinned(&Instance::new(Some(&scenario.lbx().instance))?)?;
    let names = Names::adopt(&&maps)?;
    let mut indices = Vec::new();
    for n in 0..TAPS {
        let index = names.targets.get(&map_name(&format!("react/{}", name(n))));
        indices.push(u32::from(*index.context("a target without an index")?));
    }
    let weight = |n: usize| -> Result<f64> {
        let weight = maps.weight(indices[n], 0)?;
        Ok(f64::from(weight.weight) / f64::from(weight.configured.max(1)))
    };
    let wait = |n: usize, what: &str, holds: &dyn Fn(f64) -> bool| -> Result<Instant> {
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            let (now, seen) = (weight(n)?, Instant::now());
            if holds(now) {
                return Ok(seen);
            }
            ensure!(seen < deadline, "{}: {what}: its weight is {now}\n{}", name(n), scenario.story());
            sleep(Duration::from_micros(50));
        }
    };
    let (mut random, mut times) = (Random::new(SEED), Samples::new());
    let watched = || Ok(scenario.lbx().json(&["queues"])?["queues"].as_array().map_or(0, Vec::len) == TAPS);
    ensure!(eventually(Duration::from_mins(1), watched)?, "not all queues are seen; {}", scenario.story());
    let mut used: Vec<Option<Instant>> = vec![None; TAPS];
    for round in 0..rounds {
        let n = round % TAPS;
        let rest = used[n]
            .map_or(Duration::ZERO, |at: Instant| (at + AGAIN).saturating_duration_since(Instant::now()));
        sleep(rest + Duration::from_secs_f64(0.05 + 0.1 * random.next()));
        wait(n, "well again", &|weight| weight > 0.95)?;
        let before = weight(n)?;
        let start = fill(&taps[n].1)?;
        let seen = wait(n, "filled", &|weight| weight < LESS * before)?;
        times.push(seen.saturating_duration_since(start).as_secs_f64() * 1000.0);
        taps[n].0.take(0, FRAMES);
        used[n] = Some(Instant::now());
    }
    Ok(times)
}

/// Its address: of the lab's, but nobody else's.
fn own(n: usize) -> Pair {
    Pair::nth(130 + n as u8)
}

fn name(n: usize) -> String {
    format!("react{n}")
}

/// A tap at the bridge, and a socket to put frames into it. Called in the host's namespace.
fn tap(n: usize) -> Result<(Tap, Wire)> {
    let tap = Tap::new(&name(n), 1, RING)?;
    let done = std::process::Command::new("ip").args(["link", "set", &tap.name, "master", "br0"]).status()?;
    ensure!(done.success(), "ip link set {} master br0", tap.name);
    let wire = Wire::on(&tap.name)?;
    Ok((tap, wire))
}

/// Puts frames into a tap; when the first one too many was sent.
fn fill(wire: &Wire) -> Result<Instant> {
    let mut frame = [0_u8; 60];
    frame[..15].copy_from_slice(&[2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 8, 0, 0x45]);
    frame[23] = 17;
    let mut over = Instant::now();
    for n in 0..FRAMES {
        if n == SHALLOW {
            over = Instant::now();
        }
        wire.send(&frame)?;
    }
    Ok(over)
}
