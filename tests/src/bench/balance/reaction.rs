//! From the first frame over a queue's threshold to the weight in the kernel's map.

use std::net::{IpAddr, SocketAddr, UdpSocket};
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
use crate::lab::offload::Offloads;
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
/// Clients' ports that are tried to find a flow for each tap.
const PORTS: std::ops::Range<u16> = 20_000..24_000;

/// How frames come to a tap.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From the client, through XDP on the uplink: the kernel tells of the queue.
    Xdp,
    /// As the bridge and tc bring them: the queue is seen at the next look.
    Skb,
}

impl Way {
    const ALL: [Self; 2] = [Self::Xdp, Self::Skb];

    const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "by XDP: the kernel tells",
            Self::Skb => "by the bridge or tc: seen at the next look",
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Xdp => "XDP",
            Self::Skb => "bridge or tc",
        }
    }
}

/// Fills one ring after the other, at moments that have nothing to do with the daemon's.
///
/// # Errors
/// When the lab cannot be built, or a weight does not move.
pub fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    clock::unpin()?;
    report.section("reaction", "From a queue that grows to its weight");
    let rounds = settings.either(10 * TAPS, 2 * TAPS);
    report.say(&format!(
        "{TAPS} taps that nobody reads are the targets of a service with adaptive weights. {rounds} times {FRAMES} \
         frames come into one of them, at a random moment, in turns by XDP (a client sends them to the VIP, as one \
         known flow) and into the tap directly, as the bridge would; the clock runs from when the frame that makes \
         more than {SHALLOW} of {RING} is sent to the store of a smaller weight in the map that the kernel reads."
    ));
    let times = measure(rounds)?;
    let mut rows = vec![["frames come", "p50 ms", "p90 ms", "p99 ms", "max ms"].map(String::from).to_vec()];
    for (way, times) in Way::ALL.iter().zip(&times) {
        let mut row = vec![way.name().to_owned()];
        row.extend([0.5, 0.9, 0.99, 1.0].map(|share| format!("{:.2}", times.quantile(share))));
        rows.push(row);
        let name = format!("reaction: p99, frames by {}", way.word());
        report.claim(Claim::at_most(&name, times.quantile(0.99), "ms", GOAL));
    }
    report.table(&rows);
    Ok(())
}

/// A lab with a daemon, and milliseconds of each round, by way.
fn measure(rounds: usize) -> Result<[Samples; 2]> {
    let mut spec = LabSpec::one_host(0, VmKind::StandIn);
    spec.clients[0].offloads = Offloads::sender(false);
    let mut scenario = Scenario::start(spec, &[])?;
    let host = scenario.lab.host().ns.clone();
    let mut taps = host.run(|| (0..TAPS).map(tap).collect::<Result<Vec<_>>>())??;
    let macs = (0..TAPS).map(|n| {
        let (ip, mac) = (own(n).v4, mac_text(mac(n)));
        format!("neigh replace {ip} lladdr {mac} dev br0 nud permanent")
    });
    tools::ip(&host, &macs.collect::<Vec<_>>())?;
    let targets = (0..TAPS).map(|n| Target::local(&name(n), own(n))).collect();
    let mut service = Service::dsr("react", addr::vip(0), "udp", 9, targets);
    // What the kernel times or counts says nothing here: nobody answers.
    service.keys = String::from("weights = \"adaptive\"\navailability = \"1\"");
    let file = File::new(vec![service]).xdp("native");
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
    let (mut random, mut times) = (Random::new(SEED), [Samples::new(), Samples::new()]);
    let watched = || Ok(scenario.lbx().json(&["queues"])?["queues"].as_array().map_or(0, Vec::len) == TAPS);
    ensure!(eventually(Duration::from_mins(1), watched)?, "not all queues are seen; {}", scenario.story());
    let flows = flows(&scenario, &mut taps)?;
    let mut used: Vec<Option<Instant>> = vec![None; TAPS];
    for round in 0..rounds {
        // In turns for each tap, too.
        let (n, way) = (round % TAPS, Way::ALL[(round + round / TAPS) % Way::ALL.len()]);
        let rest = used[n]
            .map_or(Duration::ZERO, |at: Instant| (at + AGAIN).saturating_duration_since(Instant::now()));
        sleep(rest + Duration::from_secs_f64(0.05 + 0.1 * random.next()));
        wait(n, "well again", &|weight| weight > 0.95)?;
        let before = weight(n)?;
        let start = match way {
            Way::Xdp => fill(|| Ok(flows[n].send(&[0; 18]).map(drop)?))?,
            Way::Skb => fill(|| Ok(taps[n].1.send(&frame(n))?))?,
        };
        let seen = wait(n, "filled", &|weight| weight < LESS * before)?;
        times[usize::from(way == Way::Skb)]
            .push(seen.saturating_duration_since(start).as_secs_f64() * 1000.0);
        let taken = take(&mut taps[n].0, n);
        ensure!(taken == FRAMES, "{} of {FRAMES} frames came into {}; {}", taken, name(n), scenario.story());
        used[n] = Some(Instant::now());
    }
    Ok(times)
}

