//! The flow table at any number of flows: what a packet of a random flow costs, how many flows go without a slot,
//! and how long a listing of a million takes.

mod listing;

use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lbx_common::flow::{ColdFlow, FlowEntry};
use lbx_common::limits::SLOTS_PER_FLOW;
use lbx_common::target::Forward;

use super::live::{Line, Lines};
use super::other::Other;
use super::programs::{At, Flows, Load, Programs};
use super::{Report, Samples, Settings, clock};
use crate::bpf::Verdict;
use crate::bpf::bench::{Bench, Hook};
use crate::bpf::world::{Svc, World, tcp_packet};
use crate::demo::Claim;
use crate::packets::{protocol, tcp};

/// A number of flows, and how many times the bare table's cost a packet may cost.
struct Size {
    flows: u32,
    name: &'static str,
    goal: Option<f64>,
}

const SIZES: [Size; 5] = [
    Size { flows: 1, name: "1", goal: None },
    Size { flows: 1 << 10, name: "1 k", goal: None },
    Size { flows: 1 << 15, name: "32 k", goal: Some(1.4) },
    Size { flows: 1 << 20, name: "1 M", goal: Some(1.5) },
    Size { flows: 1 << 23, name: "8 M", goal: None },
];

/// What one number of flows showed.
struct Found {
    lbx: Samples,
    bare: Samples,
    /// By load: median of lbx over median of the reference.
    ratios: Samples,
    /// Another balancer's program, where one was named.
    other: Samples,
    unrecorded: f64,
    live: Option<(f64, f64)>,
}

/// Measures every number of flows.
///
/// # Errors
/// When a table cannot be made, or packets do not go where they should.
pub fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    clock::pin(settings.cpu)?;
    report.section("flows", "Flows at random");
    let (loads, rounds) = settings.either((5, 5), (1, 2));
    report.say(&format!(
        "TCP over IPv4, known flows in random order, dsr; CPU time per packet of a test run without the loop. \
         `bare` is a program with one 64-byte bucket of an array for each flow, no second one, no services, no \
         weights, no states, no ageing, no counters, one CPU only, and as much memory. {loads} loads of maps and \
         programs, {rounds} rounds in each, the two in turns; the ratio is that of medians in the best load, as \
         figures depend on where memory lands; in brackets the median load. Live frames: through a veth on one core, \
         the making of frames included. Not recorded: of the table's stated capacity, filled at once."
    ));
    let mut rows = vec![
        [
            "flows",
            "lbx / bare",
            "lbx ns",
            "bare ns",
            "live: lbx / bare",
            "lbx Mpps",
            "bare Mpps",
            "not recorded",
        ]
        .map(String::from)
        .to_vec(),
    ];
    if settings.against.is_some() {
        rows[0].push("other ns".to_owned());
    }
    let mut claims = Vec::new();
    // To look at some of them again and again while changing the datapath.
    let only = std::env::var("LBX_BENCH_ONLY").unwrap_or_default();
    for size in SIZES.into_iter().filter(|size| size.name.contains(&only)) {
        let found =
            measure(settings, &size, if size.flows > 1 << 20 { 2.min(loads) } else { loads }, rounds)?;
        rows.push(row(&size, &found));
        if settings.against.is_some() {
            rows.last_mut().expect("just made").push(format!("{:.1}", found.other.median()));
        }
        if let Some(goal) = size.goal {
            let name = format!("flows: {} at random, lbx / bare", size.name);
            claims.push(Claim::at_most(&name, found.ratios.min(), "", goal));
        }
        if size.flows >= 1 << 16 {
            let name = format!("flows: {} not recorded at capacity", size.name);
            claims.push(Claim::at_most(&name, found.unrecorded * 100.0, "%", 0.01));
        }
    }
    report.table(&rows);
    report.say(&format!(
        "A slot takes {} bytes that packets look at and {} that inspection does; the table has {SLOTS_PER_FLOW} slots \
         for each flow of its capacity.",
        size_of::<FlowEntry>(),
        size_of::<ColdFlow>()
    ));
    claims.push(Claim::at_most("flows: hot bytes of a slot", size_of::<FlowEntry>() as f64, "B", 16.0));
    claims.push(Claim::at_most("flows: cold bytes of a slot", size_of::<ColdFlow>() as f64, "B", 48.0));
    if only.is_empty() {
        claims.extend(listing::measure(settings, report)?);
    }
    for claim in claims {
        report.claim(claim);
    }
    Ok(())
}

