//! Which tests of a layer run beside each other: labs mostly wait, guests are emulated and fill a core each.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Result, bail};

use super::layer::Layer;
use crate::process::{Cmd, Outcome};

/// Tests of the netns layer that take long, by the beginnings of their names: they begin first, so that no core is
/// without work while the last of them ends.
const LONG: [&str; 5] = [
    "guard::the_default_route",
    "guard::a_daemon_waits",
    "guard::the_time_to_confirm",
    "filters::a_port_that_drops",
    "answer::",
];

/// Tests of the vm layer that are one emulated guest, which is a host of its own: nothing they measure is of this
/// machine. The longest first.
const GUESTS: [&str; 3] = ["vlan::", "clock::", "kernels::"];

/// Tests that run beside each other.
#[derive(Debug, PartialEq, Eq)]
pub struct Turn {
    tests: VecDeque<String>,
    /// How many at a time.
    at_once: usize,
}

/// The turns of a layer's tests.
pub fn of(layer: Layer, tests: Vec<String>) -> Vec<Turn> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let place = |first: &[&str], test: &str| first.iter().position(|name| test.starts_with(name));
    let order = |mut tests: Vec<String>, first: &[&str]| {
        tests.sort_by_key(|test| place(first, test).unwrap_or(first.len()));
        tests.into()
    };
    if layer == Layer::Netns {
        // One more than there are cores: they wait half of the time.
        return vec![Turn { tests: order(tests, &LONG), at_once: cores + 1 }];
    }
    let (guests, others): (Vec<_>, Vec<_>) =
        tests.into_iter().partition(|test| place(&GUESTS, test).is_some());
    // A lab of guests fills two cores, and what it measures suffers from company.
    vec![Turn { tests: order(guests, &GUESTS), at_once: cores }, Turn { tests: others.into(), at_once: 1 }]
}

/// The names of a program's tests that contain one of these, or of all.
///
/// # Errors
/// When it cannot be asked.
pub fn list(cmd: &Cmd, filter: &[String]) -> Result<Vec<String>> {
    let listed = cmd.clone().args(["--list", "--format", "terse"]).args(filter).keep(false)?;
    if !listed.status.success() {
        bail!("the tests cannot be listed ({})", listed.status);
    }
    Ok(listed.stdout.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

impl Turn {
    /// Runs them, each in a process of its own; what a test said is shown when it failed.
    ///
    /// # Errors
    /// When one does not start, or a signal arrived; those that run then end first.
    pub fn run(self, cmd: &Cmd, mut ended: impl FnMut(&str, &Outcome) + Send) -> Result<()> {
        let tests = Mutex::new(self.tests);
        let next = || tests.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let report = Mutex::new(|name: &str, outcome: &Outcome, seconds: f64| {
            let well = outcome.status.success();
            println!("test {name} ... {} ({seconds:.1} s)", if well { "ok" } else { "FAILED" });
            if !well {
                println!("{}", outcome.stdout);
            }
            ended(name, outcome);
        });
        let worker = || {
            while let Some(name) = next() {
                let start = Instant::now();
                let one = cmd.clone().args(["--exact", &name, "--test-threads=1"]);
                let outcome = one.keep(false)?;
                let seconds = start.elapsed().as_secs_f64();
                report.lock().unwrap_or_else(PoisonError::into_inner)(&name, &outcome, seconds);
            }
            Ok(())
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..self.at_once).map(|_| scope.spawn(worker)).collect();
            // All are waited for; the first error is told.
            let results: Vec<Result<()>> = workers
                .into_iter()
                .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect();
            results.into_iter().collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn long_ones_begin_and_guests_are_by_themselves() {
        let turns = of(Layer::Netns, names(&["a::b", "answer::x", "guard::the_default_route_needs", "z::z"]));
        assert_eq!(turns.len(), 1);
        assert_eq!(turns[0].tests, names(&["guard::the_default_route_needs", "answer::x", "a::b", "z::z"]));
        let turns = of(Layer::Vm, names(&["clock::x", "lab::a", "vlan::y"]));
        assert_eq!(
            (&turns[0].tests, &turns[1].tests),
            (&names(&["vlan::y", "clock::x"]).into(), &names(&["lab::a"]).into())
        );
        assert_eq!(turns[1].at_once, 1);
    }

    #[test]
    fn every_test_ends_once_and_a_failure_is_no_error() {
        let turn = Turn { tests: names(&["1", "2", "3", "4"]).into(), at_once: 2 };
        // `sh -c SCRIPT --exact NAME ...`: the name is $1.
        let cmd = Cmd::new("sh").args(["-c", "echo $1; test $1 != 3"]);
        let mut seen = Vec::new();
        turn.run(&cmd, |name, outcome| {
            assert_eq!(outcome.stdout.trim(), name);
            seen.push((name.to_owned(), outcome.status.success()));
        })
        .unwrap();
        seen.sort();
        let expected = [("1", true), ("2", true), ("3", false), ("4", true)];
        assert_eq!(seen, expected.map(|(name, well)| (name.to_owned(), well)));
    }
}
