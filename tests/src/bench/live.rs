//! Frames through a line on one core: into a veth, through lbx (or a reference), and out of a veth or a tap.

mod choose;
mod line;

use std::time::Duration;

use anyhow::Result;
use lbx_common::target::Forward;

pub use self::line::{Line, Lines};

use self::line::Tap;
use super::other::Other;
use super::programs::{Flows, Load};
use super::{Report, Samples, Settings, clock};
use crate::demo::Claim;

/// Numbers of flows, and the claims about them: Mpps of dsr into a veth.
const SIZES: [(u32, f64); 2] = [(1 << 10, 4.3), (1 << 20, 2.9)];

/// One line at one number of flows.
struct Row {
    line: Line,
    flows: u32,
    arrived: Samples,
    ns: Samples,
    lost: Samples,
}

/// Measures all lines in turns.
///
/// # Errors
/// When a line cannot be built, or nothing arrives at its end.
pub fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    clock::pin(settings.cpu)?;
    report.section("live", "Frames through a line on one core");
    let (rounds, time) = settings.either((7, Duration::from_millis(700)), (3, Duration::from_millis(100)));
    report.say(&format!(
        "Frames of 54 bytes (TCP over IPv4, flows at random), made by the kernel on the same core that forwards and \
         counts them: all of that is in the figure. {rounds} rounds of {} ms, all lines in each; medians. \
         `bare redirect` sets the MAC and redirects; `bare table` parses, looks up a flow in one 64-byte bucket of \
         an array, sets the MAC and redirects: no services, no weights, no state of targets or connections, no \
         ageing, no counters, one CPU only. The bridge forwards by its table. nftables translates by conntrack, with \
         its check of TCP checksums off, and only for few flows: the machine's conntrack table would not hold more.",
        time.as_millis()
    ));
    let most = SIZES.map(|(flows, _)| flows).into_iter().max().unwrap_or(1);
    let mut lines = Lines::build(most, Forward::Dsr, true)?;
    let mut first = vec![
        Line::BareRedirect,
        Line::BareTable,
        Line::Dsr,
        Line::Learning,
        Line::Bridge,
        Line::Numgen,
        Line::Jhash,
    ];
    if let Some(pin) = &settings.against {
        report.say(&format!(
            "`other`: {}, which sends back by the veth it got a frame by.",
            Other::open(pin)?.name()
        ));
        lines.against(pin)?;
        first.push(Line::Other);
    }
    let rows = measure(&mut lines, &first, rounds, time)?;
    for (flows, _) in SIZES {
        table(report, &rows, flows);
    }
    tap(settings, report, &mut lines)?;
    drop(lines);
    let mut lines = Lines::build(SIZES[0].0, Forward::Dsr, false)?;
    choose::run(settings, report, &mut lines)?;
    drop(lines);
    // In a table of its own: translated flows do not share that of the others.
    let mut lines = Lines::build(most, Forward::Nat, false)?;
    let translated = measure(&mut lines, &[Line::BareTable, Line::Nat], rounds, time)?;
    for (flows, _) in SIZES {
        table(report, &translated, flows);
    }
    for (flows, goal) in SIZES {
        let of = |line| rows.iter().find(|row| row.line == line && row.flows == flows);
        let mpps = of(Line::Dsr).map_or(f64::NAN, |row| row.arrived.median());
        if let Some(other) = of(Line::Other) {
            let ratio = mpps / other.arrived.median();
            report.claim(Claim::at_least(&format!("live: dsr / other, {flows} flows"), ratio, "", 1.0));
        }
        report.claim(Claim::at_least(&format!("live: dsr into a veth, {flows} flows"), mpps, "Mpps", goal));
    }
    Ok(())
}

/// Lines at all numbers of flows, in turns.
fn measure(lines: &mut Lines, of: &[Line], rounds: u32, time: Duration) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for &line in of {
        for (flows, _) in SIZES.into_iter().filter(|(flows, _)| line.takes(*flows)) {
            rows.push(Row { line, flows, arrived: Samples::new(), ns: Samples::new(), lost: Samples::new() });
            lines.prime(line, flows)?;
        }
    }
    for _ in 0..rounds {
        for row in &mut rows {
            let through = lines.send(row.line, row.flows, time)?;
            row.arrived.push(through.mpps());
            row.ns.push(through.ns());
            row.lost.push(through.lost());
        }
    }
    Ok(rows)
}

/// The lines at one number of flows, beside the bare table.
fn table(report: &mut Report, rows: &[Row], flows: u32) {
    let of = |line: Line| rows.iter().find(|row| row.line == line && row.flows == flows);
    let bare = of(Line::BareTable).map_or(f64::NAN, |row| row.arrived.median());
    let mut table = vec![
        [
            format!("into a veth, {flows} flows"),
            "of bare table".into(),
            "Mpps".into(),
            "best".into(),
            "CPU ns".into(),
            "lost".into(),
        ]
        .to_vec(),
    ];
    for row in rows.iter().filter(|row| row.flows == flows) {
        table.push(vec![
            row.line.name().to_owned(),
            format!("{:.2}", row.arrived.median() / bare),
            format!("{:.2}", row.arrived.median()),
            format!("{:.2}", row.arrived.max()),
            format!("{:.0}", row.ns.median()),
            format!("{:.2} %", row.lost.median() * 100.0),
        ]);
    }
    report.table(&table);
}

/// The same into a tap, whose reader is on another core and far slower: counted is what the forwarding core sent.
fn tap(settings: &Settings, report: &mut Report, lines: &mut Lines) -> Result<()> {
    let (rounds, time) = settings.either((5, Duration::from_millis(500)), (2, Duration::from_millis(100)));
    let tap = Tap::new(settings.cpu)?;
    let flows = SIZES[0].0;
    let (mut bare, mut dsr) = (Samples::new(), Samples::new());
    let (mut bare_read, mut dsr_read) = (Samples::new(), Samples::new());
    lines.into_tap()?;
    for _ in 0..rounds {
        for (line, sent, read) in
            [(Line::BareTable, &mut bare, &mut bare_read), (Line::Dsr, &mut dsr, &mut dsr_read)]
        {
            let before = tap.read();
            let through = lines.send(line, flows, time)?;
            sent.push(through.sent_mpps());
            read.push((tap.read() - before) as f64 / through.took.as_secs_f64() / 1e6);
        }
    }
    let mut table = vec![
        [&format!("into a tap, {flows} flows"), "of bare table", "Mpps sent", "Mpps read"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for (name, sent, read) in [("bare table", &bare, &bare_read), ("lbx dsr", &dsr, &dsr_read)] {
        table.push(vec![
            name.to_owned(),
            format!("{:.2}", sent.median() / bare.median()),
            format!("{:.2}", sent.median()),
            format!("{:.2}", read.median()),
        ]);
    }
    report.table(&table);
    report.claim(Claim::at_least(
        "live: dsr into a tap, of bare table",
        dsr.median() / bare.median(),
        "",
        0.8,
    ));
    Ok(())
}

impl Line {
    /// Frames of its flows: `flows` of them at random.
    fn load(self, frame: &[u8], flows: Flows) -> Load<'_> {
        Load { frame, flows, whole: self.changes_all(), times: 0 }
    }
}