fn row(size: &Size, found: &Found) -> Vec<String> {
    let live = |text: &dyn Fn((f64, f64)) -> String| found.live.map_or_else(String::new, text);
    vec![
        size.name.to_owned(),
        format!("{:.2} ({:.2})", found.ratios.min(), found.ratios.median()),
        format!("{:.1}", found.lbx.min()),
        format!("{:.1}", found.bare.min()),
        live(&|(lbx, bare)| format!("{:.2}", lbx / bare)),
        live(&|(lbx, _)| format!("{lbx:.2}")),
        live(&|(_, bare)| format!("{bare:.2}")),
        format!("{:.4} %", found.unrecorded * 100.0),
    ]
}

/// One service whose flow table has room for so many flows.
fn world(flows: u32) -> World {
    let mut service = Svc::new(protocol::TCP, 80, Forward::Dsr, 3);
    service.table = 65_537;
    let mut world = World::new(vec![service]);
    world.options.flows = flows.saturating_mul(SLOTS_PER_FLOW).max(1 << 16);
    // Nothing is to age while eight million flows are made.
    world.options.idle.established = Duration::from_hours(1);
    world.options.idle.new = Duration::from_hours(1);
    world
}

fn measure(settings: &Settings, size: &Size, loads: usize, rounds: usize) -> Result<Found> {
    let mut found = Found {
        lbx: Samples::new(),
        bare: Samples::new(),
        other: Samples::new(),
        ratios: Samples::new(),
        unrecorded: 0.0,
        live: None,
    };
    let times = settings.either(2_000_000, 300_000);
    let frame = tcp_packet(true, 1024, tcp::ACK).build();
    for _ in 0..loads {
        let mut bench = Bench::new(world(size.flows));
        let mut programs =
            Programs::load_tables(size.flows.saturating_mul(SLOTS_PER_FLOW).max(1 << 16), 1 << 10)?;
        programs.redirect_to(bench.ifindex(0))?;
        let lbx = bench.runner(Hook::Xdp(0)).program().try_clone_to_owned().context("the program")?;
        let bare = programs.xdp("bare_table")?.as_fd().try_clone_to_owned().context("the reference")?;
        let other = settings.against.as_deref().map(Other::open).transpose()?;
        let load = |flows, times| Load { frame: &frame, flows, whole: false, times };
        // Twice: the second packet of a flow confirms it.
        for _ in 0..2 {
            let all = load(Flows::Sequential(size.flows), size.flows);
            let cost = programs.cost(At::Xdp, lbx.as_fd(), &all)?;
            ensure!(Verdict::of_xdp(cost.verdict) == Verdict::Redirect, "lbx answers {}", cost.verdict);
            programs.cost(At::Xdp, bare.as_fd(), &all)?;
            if let Some(other) = &other {
                other.cost(&programs, Verdict::Redirect, &all)?;
            }
        }
        let counted = bench.counters().services[0];
        // A flow without a slot is one at each of its packets: two so far.
        found.unrecorded = counted.flows_unrecorded as f64 / 2.0 / f64::from(size.flows);
        let (mut ours, mut theirs) = (Samples::new(), Samples::new());
        for _ in 0..rounds {
            let random = load(if size.flows == 1 { Flows::Same } else { Flows::Random(size.flows) }, times);
            theirs.push(programs.cost(At::Xdp, bare.as_fd(), &random)?.net);
            ours.push(programs.cost(At::Xdp, lbx.as_fd(), &random)?.net);
            if let Some(other) = &other {
                found.other.push(other.cost(&programs, Verdict::Redirect, &random)?);
            }
        }
        found.ratios.push(ours.median() / theirs.median());
        found.lbx.push(ours.median());
        found.bare.push(theirs.median());
    }
    found.live = Some(live(settings, size)?);
    Ok(found)
}

/// Mpps of lbx and of the bare table through a veth.
fn live(settings: &Settings, size: &Size) -> Result<(f64, f64)> {
    let (rounds, time) = settings.either((5, Duration::from_millis(400)), (2, Duration::from_millis(50)));
    let mut lines = Lines::build(size.flows, Forward::Dsr, false)?;
    let (mut lbx, mut bare) = (Samples::new(), Samples::new());
    for line in [Line::Dsr, Line::BareTable] {
        lines.prime(line, size.flows)?;
    }
    for _ in 0..rounds {
        bare.push(lines.send(Line::BareTable, size.flows, time)?.mpps());
        lbx.push(lines.send(Line::Dsr, size.flows, time)?.mpps());
    }
    Ok((lbx.median(), bare.median()))
}
