//! Another balancer's XDP program over the packets of a bench.

use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result};
use aya::programs::{ProgramFd, ProgramInfo};

use super::programs::{At, Load, Programs};
use crate::bpf::run::Verdict;

/// The program, as whoever measures has loaded, configured and pinned it.
pub struct Other {
    program: ProgramFd,
    name: String,
}

impl Other {
    /// Opens the pin.
    ///
    /// # Errors
    /// When no program is pinned there.
    pub fn open(pin: &Path) -> Result<Self> {
        let info = ProgramInfo::from_pin(pin).with_context(|| format!("no program at {}", pin.display()))?;
        let name = info.name_as_str().unwrap_or("another program").to_owned();
        Ok(Self { program: info.fd()?, name })
    }

    /// What its program is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the tables say of it.
    pub fn introduce(&self) -> String {
        format!(
            "`other` is `{}` over the same packets, whatever it makes of them; what it puts in front of a packet is taken \
             off again outside of its time, the time for making that room left out too.",
            self.name
        )
    }

    /// Nanoseconds per packet. `verdict`: of lbx; where it passes a packet, this program is not thought to grow it.
    ///
    /// # Errors
    /// When a run fails.
    pub fn cost(&self, programs: &Programs, verdict: Verdict, load: &Load<'_>) -> Result<f64> {
        let empty = match (verdict, load.frame.get(12)) {
            (Verdict::Pass, _) => "pass_xdp",
            (_, Some(0x86)) => "grow6_xdp",
            _ => "grow_xdp",
        };
        let load = Load { whole: false, ..*load };
        Ok(programs.cost_over(At::Xdp, programs.xdp(empty)?, self.program.as_fd(), &load)?.net)
    }
}
