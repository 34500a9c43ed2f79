//! `lbx flows` on a million flows that packets made.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Claim, Report, Settings, world};
use crate::bench::clock;
use crate::bench::programs::{At, Flows, Load, Programs};
use crate::bpf::bench::{Bench, Hook};
use crate::bpf::world::tcp_packet;
use crate::lab::lbx;
use crate::packets::tcp;

/// Flows that are listed.
const FLOWS: u32 = 1 << 20;

/// One listing.
struct Listed {
    first: Duration,
    whole: Duration,
    rows: u64,
    /// Bytes of memory of its own, at most: without the kernel's maps, which it maps.
    memory: u64,
}

/// Fills a table and lists it as text and as JSON; what is to be claimed.
pub fn measure(settings: &Settings, report: &mut Report) -> Result<Vec<Claim>> {
    let flows = settings.either(FLOWS, FLOWS / 8);
    let mut bench = Bench::new(world(flows));
    bench.maps().write_service_name(0, "web")?;
    for target in 0..3 {
        bench.maps().write_target_name(target, &format!("web/web-{target}"))?;
    }
    let programs = Programs::load(1 << 16)?;
    let program = bench.runner(Hook::Xdp(0)).program().try_clone_to_owned().context("the program")?;
    let frame = tcp_packet(true, 1024, tcp::ACK).build();
    for _ in 0..2 {
        let load = Load { frame: &frame, flows: Flows::Sequential(flows), whole: false, times: flows };
        programs.cost(At::Xdp, program.as_fd(), &load)?;
    }
    clock::unpin()?;
    let mut table = vec![
        [&format!("lbx flows, {flows} flows"), "first row", "all rows", "own memory"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let mut claims = Vec::new();
    for (name, json) in [("text", false), ("JSON", true)] {
        let listed = list(&bench, json)?;
        ensure!(
            listed.rows.abs_diff(flows.into()) < u64::from(flows) / 1000,
            "{} rows of {flows} flows",
            listed.rows
        );
        table.push(vec![
            name.to_owned(),
            format!("{:.0} ms", listed.first.as_secs_f64() * 1e3),
            format!("{:.2} s", listed.whole.as_secs_f64()),
            format!("{:.1} MiB", listed.memory as f64 / f64::from(1 << 20)),
        ]);
        let of = |what: &str| format!("flows: listing of {flows} as {name}, {what}");
        claims.push(Claim::at_most(&of("first row"), listed.first.as_secs_f64() * 1e3, "ms", 500.0));
        claims.push(Claim::at_most(&of("all rows"), listed.whole.as_secs_f64(), "s", 5.0));
        claims.push(Claim::at_most(
            &of("own memory"),
            listed.memory as f64 / f64::from(1 << 20),
            "MiB",
            64.0,
        ));
    }
    report.table(&table);
    clock::pin(settings.cpu)?;
    Ok(claims)
}

/// Runs `lbx flows` to its end and counts the lines of flows.
fn list(bench: &Bench, json: bool) -> Result<Listed> {
    let mut command = Command::new(lbx::binary()?);
    command.arg("--instance").arg(bench.instance().name().context("an instance with a name")?);
    command.args(json.then_some("--json")).args(["flows", "--limit", "100000000"]);
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("starting lbx")?;
    let status = format!("/proc/{}/status", child.id());
    let mut out = BufReader::with_capacity(1 << 16, child.stdout.take().context("its output")?);
    let ended = AtomicBool::new(false);
    let listed = std::thread::scope(|scope| -> Result<Listed> {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !ended.load(Ordering::Relaxed) {
                most = most.max(own_memory(&status));
                std::thread::sleep(Duration::from_millis(5));
            }
            most
        });
        let read = read(&mut out, start);
        let status = child.wait();
        ended.store(true, Ordering::Relaxed);
        let memory = watch.join().unwrap_or(u64::MAX);
        let ((first, rows), status) = (read?, status?);
        ensure!(status.success(), "lbx flows: {status}");
        Ok(Listed { first, whole: start.elapsed(), rows, memory })
    })?;
    Ok(listed)
}

/// When the first flow came, and how many did: a line each, behind a first line that is none.
fn read(out: &mut impl BufRead, start: Instant) -> Result<(Duration, u64)> {
    let mut line = String::new();
    out.read_line(&mut line)?;
    out.read_line(&mut line)?;
    let first = start.elapsed();
    let (mut rows, mut buffer) = (1, vec![0; 1 << 16]);
    loop {
        let n = out.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        rows += buffer[..n].split(|byte| *byte == b'\n').count() as u64 - 1;
    }
    Ok((first, rows))
}

/// `RssAnon` of a process: memory that is neither a file's nor the kernel's.
fn own_memory(status: &str) -> u64 {
    let text = std::fs::read_to_string(status).unwrap_or_default();
    let kib = text.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}
