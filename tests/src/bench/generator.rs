//! Frames made by the kernel at one end of a line and counted at the other.
//!
//! A test run with live frames makes them, the wrapper gives each its flow, and `live_send` redirects them into the
//! line. All of it, and everything on the way, happens on the core of the calling thread: what arrives in a second
//! is what one core can do, the making of the frames included.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aya::maps::{DevMap, PerCpuArray};
use aya::programs::{Xdp, XdpMode};

use super::clock;
use super::programs::{Load, Programs};
use crate::bpf::run;

/// Frames of one system call.
const CHUNK: u32 = 65_536;

/// What went through a line.
#[derive(Clone, Copy, Debug)]
pub struct Through {
    /// Frames sent.
    pub sent: u64,
    /// Frames that arrived.
    pub arrived: u64,
    /// In this time.
    pub took: Duration,
    /// Of which the sending thread had the core. The kernel's part of the way counts in it, as long as it is done
    /// between two batches and not by a thread of the kernel's.
    pub cpu: Duration,
}

impl Through {
    /// Millions of frames a second at the far end.
    pub fn mpps(&self) -> f64 {
        self.arrived as f64 / self.took.as_secs_f64() / 1e6
    }

    /// Millions of frames a second sent into it.
    pub fn sent_mpps(&self) -> f64 {
        self.sent as f64 / self.took.as_secs_f64() / 1e6
    }

    /// Nanoseconds of CPU time a frame that arrived.
    pub fn ns(&self) -> f64 {
        self.cpu.as_nanos() as f64 / self.arrived as f64
    }

    /// Share of the frames that did not arrive.
    pub fn lost(&self) -> f64 {
        1.0 - self.arrived as f64 / self.sent.max(1) as f64
    }
}

impl Programs {
    /// Attaches one of the programs to an interface of this network namespace, in the driver. It stays until the
    /// programs are dropped.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn attach(&mut self, program: &str, ifindex: u32) -> Result<()> {
        let found = self.ebpf.program_mut(program).with_context(|| program.to_owned())?;
        let xdp: &mut Xdp = found.try_into()?;
        xdp.attach_to_if_index(ifindex, XdpMode::Driver)
            .with_context(|| format!("{program} at {ifindex}"))?;
        Ok(())
    }

    /// Sends frames into the line that begins at an interface of this network namespace, for this long. `whole`:
    /// the receivers look at checksums.
    ///
    /// # Errors
    /// When a run fails.
    pub fn send(&mut self, by: u32, load: &Load<'_>, whole: bool, time: Duration) -> Result<Through> {
        DevMap::try_from(self.ebpf.map_mut("bench_send").context("bench_send")?)?.set(0, by, None, 0)?;
        self.wrap(load.frame, load.flows, load.whole)?;
        let sender = self.xdp(if whole { "live_send_whole" } else { "live_send" })?;
        self.jump_to(sender.as_fd())?;
        // Fills caches and pools of pages.
        run::live(self.xdp("bench_xdp")?.as_fd(), load.frame, CHUNK)?;
        let (before, cpu, start) = (self.arrived()?, clock::thread_time()?, Instant::now());
        let mut sent = 0;
        while start.elapsed() < time {
            run::live(self.xdp("bench_xdp")?.as_fd(), load.frame, CHUNK)?;
            sent += u64::from(CHUNK);
        }
        let (took, cpu) = (start.elapsed(), clock::thread_time()?.saturating_sub(cpu));
        Ok(Through { sent, arrived: self.arrived()? - before, took, cpu })
    }

    /// Frames that arrived at all ends so far.
    fn arrived(&self) -> Result<u64> {
        let counts =
            PerCpuArray::<_, u64>::try_from(self.ebpf.map("bench_arrived").context("bench_arrived")?)?;
        Ok(counts.get(&0, 0)?.iter().sum())
    }
}
