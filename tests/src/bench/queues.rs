//! Looking at the queues of vNICs: what the daemon's thread costs, beside the iterator that could do without it.

use std::fs;
use std::hint::black_box;
use std::path::PathBuf;
use std::process;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lbx_user::datapath::{Instance, Queues};
use lbx_user::measure::board::Shared as Board;
use lbx_user::measure::queue::{Sampler, Vnic, Watch};
use nix::sched::{CloneFlags, unshare};

use super::{Report, Samples, Settings, clock};
use crate::bpf::tap::Tap;
use crate::bpf::wire::Wire;
use crate::demo::Claim;

const VMS: usize = 100;
const QUEUES: usize = 4;
const INTERVAL: Duration = Duration::from_millis(10);

/// Measures the thread that looks at the queues, as the daemon runs it.
///
/// # Errors
/// When taps cannot be made or rings cannot be read.
pub fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("a namespace")?;
    report.section("queues", "Looking at the queues of vNICs");
    report.say(&format!(
        "{VMS} taps with {QUEUES} queues each, held by this process in place of QEMU, a target behind each, looked at \
         every {} ms. The thread reads the rings at their addresses, keeps a second of history, writes four readings \
         a target, and searches for queues once a second. The iterator, which needs no addresses, is the reference. \
         CPU time is the thread's own (schedstat).",
        INTERVAL.as_millis()
    ));
    let taps = (0..VMS).map(|n| Tap::new(&format!("q{n}"), QUEUES, 1000)).collect::<Result<Vec<_>, _>>()?;
    let vnic = |(n, tap): (usize, &Tap)| Vnic {
        ifindex: tap.ifindex,
        name: tap.name.clone(),
        vm: Some(format!("vm{n}")),
        pid: Some(process::id()),
        targets: vec![format!("web/vm{n}")],
    };
    let vnics: Vec<Vnic> = taps.iter().enumerate().map(vnic).collect();

    let queues = Queues::load()?;
    let repeats = settings.either(500, 50);
    let timed = |work: &mut dyn FnMut() -> Result<usize>| -> Result<Samples> {
        let times = (0..repeats).map(|_| {
            let start = Instant::now();
            let found = black_box(work()?);
            ensure!(found == VMS * QUEUES, "{found} queues of {}", VMS * QUEUES);
            Ok(start.elapsed().as_nanos() as f64 / 1000.0)
        });
        times.collect()
    };
    let all_tasks = timed(&mut || Ok(queues.find(None)?.len()))?;
    let one_process = timed(&mut || Ok(queues.find(Some(process::id()))?.len()))?;
    for (place, one) in queues.find(None)?.iter().enumerate() {
        queues.watch(place as u32, &one.at)?;
    }
    let mut round = 0;
    let by_address = timed(&mut || {
        round += 1;
        queues.read((VMS * QUEUES) as u32, Some(round))?;
        let valid = (0..(VMS * QUEUES) as u32).filter(|n| queues.ring(*n).is_ok_and(|ring| ring.is_valid()));
        Ok(valid.count())
    })?;
    drop(queues);

    let instance = Instance::new(Some("bench-queues"))?;
    let mut sampler = Sampler::start(instance, Board::default())?;
    sampler.watch(Watch { interval: Some(INTERVAL), vnics });
    let deadline = Instant::now() + Duration::from_secs(10);
    while sampler.shown().queues() < VMS * QUEUES {
        let shown = sampler.shown();
        ensure!(Instant::now() < deadline, "{} queues seen: {:?}", shown.queues(), shown.problem);
        sleep(INTERVAL);
    }
    let task = thread_named("lbx-queues")?;
    let time = settings.either(Duration::from_secs(20), Duration::from_secs(2));
    let share = || -> Result<f64> {
        let (before, start) = (clock::time_of(&task)?, Instant::now());
        sleep(time);
        Ok(clock::time_of(&task)?.saturating_sub(before).div_duration_f64(start.elapsed()) * 100.0)
    };
    let empty = share()?;
    fill(&taps)?;
    let waiting = share()?;
    let every = sampler.shown().interval.unwrap_or_default().as_secs_f64() * 1000.0;
    let of_core = |us: f64| format!("{:.2} %", us / INTERVAL.as_micros() as f64 * 100.0);
    let row = |what: &str, samples: &Samples| {
        let median = samples.median();
        let queue = median * 1000.0 / (VMS * QUEUES) as f64;
        vec![what.to_owned(), format!("{median:.0}"), format!("{queue:.0}"), of_core(median)]
    };
    report.table(&[
        ["way", "µs a look", "ns a queue", "of a core"].map(String::from).to_vec(),
        row("iterator over all tasks", &all_tasks),
        row("iterator over this process", &one_process),
        row("rings by their addresses", &by_address),
        vec!["the whole thread, queues empty".into(), "-".into(), "-".into(), format!("{empty:.2} %")],
        vec!["the whole thread, frames in all".into(), "-".into(), "-".into(), format!("{waiting:.2} %")],
    ]);
    report.claim(Claim::at_most("queues: 100 VMs x 4 queues at 10 ms, empty", empty, "% of a core", 1.0));
    report.claim(Claim::at_most("queues: the same, frames in all", waiting, "% of a core", 1.0));
    // A look that costs too much would be made less often.
    report.claim(Claim::at_most("queues: time between looks", every, "ms", 10.0));
    Ok(())
}

/// Puts frames of many flows into every tap: some wait in each of its queues.
fn fill(taps: &[Tap]) -> Result<()> {
    let mut frame = vec![0_u8; 60];
    frame[..15].copy_from_slice(&[2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 8, 0, 0x45]);
    frame[23] = 17;
    for tap in taps {
        let wire = Wire::on(&tap.name)?;
        for flow in 0..16 * QUEUES as u16 {
            frame[34..36].copy_from_slice(&flow.to_be_bytes());
            wire.send(&frame)?;
        }
    }
    Ok(())
}

/// The directory of a thread of this process.
fn thread_named(name: &str) -> Result<PathBuf> {
    for task in fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        if fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name) {
            return Ok(path);
        }
    }
    anyhow::bail!("no thread {name}")
}
