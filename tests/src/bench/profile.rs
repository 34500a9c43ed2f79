//! Where the time of a packet goes: a sampling profile of the kernel program, by place in the source.
//!
//! The kernel's CPU clock interrupts the loop of test runs some ten thousand times a second and notes where it was.
//! What it found in the program under test is looked up in the line information the kernel keeps of compiled BPF
//! programs; what it found elsewhere, in the kernel's own symbols.

mod lines;
mod symbols;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use perf_event::events::Software;
use perf_event::{Builder, SampleFlag};

use super::path::cases::{self, Case, Fill};
use super::path::stage::Stage;
use super::programs::Load;
use super::{Report, Settings, clock};
use lines::Lines;
use symbols::Symbols;

/// Nanoseconds of CPU time between two samples.
const PERIOD: u64 = 97_000;
/// Bytes of the ring of samples (a power of two): read after every run, which takes far less than it holds.
const RING: usize = 1 << 21;
/// A place with less than this share of the time is counted among the others.
const LEAST: f64 = 0.02;

/// The kinds of packets looked at, as [`cases`] calls them.
const CASES: [&str; 5] = [
    "IPv4 TCP, known flow, dsr",
    "IPv4 TCP, known flow, nat",
    "new flow, recorded (1 MiB table)",
    "IPv4 TCP, no service",
    "tc: IPv4 TCP, known flow, nat",
];

/// Samples by place.
#[derive(Default)]
struct Found {
    /// In lbx's own program: by file.
    own: BTreeMap<String, u64>,
    /// In the rest of the kernel: by symbol.
    kernel: BTreeMap<String, u64>,
    /// All of them.
    all: u64,
}

/// Profiles some kinds of packets.
///
/// # Errors
/// When a program does not load or a run fails, or this kernel cannot sample.
pub fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    clock::pin(settings.cpu)?;
    report.section("profile", "Where the time goes");
    report.say(
        "Samples of the CPU clock in a loop of test runs, by the file of the line that was executed: nanoseconds per \
         packet, the loop and the wrapper that restores the packet included. `kernel` is what lbx calls (redirect, \
         tail call, clock) and what runs the loop.",
    );
    for case in cases::all().into_iter().filter(|case| CASES.contains(&case.name)) {
        let name = case.name;
        let (found, gross) = measure(settings, &case).with_context(|| name.to_owned())?;
        report.say(&format!("**{name}**: {gross:.1} ns with loop and wrapper, {} samples.", found.all));
        report.table(&table(&found, gross));
    }
    Ok(())
}

/// Runs one case for a while: its samples, and nanoseconds per packet.
fn measure(settings: &Settings, case: &Case) -> Result<(Found, f64)> {
    let stage = Stage::of(case)?;
    let own = Lines::all_of("lbx_").context("line information of the programs")?;
    ensure!(!own.is_empty(), "the kernel tells no addresses of BPF programs");
    let symbols = Symbols::read()?;
    let mut sampler = Builder::new(Software::CPU_CLOCK)
        .observe_self()
        .any_cpu()
        .include_kernel()
        .exclude_user(true)
        .sample_period(PERIOD)
        .sample(SampleFlag::IP)
        .build()
        .context("this kernel cannot sample the CPU clock")?
        .sampled(RING)
        .context("no memory for samples")?;
    let times = match case.fill {
        Fill::Empty(n) => n,
        Fill::Known | Fill::Flood => 500_000,
    };
    let load = Load { frame: &case.frame, flows: case.flows, whole: case.whole, times };
    let rounds = settings.either(60, 10) * (500_000 / times as usize);
    let (mut found, mut gross) = (Found::default(), 0.0);
    for _ in 0..rounds {
        stage.begin()?;
        sampler.enable()?;
        gross += stage.programs.loop_over(stage.at, stage.program(), &load)?;
        sampler.disable()?;
        while let Some(record) = sampler.next_record() {
            let Ok(perf_event::data::Record::Sample(sample)) = record.parse_record() else { continue };
            let Some(ip) = sample.ip() else { continue };
            found.all += 1;
            match own.place(ip) {
                Some(place) => *found.own.entry(place.to_owned()).or_default() += 1,
                None => *found.kernel.entry(symbols.name(ip).to_owned()).or_default() += 1,
            }
        }
    }
    ensure!(found.all > 100, "only {} samples", found.all);
    Ok((found, gross / rounds as f64))
}

fn table(found: &Found, gross: f64) -> Vec<Vec<String>> {
    let mut rows = vec![["where", "ns", "share"].map(String::from).to_vec()];
    for (whose, places) in [("", &found.own), ("kernel: ", &found.kernel)] {
        let mut places: Vec<_> = places.iter().collect();
        places.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        let share = |count: u64| count as f64 / found.all as f64;
        let (shown, rest): (Vec<_>, Vec<_>) =
            places.into_iter().partition(|(_, count)| share(**count) >= LEAST);
        let rest: u64 = rest.iter().map(|(_, count)| **count).sum();
        let others = "others".to_owned();
        for (place, count) in shown.into_iter().chain([(&others, &rest)]) {
            let share = share(*count);
            rows.push(vec![
                format!("{whose}{place}"),
                format!("{:.1}", share * gross),
                format!("{:.0} %", share * 100.0),
            ]);
        }
    }
    rows
}
