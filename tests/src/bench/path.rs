//! Cost of a packet in the kernel program, by kind of packet.

pub(super) mod cases;
pub(super) mod stage;

use std::os::fd::AsFd;

use anyhow::{Context, Result, ensure};

use super::other::Other;
use super::programs::{At, Flows, Load};
use super::{Report, Samples, Settings, clock};
use crate::bpf::bench::{Bench, Hook};
use crate::bpf::run::Verdict;
use crate::bpf::world::World;
use crate::demo::Claim;
use cases::{Case, Fill};
use stage::Stage;

/// What is measured of one case.
struct Row {
    case: Case,
    net: Samples,
    bare: Option<Samples>,
    /// Another balancer's program over the same packets, where one was named.
    other: Option<Samples>,
}

/// Measures every kind of packet; tables and claims go to the report.
///
/// # Errors
/// When a program does not load or a run fails.
pub fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    clock::pin(settings.cpu)?;
    report.section("path", "Cost of a packet");
    let rounds = settings.either(15, 5);
    let times = settings.either(1_000_000, 100_000);
    report.say(&format!(
        "Nanoseconds of CPU time per packet of a test run, without the loop, on one core; {rounds} rounds of \
         {times} packets, the reference between them. `bare` is parse, one LRU hash lookup, set the MAC, redirect: \
         no services, no lengths checked, no TCP state, no ageing, no weights, no target states, no counters."
    ));
    if let Some(pin) = &settings.against {
        report.say(&Other::open(pin)?.introduce());
    }
    let mut rows = Vec::new();
    // To look at some of them again and again while changing the datapath.
    let only = std::env::var("LBX_BENCH_ONLY").unwrap_or_default();
    for case in cases::all().into_iter().filter(|case| case.name.contains(&only)) {
        rows.push(measure(settings, case, rounds, times)?);
    }
    let mut table = vec![["packet", "median", "min", "goal", "bare", "ratio"].map(String::from).to_vec()];
    if settings.against.is_some() {
        table[0].extend(["other", "ratio"].map(String::from));
    }
    for row in &rows {
        let beside = |samples: &Option<Samples>| {
            let other = samples.as_ref().map(Samples::median);
            let text = |text: &dyn Fn(f64) -> String| other.map_or_else(String::new, text);
            [text(&|other| format!("{other:.1}")), text(&|other| format!("{:.2}", row.net.median() / other))]
        };
        let mut cells = vec![
            row.case.name.to_owned(),
            format!("{:.1}", row.net.median()),
            format!("{:.1}", row.net.min()),
            format!("{:.0}", row.case.goal),
        ];
        cells.extend(beside(&row.bare));
        if settings.against.is_some() {
            cells.extend(beside(&row.other));
        }
        table.push(cells);
    }
    report.table(&table);
    if only.is_empty() {
        sizes(report)?;
    }
    for row in &rows {
        let (value, goal) = (row.net.median(), row.case.goal);
        report.claim(Claim::at_most(&format!("path: {}", row.case.name), value, "ns", goal));
    }
    Ok(())
}

/// How large each program is: instructions as the kernel runs them, and bytes of machine code.
fn sizes(report: &mut Report) -> Result<()> {
    let mut bench = Bench::new(World::nat());
    // The programs of a port are loaded when it is asked for.
    bench.runner(Hook::Xdp(0));
    bench.runner(Hook::Tc(0));
    let mut rows = vec![["program", "instructions", "machine code, bytes"].map(String::from).to_vec()];
    for program in aya::programs::loaded_programs() {
        let program = program.context("listing programs")?;
        let Some(name) = program.name_as_str().filter(|name| name.starts_with("lbx_")) else { continue };
        // Eight bytes an instruction (struct bpf_insn).
        let instructions = program.size_translated().context("this kernel hides the size of programs")? / 8;
        let row = vec![name.to_owned(), instructions.to_string(), program.size_jitted().to_string()];
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    rows[1..].sort();
    report.say("Sizes of the programs. A plain packet is done in `lbx_xdp` or `lbx_tc`; each of the others is one tail call.");
    report.table(&rows);
    Ok(())
}

/// Measures one case in rounds.
fn measure(settings: &Settings, case: Case, rounds: usize, times: u32) -> Result<Row> {
    let stage = Stage::of(&case)?;
    let other = match &settings.against {
        Some(pin) if !case.tc => Some(Other::open(pin)?),
        _ => None,
    };
    let samples = |there: bool| there.then(Samples::new);
    let mut row =
        Row { net: Samples::new(), bare: samples(case.bare), other: samples(other.is_some()), case };
    let case = &row.case;
    for _ in 0..rounds {
        let (chunk, chunks) = match case.fill {
            Fill::Known | Fill::Flood => (times, 1),
            Fill::Empty(n) => (n, (times / n).clamp(1, 8)),
        };
        let load = Load { frame: &case.frame, flows: case.flows, whole: case.whole, times: chunk };
        let mut net = 0.0;
        for _ in 0..chunks {
            stage.begin()?;
            let cost = stage.programs.cost(stage.at, stage.program(), &load)?;
            let verdict = if case.tc { Verdict::of_tc(cost.verdict) } else { Verdict::of_xdp(cost.verdict) };
            ensure!(verdict == case.verdict, "{}: {verdict:?} instead of {:?}", case.name, case.verdict);
            net += cost.net / f64::from(chunks);
        }
        row.net.push(net);
        if let Some(bare) = &mut row.bare {
            let load = Load { whole: false, ..load };
            let reference = stage.programs.xdp("bare_lru")?.as_fd();
            bare.push(stage.programs.cost(At::Xdp, reference, &load)?.net);
        }
        if let (Some(samples), Some(other)) = (&mut row.other, &other) {
            samples.push(other.cost(&stage.programs, case.verdict, &Load { times, ..load })?);
        }
    }
    Ok(row)
}
