//! From the board to a VM's availability. Pure: a board and a time go in.

use std::time::{Duration, Instant};

use lbx_common::availability::{Figures, Host, Vm};

use super::formula::{self, Formula};
use crate::measure::board::{Board, Reading};
use crate::measure::catalogue::{About, find};

/// Where a target's readings are.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its full name.
    pub target: &'a str,
    /// Its VM, where one is known.
    pub vm: Option<&'a str>,
}

/// A reading that was looked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    /// The metric's name.
    pub name: &'static str,
    /// The last reading, if there ever was one.
    pub reading: Option<Reading>,
    /// It is too old, and counts as none.
    pub stale: bool,
}

impl Given {
    /// Its value, if it counts.
    pub fn value(&self) -> Option<f64> {
        self.reading.filter(|_| !self.stale).map(|reading| reading.value)
    }
}

/// Availability, and how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// 0 to 1; `None` says why in `why`.
    pub value: Option<f64>,
    /// When the oldest reading in it was true.
    pub at: Option<Instant>,
    /// Every reading that was looked for.
    pub given: Vec<Given>,
    /// The two figures.
    pub figures: Figures,
    /// The formula with values in the place of names.
    pub arithmetic: String,
    /// Why there is no value.
    pub why: Option<String>,
}

/// Looks readings up for formulas.
pub struct Readings<'a> {
    board: &'a Board,
    now: Instant,
    stale_after: Duration,
    cpus: Option<f64>,
    vcpus: Option<f64>,
}

/// Readings of a VM behind [`formula::VM`].
const OF_VM: [&str; 3] = ["vm_cpu", "vm_steal", "vm_memory"];
/// Readings of the host behind [`formula::HOST`].
const OF_HOST: [&str; 3] = ["host_cpu", "host_memory_pressure", "host_io_pressure"];

impl<'a> Readings<'a> {
    /// `cpus` are the host's; its VMs' vCPUs are added up here.
    pub fn new(board: &'a Board, now: Instant, stale_after: Duration, cpus: Option<f64>) -> Self {
        let mut readings = Self { board, now, stale_after, cpus, vcpus: None };
        let each = board.names(About::Vm).filter_map(|vm| {
            readings.given("vm_vcpus", Place { target: "", vm: Some(vm) }).and_then(|given| given.value())
        });
        readings.vcpus = each.reduce(|a, b| a + b);
        readings
    }

    /// The last reading of a metric; `None` if there is no such metric.
    pub fn given(&self, name: &str, place: Place<'_>) -> Option<Given> {
        let metric = find(name)?;
        let of = match metric.about {
            About::Host => Some(""),
            About::Vm => place.vm,
            About::Target => Some(place.target),
        };
        let reading = of.and_then(|of| self.board.get(metric, of));
        let stale = reading.is_some_and(|reading| reading.age(self.now) > self.stale_after);
        Some(Given { name: metric.name, reading, stale })
    }