/// For each tap a socket of the client whose flow leads there, and is known.
fn flows(scenario: &Scenario, taps: &mut [(Tap, Wire)]) -> Result<Vec<UdpSocket>> {
    let vip = SocketAddr::new(addr::vip(0).v4.into(), 9);
    let open = |port| -> Result<UdpSocket> {
        scenario.client().run(|| {
            let socket = UdpSocket::bind((IpAddr::from([0, 0, 0, 0]), port))?;
            socket.connect(vip)?;
            Ok(socket)
        })?
    };
    let mut found: Vec<Option<UdpSocket>> = taps.iter().map(|_| None).collect();
    let empty = |taps: &mut [(Tap, Wire)]| -> Vec<usize> {
        taps.iter_mut().enumerate().map(|(n, (tap, _))| take(tap, n)).collect()
    };
    let answered = || {
        let socket = open(PORTS.end)?;
        socket.send(&[0; 18])?;
        sleep(Duration::from_millis(20));
        Ok(empty(taps).iter().any(|frames| *frames > 0))
    };
    ensure!(eventually(Duration::from_secs(30), answered)?, "the VIP leads nowhere; {}", scenario.story());
    for port in PORTS {
        let socket = open(port)?;
        // The second one confirms the flow.
        for _ in 0..2 {
            socket.send(&[0; 18])?;
        }
        let mut tries = 0..200;
        let here = loop {
            if let Some(n) = empty(taps).iter().position(|frames| *frames > 0) {
                break n;
            }
            ensure!(tries.next().is_some(), "a frame came nowhere; {}", scenario.story());
            sleep(Duration::from_millis(1));
        };
        found[here].get_or_insert(socket);
        if found.iter().all(Option::is_some) {
            sleep(Duration::from_millis(50));
            empty(taps);
            return Ok(found.into_iter().flatten().collect());
        }
    }
    anyhow::bail!("no flow leads to some of the taps; {}", scenario.story())
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

/// Empties tap `n`; how many frames were for it. What is asked of everybody, or flooded, comes into every tap.
fn take(tap: &mut Tap, n: usize) -> usize {
    let own = |frame: &Vec<u8>| frame.starts_with(&mac(n)) && frame.get(12..14) == Some(&[8, 0]);
    std::iter::from_fn(|| tap.next(0)).filter(own).count()
}

/// The MAC of target `n`.
fn mac(n: usize) -> [u8; 6] {
    addr::mac(0x01, 0, n + 1)
}

/// A frame of UDP for target `n`, as far as a tap looks.
fn frame(n: usize) -> [u8; 60] {
    let mut frame = [0_u8; 60];
    frame[..6].copy_from_slice(&mac(n));
    frame[12..15].copy_from_slice(&[8, 0, 0x45]);
    frame[23] = 17;
    frame
}

/// Sends frames; when the first one too many was sent.
fn fill(mut send: impl FnMut() -> Result<()>) -> Result<Instant> {
    let mut over = Instant::now();
    for n in 0..FRAMES {
        if n == SHALLOW {
            over = Instant::now();
        }
        send()?;
    }
    Ok(over)
}
