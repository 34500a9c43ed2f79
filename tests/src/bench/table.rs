//! Maglev tables: building one, repairing it after a change, what a change moves, and how true shares are.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;
use lbx_common::algo::maglev::{DEFAULT_SIZE, Entry, Table, seed};

use super::{Report, Samples, Settings, clock};
use crate::demo::Claim;

/// Targets of the table.
const TARGETS: u32 = 100;

/// A change of the entries, with what it is called.
struct Change {
    what: &'static str,
    to: Vec<Entry>,
    /// Whether it is one weight: what the goals are about.
    single: bool,
}

/// Measures building and repairing; compares with building anew.
///
/// # Errors
/// When the thread cannot stay on its core.
pub fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    clock::pin(settings.cpu)?;
    report.section("table", "Maglev tables");
    let repeats = settings.either(201, 21);
    report.say(&format!(
        "{DEFAULT_SIZE} slots, {TARGETS} targets of equal weight; medians of {repeats} runs. Moved and necessary \
         are slots: a slot has to move when its target loses a part of its share. Building anew is the reference: \
         what a balancer does that does not repair."
    ));
    let entries = equal(TARGETS);
    let before = Table::build(&entries, DEFAULT_SIZE);
    let build =
        timed(repeats, || entries.clone(), |entries| drop(black_box(Table::build(entries, DEFAULT_SIZE))));

    let mut rows = vec![
        [
            "change",
            "necessary",
            "repair / necessary",
            "anew / necessary",
            "repair µs",
            "anew µs",
            "anew / repair",
        ]
        .map(String::from)
        .to_vec(),
    ];
    let (mut worst_moved, mut worst_time) = (0.0_f64, 0.0_f64);
    for change in changes() {
        let least = necessary(&before, &change.to);
        let mut repaired = before.clone();
        repaired.repair(&change.to, DEFAULT_SIZE);
        let anew = Table::build(&change.to, DEFAULT_SIZE);
        let ratio = |table: &Table| f64::from(moved(&before, table)) / f64::from(least);
        let repair = timed(repeats, || before.clone(), |table| _ = table.repair(&change.to, DEFAULT_SIZE));
        let rebuild = timed(repeats, || (), |()| drop(black_box(Table::build(&change.to, DEFAULT_SIZE))));
        rows.push(vec![
            change.what.to_owned(),
            least.to_string(),
            format!("{:.3}", ratio(&repaired)),
            format!("{:.2}", ratio(&anew)),
            format!("{:.0}", repair.median()),
            format!("{:.0}", rebuild.median()),
            format!("{:.1}", rebuild.median() / repair.median()),
        ]);
        worst_moved = worst_moved.max(ratio(&repaired));
        if change.single {
            worst_time = worst_time.max(repair.median());
        }
    }
    report.table(&rows);
    let error = share_error(settings);
    report.say(&format!(
        "Largest deviation of a share from its weight, over tables of 1 to 1,000 targets with weights of 1 to \
         1,000: {error:.3} of a slot."
    ));
    report.claim(Claim::at_most("table: build", build.median() / 1000.0, "ms", 1.5));
    report.claim(Claim::at_most("table: repair of one weight", worst_time, "µs", 100.0));
    report.claim(Claim::at_most("table: moved / necessary", worst_moved, "", 1.05));
    report.claim(Claim::at_most("table: share error", error, "slots", 1.0));
    Ok(())
}

/// Microseconds that `work` takes on what `make` prepares.
fn timed<T>(repeats: u32, mut make: impl FnMut() -> T, mut work: impl FnMut(&mut T)) -> Samples {
    (0..repeats)
        .map(|_| {
            let mut input = make();
            let start = Instant::now();
            work(&mut input);
            let took = start.elapsed();
            drop(input);
            took.as_nanos() as f64 / 1000.0
        })
        .collect()
}

fn entry(id: u32, weight: u32) -> Entry {
    Entry { id, seed: seed(&format!("web-{id}/0")), weight }
}

fn equal(n: u32) -> Vec<Entry> {
    (0..n).map(|id| entry(id, 100)).collect()
}

fn changes() -> Vec<Change> {
    let with = |weight: u32| {
        let mut entries = equal(TARGETS);
        entries[7].weight = weight;
        entries
    };
    let without: Vec<Entry> = equal(TARGETS).into_iter().filter(|entry| entry.id != 7).collect();
    vec![
        Change { what: "one weight 10 % lower", to: with(90), single: true },
        Change { what: "one weight 10 % higher", to: with(110), single: true },
        Change { what: "one weight halved", to: with(50), single: true },
        Change { what: "one weight doubled", to: with(200), single: true },
        Change { what: "one target removed", to: without, single: false },
        Change { what: "one target added", to: equal(TARGETS + 1), single: false },
        Change { what: "half of them removed", to: equal(TARGETS / 2), single: false },
    ]
}

/// Slots that hold another id.
fn moved(a: &Table, b: &Table) -> u32 {
    a.slots().iter().zip(b.slots()).filter(|(a, b)| a != b).count() as u32
}

/// Slots that have to change hands: what every id loses, counted in tables of its quota.
fn necessary(before: &Table, to: &[Entry]) -> u32 {
    let after = Table::build(to, before.len());
    let mut ids: Vec<u32> = before.slots().to_vec();
    ids.sort_unstable();
    ids.dedup();
    ids.iter().map(|&id| before.held(id).saturating_sub(after.held(id))).sum()
}

/// The largest distance, in slots, of what a target holds from its exact share.
fn share_error(settings: &Settings) -> f64 {
    let mut state = 1_u64;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut worst = 0.0_f64;
    for _ in 0..settings.either(200, 20) {
        let n = 1 + random(1000) as u32;
        let entries: Vec<Entry> = (0..n).map(|id| entry(id, 1 + random(1000) as u32)).collect();
        let table = Table::build(&entries, DEFAULT_SIZE);
        let total: f64 = entries.iter().map(|e| f64::from(e.weight)).sum();
        for e in &entries {
            let exact = f64::from(DEFAULT_SIZE) * f64::from(e.weight) / total;
            worst = worst.max((f64::from(table.held(e.id)) - exact).abs());
        }
    }
    worst
}