    /// Availability of the target's VM, by a formula.
    pub fn availability(&self, place: Place<'_>, formula: &Formula) -> Answer {
        let mut given: Vec<Given> = Vec::new();
        let mut look = |name: &str| {
            let found = self.given(name, place)?;
            let value = found.value();
            if given.iter().all(|one| one.name != found.name) {
                given.push(found);
            }
            value
        };
        let uses = |name: &str| formula.names().iter().any(|one| one == name);
        let migrating = look("migrating").is_some_and(|share| share > 0.0);
        let (mut vm, mut host) = (Vm { migrating, ..Vm::default() }, Host::default());
        if uses(formula::VM) {
            let [cpu, steal, memory] = OF_VM.map(&mut look);
            vm = Vm { cpu, steal, memory, migrating };
        }
        if uses(formula::HOST) {
            let [cpu, memory_pressure, io_pressure] = OF_HOST.map(&mut look);
            host = Host { cpu, cpus: self.cpus, vcpus: self.vcpus, memory_pressure, io_pressure };
        }
        let figures = Figures::of(&vm, &host);
        for name in formula.names() {
            look(name);
        }
        let of = |name: &str| match name {
            formula::VM => figures.vm,
            // Nothing known of the host: nothing that it would take from the VM.
            formula::HOST => Some(figures.host.unwrap_or(1.0)),
            _ => given.iter().find(|one| one.name == name).and_then(Given::value),
        };
        let arithmetic = formula.arithmetic(of);
        let (value, why) = match formula.value(of) {
            _ if migrating => (Some(0.0), None),
            Ok(value) => (Some(value.clamp(0.0, 1.0)), None),
            Err(why) => (None, Some(why.to_string())),
        };
        let used =
            given.iter().filter(|one| one.value().is_some() && (!migrating || one.name == "migrating"));
        let relevant = used.filter(|one| one.name != "migrating" || migrating);
        let at = relevant.filter_map(|one| one.reading.map(|reading| reading.at)).min();
        // A formula of numbers alone is as true now as ever.
        let at = value.and(at.or(Some(self.now)));
        Answer { value, at, given, figures, arithmetic, why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'_> = Place { target: "web/a", vm: Some("a") };

    struct World {
        board: Board,
        now: Instant,
    }

    impl World {
        fn new() -> Self {
            // Ages are taken off: far enough from the clock's beginning.
            Self { board: Board::default(), now: Instant::now() + Duration::from_secs(1000) }
        }

        fn put(&mut self, metric: &str, name: &str, value: f64, age: f64) {
            let at = self.now.checked_sub(Duration::from_secs_f64(age)).unwrap();
            let reading = Reading { value, at, source: "test", cost: Duration::ZERO };
            self.board.put(find(metric).unwrap(), name, reading);
        }

        fn answer(&self, formula: &str) -> Answer {
            let readings = Readings::new(&self.board, self.now, Duration::from_secs(5), Some(4.0));
            readings.availability(PLACE, &Formula::parse(formula).unwrap())
        }
    }

    #[test]
    fn the_default_is_normalised_by_the_host() {
        let mut world = World::new();
        for vm in ["a", "b", "c"] {
            world.put("vm_cpu", vm, 0.5, 1.0);
            world.put("vm_vcpus", vm, 2.0, 1.0);
        }
        assert_eq!(world.answer(formula::DEFAULT).value, Some(0.5), "of the host nothing is known");
        world.put("host_cpu", "", 0.97, 2.0);
        let answer = world.answer(formula::DEFAULT);
        // 3 % of 4 CPUs for 6 vCPUs.
        assert!((answer.value.unwrap() - 0.02).abs() < 1e-9, "{answer:?}");
        assert_eq!(answer.arithmetic, "min(0.5, 0.02)");
        assert_eq!(answer.at, world.now.checked_sub(Duration::from_secs(2)), "as old as the oldest");
        assert!(answer.figures.missing.names().any(|name| name == "vm_steal"));
    }

    #[test]
    fn what_is_too_old_is_not_there() {
        let mut world = World::new();
        world.put("vm_cpu", "a", 0.5, 6.0);
        let answer = world.answer(formula::DEFAULT);
        assert_eq!((answer.value, answer.why.as_deref()), (None, Some("no reading of vm")));
        assert!(answer.given.iter().any(|given| given.name == "vm_cpu" && given.stale));
        world.put("vm_memory", "a", 0.9, 0.0);
        assert!((world.answer(formula::DEFAULT).value.unwrap() - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_formula_of_ones_own() {
        let mut world = World::new();
        world.put("open_flows", "web/a", 600.0, 0.5);
        let answer = world.answer("1 - open_flows / 1000");
        assert_eq!((answer.value, answer.arithmetic.as_str()), (Some(0.4), "1 - 600 / 1000"));
        world.put("open_flows", "web/a", 6000.0, 0.5);
        assert_eq!(world.answer("1 - open_flows / 1000").value, Some(0.0), "a share, whatever the formula");
        assert_eq!(world.answer("1 - response / 100").why.as_deref(), Some("no reading of response"));
        assert_eq!(world.answer("0.25").value, Some(0.25));
    }

    #[test]
    fn a_vm_that_migrates_is_not_available() {
        let mut world = World::new();
        world.put("vm_cpu", "a", 0.1, 0.0);
        world.put("migrating", "a", 1.0, 1.0);
        for formula in [formula::DEFAULT, "0.5", "response"] {
            assert_eq!(world.answer(formula).value, Some(0.0), "{formula}");
        }
        world.put("migrating", "a", 0.0, 0.0);
        assert_eq!(world.answer("0.5").value, Some(0.5));
    }
}
