//! Bounds, staleness, slow start, and what is remembered, one at a time.

#![expect(clippy::float_cmp, reason = "bounds are reached exactly, and what is held does not move at all")]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::limit::{CEILING, START};
use super::*;

const TICK: f64 = 0.01;

fn free(availability: f64) -> Inputs {
    let availability = Some(Reading { value: availability, age: 0.0 });
    Inputs { configured: 100.0, active: true, availability, ..Inputs::default() }
}

fn both(a: Inputs, b: Inputs) -> BTreeMap<String, Inputs> {
    [("a".to_owned(), a), ("b".to_owned(), b)].into()
}

/// A controller, its time, and how long it has been told the same.
struct Bench {
    controller: Controller,
    settings: Settings,
    now: f64,
}

impl Bench {
    fn new() -> Self {
        Self { controller: Controller::default(), settings: Settings::default(), now: 100.0 }
    }

    /// Runs for some seconds; readings keep their age.
    fn run(&mut self, seconds: f64, inputs: &BTreeMap<String, Inputs>) -> Outcome {
        let mut last = Outcome::default();
        for _ in 0..(seconds / TICK).round() as usize {
            self.now += TICK;
            last = self.controller.step(self.now, &self.settings, inputs);
        }
        last
    }
}

#[test]
fn shares_follow_availability() {
    let mut bench = Bench::new();
    let outcome = bench.run(60.0, &both(free(0.2), free(0.8)));
    let (a, b) = (outcome.targets["a"], outcome.targets["b"]);
    assert!((b.factor / a.factor - 4.0).abs() < 0.05, "{a:?} {b:?}");
    assert!((a.factor + b.factor - 2.0).abs() < 0.05, "the sum stays");
    assert_eq!((a.held, b.held), (Held::No, Held::No));
}

#[test]
fn equal_readings_change_nothing() {
    let mut bench = Bench::new();
    for availability in [0.9, 0.1, 0.0] {
        let outcome = bench.run(20.0, &both(free(availability), free(availability)));
        assert!(outcome.targets.values().all(|told| (told.factor - 1.0).abs() < 1e-6), "{outcome:?}");
    }
}

#[test]
fn measuring_never_takes_everything() {
    let mut bench = Bench::new();
    let outcome = bench.run(300.0, &both(free(0.0), free(1.0)));
    assert_eq!(outcome.targets["a"].factor, bench.settings.floor);
    assert_eq!(outcome.targets["a"].held, Held::Floor);
}

#[test]
fn stale_readings_hold_then_decay_and_say_so() {
    let mut bench = Bench::new();
    let before = bench.run(60.0, &both(free(0.2), free(0.8))).targets["a"].factor;
    let stale = Inputs { availability: Some(Reading { value: 0.9, age: 6.0 }), ..free(0.0) };
    let outcome = bench.run(4.0, &both(stale, free(0.8)));
    assert_eq!((outcome.targets["a"].factor, outcome.targets["a"].held), (before, Held::Stale));
    let outcome = bench.run(4.0, &both(stale, free(0.8)));
    assert_eq!(outcome.targets["a"].held, Held::Decaying);
    assert!(outcome.targets["a"].factor > before);
    let outcome = bench.run(100.0, &both(stale, free(0.8)));
    assert!(outcome.targets.values().all(|told| (told.factor - 1.0).abs() < 0.01), "{outcome:?}");
}

#[test]
fn what_was_never_measured_keeps_its_weight_and_takes_no_part() {
    let mut bench = Bench::new();
    let mut inputs = both(free(0.2), free(0.8));
    inputs.insert("c".to_owned(), Inputs { configured: 100.0, active: true, ..Inputs::default() });
    let outcome = bench.run(60.0, &inputs);
    assert_eq!((outcome.targets["c"].factor, outcome.targets["c"].held), (1.0, Held::Unmeasured));
    let measured = outcome.targets["a"].factor + outcome.targets["b"].factor;
    assert!((measured - 2.0).abs() < 0.05, "{measured}");
}

