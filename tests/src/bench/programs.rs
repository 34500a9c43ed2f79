//! Timing a program by test runs in which no packet differs from the one before, unless it is to.
//!
//! A wrapper (`lbx-ebpf/src/bench`) puts the packet back to what it was, or makes it one of another flow, and
//! tail-calls the program under test. What the same loop costs over an empty program is taken off.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use aya::maps::{DevMap, Map};
use aya::programs::{ProgramFd, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use lbx_common::limits::WAYS;
use lbx_common::measure::{WORDS, Wrap, flags};
use lbx_user::datapath::RawMap;

use super::clock;
use crate::bpf::run;

/// Which packet goes to the program under test.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flows {
    /// The same again.
    Same,
    /// One of so many (a power of two), at random.
    Random(u32),
    /// Of so many (a power of two), each in turn.
    Sequential(u32),
}

/// Where the wrapper runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    /// XDP.
    Xdp,
    /// tc, with frames that come in by this interface.
    Tc(u32),
}

/// The measuring programs, loaded.
pub struct Programs {
    pub(super) ebpf: Ebpf,
}

/// Packets of one measurement.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    /// The frame they are made of.
    pub frame: &'a [u8],
    /// Which flows they belong to.
    pub flows: Flows,
    /// Whether the program changes more than the MACs.
    pub whole: bool,
    /// How many there are.
    pub times: u32,
}

/// The cost of a packet.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Cost {
    /// Nanoseconds of CPU time, without the loop.
    pub net: f64,
    /// The verdict of the last packet.
    pub verdict: u32,
}

impl Programs {
    /// Loads them; the references' tables are for `flows` flows.
    ///
    /// # Errors
    /// When the object was not built (`LBX_BENCH_OBJECT`), or does not load.
    pub fn load(flows: u32) -> Result<Self> {
        Self::load_tables(flows, flows)
    }

