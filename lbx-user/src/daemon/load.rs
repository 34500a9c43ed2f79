//! The load of host and VMs: what the samplers are told, and what the board says.

use std::time::Instant;

use anyhow::{Context, Result};

use super::core::Core;
use crate::api::model::{Load, Measured, VmLoad};
use crate::measure::board::Board;
use crate::measure::catalogue::{About, METRICS};
use crate::measure::load::{Plan, Samplers};
use crate::measure::vm;

impl Core {
    /// Starts the samplers of the load.
    ///
    /// # Errors
    /// No thread could be made.
    pub fn start_load(&mut self) -> Result<()> {
        let samplers = Samplers::start(self.config.measure.load, &self.board, Some(self.migrations.ears()));
        self.samplers = Some(samplers.context("cannot start to measure")?);
        self.tell_samplers();
        Ok(())
    }

    /// Tells the samplers of the load what there is to look at.
    pub(super) fn tell_samplers(&self) {
        let Some(samplers) = &self.samplers else { return };
        samplers.follow(Plan {
            every: self.config.measure.load,
            vms: self.host.vms.clone(),
            uplinks: self.host.uplinks(),
        });
    }

    /// The VM behind a target (full name), as the board knows it; none for a machine elsewhere.
    pub fn vm_of(&self, target: &str) -> Option<&str> {
        let found = self.host.found.iter().find(|one| !one.remote && one.full_name() == target)?;
        vm::behind(&self.host.vms, &found.port).map(|vm| vm.name.as_str())
    }

    /// The load of host and VMs as measured last.
    pub fn load(&self) -> Load {
        let (board, now) = (self.board.lock(), Instant::now());
        let stale = self.config.measure.stale();
        let measured = |about, name: &str| measured(&board, about, name, now, stale);
        let vms = self.host.vms.iter().map(|one| VmLoad {
            name: one.name.clone(),
            pid: one.pid,
            nics: one.taps.clone(),
            targets: self.targets_of(one),
            metrics: measured(About::Vm, &one.name),
        });
        Load { stale_after_ms: stale.as_millis() as u64, vms: vms.collect(), host: measured(About::Host, "") }
    }

    fn targets_of(&self, vm: &vm::Vm) -> Vec<String> {
        let behind = self.host.found.iter().filter(|one| !one.remote && vm.taps.contains(&one.port));
        behind.map(|one| one.full_name()).collect()
    }
}

/// Everything in the catalogue about one thing: what was read, how old it is, and why there is nothing newer.
fn measured(
    board: &Board,
    about: About,
    name: &str,
    now: Instant,
    stale: std::time::Duration,
) -> Vec<Measured> {
    let of_it = METRICS.iter().filter(|metric| metric.about == about);
    let each = of_it.filter_map(|metric| {
        let (reading, why) = (board.get(metric, name), board.why_missing(metric, name));
        if reading.is_none() && why.is_none() {
            return None;
        }
        let age = reading.map(|reading| reading.age(now));
        Some(Measured {
            name: metric.name.to_owned(),
            unit: metric.unit.name().to_owned(),
            value: reading.map(|reading| reading.value),
            age_ms: age.map(|age| age.as_millis() as u64),
            stale: age.is_some_and(|age| age > stale),
            source: reading.map(|reading| reading.source.to_owned()),
            cost_us: reading.map(|reading| reading.cost.as_micros() as u64),
            why: why.map(ToOwned::to_owned),
        })
    });
    each.collect()
}
