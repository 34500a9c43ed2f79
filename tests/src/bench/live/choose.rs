//! What it costs to hit the queue of a flow: the whole engine, and for frames on another CPU the way there.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sched::sched_getcpu;

use super::line::{Line, Lines, QUEUES};
use crate::bench::{Report, Samples, Settings, clock};
use crate::demo::Claim;

const FLOWS: u32 = 1 << 10;

/// Frames whose flows are bound to a queue of this CPU, to one of another, or to none that matters.
#[derive(Clone, Copy)]
enum Way {
    AsTheyCome,
    SameCpu,
    OtherCpu,
}

impl Way {
    const ALL: [Self; 3] = [Self::AsTheyCome, Self::SameCpu, Self::OtherCpu];

    const fn name(self) -> &'static str {
        match self {
            Self::AsTheyCome => "queues as they come",
            Self::SameCpu => "chosen, already on its CPU",
            Self::OtherCpu => "chosen, on another CPU",
        }
    }

    /// The queue that flows are bound to where the sending thread is on a CPU.
    fn queue(self, cpu: usize) -> Option<u8> {
        let own = (cpu % usize::from(QUEUES)) as u8;
        match self {
            Self::AsTheyCome => None,
            Self::SameCpu => Some(own),
            Self::OtherCpu => Some((own + 1) % QUEUES),
        }
    }
}

/// Measures the three ways in turns.
pub fn run(settings: &Settings, report: &mut Report, lines: &mut Lines) -> Result<()> {
    let (rounds, time) = settings.either((7, Duration::from_millis(500)), (3, Duration::from_millis(100)));
    report.say(
        "With `choose_queue`, the queue of a vNIC that a frame lands in is that of its flow: the frame takes the whole \
         engine, and goes on at a CPU that hits the queue. CPU: of the sending core, and with it of the kernel's thread \
         there.",
    );
    let mut all = Way::ALL.map(|way| (way, Samples::new(), Samples::new(), Samples::new(), Samples::new()));
    for _ in 0..rounds {
        for (way, mpps, own, both, lost) in &mut all {
            // Where the bench has its seat.
            lines.choose(way.queue(sched_getcpu()?))?;
            lines.prime(Line::Dsr, FLOWS)?;
            let before = threads()?;
            let through = lines.send(Line::Dsr, FLOWS, time)?;
            let threads = threads()?.saturating_sub(before).as_nanos() as f64 / through.arrived as f64;
            mpps.push(through.mpps());
            own.push(through.ns());
            both.push(through.ns() + threads);
            lost.push(through.lost());
        }
    }
    let [(_, free, ..), (_, same, ..), _] = &all;
    let ratio = same.median() / free.median();
    let head = ["into a queue, 1024 flows", "of as they come", "Mpps", "CPU ns", "of both CPUs", "lost"];
    let mut table = vec![head.map(String::from).to_vec()];
    for (way, mpps, own, both, lost) in &all {
        table.push(vec![
            way.name().to_owned(),
            format!("{:.2}", mpps.median() / free.median()),
            format!("{:.2}", mpps.median()),
            format!("{:.0}", own.median()),
            format!("{:.0}", both.median()),
            format!("{:.2} %", lost.median() * 100.0),
        ]);
    }
    report.table(&table);
    report.claim(Claim::at_least("live: queue chosen, already on its CPU, of as they come", ratio, "", 0.5));
    Ok(())
}

/// CPU time of all threads that the kernel has for frames that change CPUs (kernel/bpf/cpumap.c).
fn threads() -> Result<Duration> {
    let mut sum = Duration::ZERO;
    for entry in fs::read_dir("/proc").context("/proc")? {
        let path = entry?.path();
        if fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.starts_with("cpumap/")) {
            sum += clock::time_of(&path)?;
        }
    }
    Ok(sum)
}