#[test]
fn who_comes_back_starts_small() {
    let mut bench = Bench::new();
    let inputs = both(free(0.5), free(0.5));
    assert!(bench.run(1.0, &inputs).targets.values().all(|told| told.ramp == 1.0), "a first start is none");
    let gone = both(Inputs { active: false, ..free(0.5) }, free(0.5));
    let outcome = bench.run(1.0, &gone);
    assert!((outcome.targets["a"].factor - START).abs() < 1e-9, "it is small before it is back");
    let outcome = bench.run(5.0, &inputs);
    assert!((outcome.targets["a"].factor - 0.55).abs() < 0.01, "{:?}", outcome.targets["a"]);
    assert_eq!(bench.run(6.0, &inputs).targets["a"].factor, 1.0);
    // And so does one that is new to the service.
    let mut more = inputs.clone();
    more.insert("c".to_owned(), free(0.5));
    let outcome = bench.run(1.0, &more);
    assert!(outcome.targets["c"].ramp < 0.25 && outcome.targets["a"].ramp == 1.0);
}

#[test]
fn a_new_controller_goes_on_where_the_maps_are() {
    let mut bench = Bench::new();
    let before = |factor, availability| Inputs { before: Some(factor), ..free(availability) };
    let outcome = bench.run(TICK, &both(before(0.4, 0.2), before(1.6, 0.8)));
    assert!(!outcome.changed, "nothing is written");
    let outcome = bench.run(0.5, &both(before(0.4, 0.2), before(1.6, 0.8)));
    assert!((outcome.targets["a"].factor - 0.4).abs() < 0.2, "{:?}", outcome.targets["a"]);
}

#[test]
fn pinned_targets_are_left_out() {
    let mut bench = Bench::new();
    let mut inputs = both(free(0.5), free(0.5));
    inputs.insert("c".to_owned(), Inputs { pinned: true, ..free(0.01) });
    let outcome = bench.run(30.0, &inputs);
    assert!(outcome.targets.values().all(|told| (told.factor - 1.0).abs() < 1e-6), "{outcome:?}");
    assert_eq!(outcome.targets["c"].held, Held::Pinned);
}

#[test]
fn small_moves_are_not_written_and_large_ones_once() {
    let mut bench = Bench::new();
    bench.run(30.0, &both(free(0.5), free(0.5)));
    let mut writes = 0;
    for _ in 0..3000 {
        bench.now += TICK;
        let inputs = both(free(0.5), free(0.505));
        writes += usize::from(bench.controller.step(bench.now, &bench.settings, &inputs).changed);
    }
    assert_eq!(writes, 0);
    for _ in 0..3000 {
        bench.now += TICK;
        let inputs = both(free(0.5), free(0.6));
        let outcome = bench.controller.step(bench.now, &bench.settings, &inputs);
        writes += usize::from(outcome.changed);
        let told = outcome.targets["b"];
        assert!((told.factor - told.written).abs() <= 0.0201 * told.written);
    }
    assert!((2..=10).contains(&writes), "{writes}");
}

#[test]
fn an_oscillation_is_noticed_damped_and_forgotten() {
    let mut bench = Bench::new();
    let mut damped = 0;
    for second in 0..60 {
        // A reading that follows the weight the wrong way round, as no plant should.
        let (a, b) = if second / 3 % 2 == 0 { (0.2, 0.9) } else { (0.9, 0.2) };
        for _ in 0..100 {
            bench.now += TICK;
            damped += usize::from(
                bench.controller.step(bench.now, &bench.settings, &both(free(a), free(b))).damped,
            );
        }
    }
    assert!(damped >= 2 && bench.controller.damping() >= 4.0, "{damped} {}", bench.controller.damping());
    bench.run(400.0, &both(free(0.5), free(0.5)));
    assert_eq!(bench.controller.damping(), 1.0);
}

fn reading() -> impl Strategy<Value = Option<Reading>> {
    let value = prop_oneof![6 => 0.0..1.0f64, 3 => 0.0..5000.0f64, 1 => any::<f64>()];
    proptest::option::of((value, 0.0..12.0f64).prop_map(|(value, age)| Reading { value, age }))
}