    /// The same with the references' own table of so many slots, and the kernel's of so many flows.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_tables(slots: u32, lru: u32) -> Result<Self> {
        let path = std::env::var_os("LBX_BENCH_OBJECT").map(PathBuf::from);
        let path = path.context("LBX_BENCH_OBJECT names no object: cargo xtask bench builds it")?;
        let object = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let buckets = (slots / WAYS).next_power_of_two();
        let mut ebpf = EbpfLoader::new()
            .override_global("BUCKETS", &buckets, true)
            .map_max_entries("bench_table", buckets)
            .map_max_entries("bench_lru", lru)
            .map_max_entries("bench_lru4", lru)
            .load(&object)
            .with_context(|| format!("loading {}", path.display()))?;
        for (name, program) in ebpf.programs_mut() {
            match program {
                aya::programs::Program::Xdp(program) => program.load(),
                aya::programs::Program::SchedClassifier(program) => program.load(),
                _ => continue,
            }
            .with_context(|| format!("loading {name}"))?;
        }
        Ok(Self { ebpf })
    }

    /// Where the references redirect to.
    ///
    /// # Errors
    /// When the interface is not in this network namespace.
    pub fn redirect_to(&mut self, ifindex: u32) -> Result<()> {
        let map = self.ebpf.map_mut("bench_tx").context("bench_tx")?;
        DevMap::try_from(map)?.set(0, ifindex, None, 0).context("bench_tx")
    }

    /// One of the programs at XDP.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn xdp(&self, name: &str) -> Result<&ProgramFd> {
        let program: &Xdp = self.ebpf.program(name).with_context(|| name.to_owned())?.try_into()?;
        Ok(program.fd()?)
    }

    fn classifier(&self, name: &str) -> Result<&ProgramFd> {
        let program: &SchedClassifier =
            self.ebpf.program(name).with_context(|| name.to_owned())?.try_into()?;
        Ok(program.fd()?)
    }

    pub(super) fn map(&self, name: &str) -> Result<BorrowedFd<'_>> {
        match self.ebpf.map(name) {
            Some(Map::Array(map) | Map::ProgramArray(map)) => Ok(map.fd().as_fd()),
            _ => bail!("the measuring programs have no map {name}"),
        }
    }

    /// Writes an element of an array.
    fn write(&self, map: &str, element: u32, value: &[u8]) -> Result<()> {
        let written = RawMap::of_borrowed(self.map(map)?)?.set(&element.to_ne_bytes(), value);
        written.with_context(|| map.to_owned())
    }

    /// Says which packets the wrapper makes of `frame`. `whole`: the program changes more than the MACs.
    pub(super) fn wrap(&self, frame: &[u8], flows: Flows, whole: bool) -> Result<()> {
        let mut bytes = [0; 16 + 4 * WORDS];
        let len = frame.len().min(14 + 4 * WORDS);
        bytes[..14].copy_from_slice(&frame[..14]);
        bytes[16..len + 2].copy_from_slice(&frame[14..len]);
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let ethernet = std::array::from_fn(|n| word(4 * n));
        let words = std::array::from_fn(|n| word(16 + 4 * n));
        let v6 = frame.get(12..14) == Some(&[0x86, 0xdd]);
        let (kind, mask) = match flows {
            Flows::Same => (0, 0),
            Flows::Random(n) => (flags::RANDOM, n - 1),
            Flows::Sequential(n) => (flags::SEQUENTIAL, n - 1),
        };
        let flags = kind | if v6 { flags::V6 } else { 0 } | if whole { flags::WHOLE } else { 0 };
        let len = frame.len() as u32;
        let wrap = Wrap { flags, mask, state: 0x9e37_79b9, len, ethernet, words, reserved_tail: 0 };
        self.write("bench_wrap", 0, bytemuck::bytes_of(&wrap))
    }

    /// Nanoseconds per packet of the loop over a program, and the last verdict.
    fn gross(&self, at: At, program: BorrowedFd<'_>, frame: &[u8], times: u32) -> Result<(f64, u32)> {
        let (wrapper, jump, ifindex) = match at {
            At::Xdp => (self.xdp("bench_xdp")?, "bench_jump", None),
            At::Tc(ifindex) => (self.classifier("bench_tc")?, "bench_jump_tc", Some(ifindex)),
        };
        self.jump(jump, program)?;
        let mut verdict = 0;
        let ns = clock::per_round(times.into(), || {
            verdict = run::repeat(wrapper.as_fd(), frame, ifindex, times)?;
            Ok(())
        })?;
        Ok((ns, verdict))
    }

    /// Nanoseconds per packet of the loop over a program, wrapper and all.
    ///
    /// # Errors
    /// When a run fails.
    pub fn loop_over(&self, at: At, program: BorrowedFd<'_>, load: &Load<'_>) -> Result<f64> {
        self.wrap(load.frame, load.flows, load.whole)?;
        Ok(self.gross(at, program, load.frame, load.times)?.0)
    }

    /// Puts a program into one of the program arrays.
    pub(super) fn jump(&self, array: &str, program: BorrowedFd<'_>) -> Result<()> {
        let fd = program.as_raw_fd().to_ne_bytes();
        self.write(array, 0, &fd)
    }

    /// Puts a program behind the wrappers at XDP.
    ///
    /// # Errors
    /// When it is none of XDP.
    pub fn jump_to(&self, program: BorrowedFd<'_>) -> Result<()> {
        self.jump("bench_jump", program)
    }

    /// Writes a flow of a race, or the state of a generator.
    ///
    /// # Errors
    /// When the element is beyond the map.
    pub fn race(&self, element: u32, value: u64) -> Result<()> {
        self.write("bench_racers", element, &value.to_ne_bytes())
    }

    /// The cost of `times` packets, on the core the thread stays on.
    ///
    /// # Errors
    /// When a run fails.
    pub fn cost(&self, at: At, program: BorrowedFd<'_>, load: &Load<'_>) -> Result<Cost> {
        let empty = match at {
            At::Xdp => self.xdp("pass_xdp")?,
            At::Tc(_) => self.classifier("pass_tc")?,
        };
        self.cost_over(at, empty, program, load)
    }

    /// The same, with the loop over another program than the empty one taken off.
    ///
    /// # Errors
    /// When a run fails.
    pub fn cost_over(
        &self,
        at: At,
        empty: &ProgramFd,
        program: BorrowedFd<'_>,
        load: &Load<'_>,
    ) -> Result<Cost> {
        self.wrap(load.frame, load.flows, load.whole)?;
        let (base, _) = self.gross(at, empty.as_fd(), load.frame, load.times)?;
        // The same flows in the same order.
        self.wrap(load.frame, load.flows, load.whole)?;
        let (gross, verdict) = self.gross(at, program, load.frame, load.times)?;
        Ok(Cost { net: gross - base, verdict })
    }
}
