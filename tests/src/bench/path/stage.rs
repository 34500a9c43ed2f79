//! A kind of packet, set up to be measured.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};

use super::cases::{Case, Fill};
use crate::bench::programs::{At, Programs};
use crate::bpf::bench::{Bench, Hook};

/// The datapath with a case's configuration, the programs that measure, and what they measure.
pub struct Stage {
    /// The datapath.
    pub bench: Bench,
    /// What measures.
    pub programs: Programs,
    /// Where.
    pub at: At,
    program: OwnedFd,
    empty: bool,
}

impl Stage {
    /// Loads and configures everything, and opens the case's flow: the first packet opens it, the next confirm it.
    ///
    /// # Errors
    /// When a program does not load.
    pub fn of(case: &Case) -> Result<Self> {
        let mut bench = Bench::new(case.world.clone());
        let ifindex = bench.ifindex(0);
        let mut programs = Programs::load(1 << 16)?;
        programs.redirect_to(ifindex)?;
        let (hook, at) = if case.tc { (Hook::Tc(0), At::Tc(ifindex)) } else { (Hook::Xdp(0), At::Xdp) };
        let program = bench.runner(hook).program().try_clone_to_owned().context("the program")?;
        for frame in &case.before {
            bench.run(hook, frame);
        }
        Ok(Self { bench, programs, at, program, empty: matches!(case.fill, Fill::Empty(_)) })
    }

    /// The program that is measured.
    pub fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    /// Before every piece of a measurement: empties the flow table where the case wants it empty.
    ///
    /// # Errors
    /// When the maps cannot be written.
    pub fn begin(&self) -> Result<()> {
        let targets = if self.empty { self.bench.world.targets().count() as u32 } else { 0 };
        let cleared = (0..targets).try_for_each(|target| self.bench.maps().clear_flows_of(target).map(drop));
        cleared.context("emptying the flow table")
    }
}