prop_compose! {
    fn inputs()(
        configured in prop_oneof![Just(0.0), 1.0..1000.0f64],
        active in proptest::bool::weighted(0.8),
        pinned in proptest::bool::weighted(0.1),
        availability in reading(),
        response in reading(),
        fill in reading(),
    ) -> Inputs {
        Inputs { configured, active, pinned, before: None, availability, response, fill }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever is read, and however time passes: bounds hold, and speed.
    #[test]
    fn nothing_leaves_its_bounds(
        steps in proptest::collection::vec((0.0..3.0f64, proptest::collection::vec(inputs(), 1..5)), 1..60),
    ) {
        let (mut controller, settings) = (Controller::default(), Settings::default());
        let (mut now, mut before) = (0.0, BTreeMap::<String, f64>::new());
        for (dt, inputs) in steps {
            now += dt;
            let inputs: BTreeMap<String, Inputs> =
                inputs.into_iter().enumerate().map(|(n, input)| (format!("{n}"), input)).collect();
            let outcome = controller.step(now, &settings, &inputs);
            prop_assert_eq!(outcome.targets.len(), inputs.len());
            for (name, told) in &outcome.targets {
                prop_assert!(told.limited >= settings.floor && told.limited <= CEILING, "{:?}", told);
                prop_assert!(told.factor >= settings.floor * START * 0.999 && told.factor <= CEILING, "{:?}", told);
                if let Some(before) = before.get(name) {
                    let most = 1.0 + settings.step + 1e-9;
                    prop_assert!(told.limited <= before * most && told.limited >= before / most, "{:?}", told);
                }
            }
            before = outcome.targets.iter().map(|(name, told)| (name.clone(), told.limited)).collect();
        }
    }
}

#[test]
fn a_queue_takes_weight_at_once_and_soon_gives_it_back() {
    let mut bench = Bench::new();
    let with = |fill| Inputs { fill: Some(Reading { value: fill, age: 0.0 }), ..free(0.5) };
    bench.run(5.0, &both(with(0.0), with(0.0)));
    assert!(bench.run(TICK, &both(with(0.4), with(0.0))).targets["a"].factor < 0.7);
    // A guest that stands still for a while.
    assert!(bench.run(10.0, &both(with(0.4), with(0.0))).targets["a"].factor < 0.3);
    let after = bench.run(12.0, &both(with(0.0), with(0.0))).targets["a"];
    assert!(after.factor > 0.9, "{after:?}");
    // One that queues again and again keeps less between.
    for _ in 0..10 {
        bench.run(1.0, &both(with(0.4), with(0.0)));
        bench.run(2.0, &both(with(0.0), with(0.0)));
    }
    assert!(bench.run(TICK, &both(with(0.0), with(0.0))).targets["a"].learnt < 0.6);
}

/// Bursts that come to one of many after the other, each to one that has rested for long: others move only by the mean.
#[test]
fn queues_of_others_are_no_oscillation_and_a_way_back_delays_no_queue() {
    const TARGETS: usize = 60;
    let (mut bench, mut late) = (Bench::new(), 0);
    let all = |deep: Option<usize>| -> BTreeMap<String, Inputs> {
        let fill = |n| Some(Reading { value: if deep == Some(n) { 0.15 } else { 0.0 }, age: 0.0 });
        (0..TARGETS).map(|n| (format!("{n:02}"), Inputs { fill: fill(n), ..free(0.5) })).collect()
    };
    for _ in 0..8 {
        bench.run(15.0, &all(None));
        for n in 0..TARGETS {
            let name = format!("{n:02}");
            let before = bench.run(0.1, &all(None)).targets[&name].written;
            let after = bench.run(TICK, &all(Some(n))).targets[&name].written;
            late += usize::from(after > 0.9 * before);
        }
    }
    assert_eq!((late, bench.controller.damping()), (0, 1.0));
}
