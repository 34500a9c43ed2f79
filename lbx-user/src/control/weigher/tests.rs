//! Readings on a board in, weights out.

use super::*;
use crate::control::desired::StateWant;
use crate::control::testing;
use crate::measure::catalogue::find;
use lbx_common::target::State;

const CONFIG: &str = r#"
[[switch]]
name = "br0"
[[service]]
name = "web"
switch = "br0"
vip = "192.0.2.10"
protocol = "tcp"
port = 80
weights = "adaptive"
[[service.target]]
nic = "a"
weight = 100
[[service.target]]
nic = "b"
weight = 100
"#;

struct World {
    config: Config,
    want: ServiceWant,
    board: Board,
    book: WishBook,
    weigher: Weigher,
    vms: BTreeMap<String, String>,
    now: Instant,
}

impl World {
    fn new() -> Self {
        Self::of(CONFIG)
    }

    fn of(config: &str) -> Self {
        Self {
            config: Config::parse("f", config).unwrap(),
            want: testing::service("web", 80, &["a", "b"]),
            board: Board::default(),
            book: WishBook::default(),
            weigher: Weigher::default(),
            vms: ["a", "b"].iter().map(|name| (format!("web/{name}"), (*name).to_owned())).collect(),
            now: Instant::now(),
        }
    }

    fn put(&mut self, metric: &str, name: &str, value: f64) {
        let reading =
            crate::measure::board::Reading { value, at: self.now, source: "test", cost: Duration::ZERO };
        self.board.put(find(metric).unwrap(), name, reading);
    }

    /// One look; whether weights are to be written, `None` if it was not due.
    fn look(&mut self, after_ms: u64) -> Option<News> {
        self.now += Duration::from_millis(after_ms);
        let (board, vms, book) = (&self.board, &self.vms, &self.book);
        let seen = Seen { board, now: self.now, cpus: Some(4.0), vms, book };
        self.weigher.step(&self.config.services[0], &self.want, &self.config.weights, &seen)
    }

    /// The same readings again and again, for some seconds.
    fn run(&mut self, seconds: u64, readings: &[(&str, &str, f64)]) -> usize {
        let mut writes = 0;
        for tick in 0..seconds * 20 {
            if tick % 20 == 0 {
                for (metric, name, value) in readings {
                    self.put(metric, name, *value);
                }
            }
            writes += usize::from(self.look(50).is_some_and(|news| news.changed));
        }
        writes
    }

    fn factor(&self, name: &str) -> f64 {
        self.weigher.factor(&self.config.services[0], name, &self.config.weights)
    }
}

#[test]
fn factors_follow_the_readings_of_vms() {
    let mut world = World::new();
    assert!(world.run(60, &[("vm_cpu", "a", 0.8), ("vm_cpu", "b", 0.2)]) > 3);
    assert!((world.factor("web/b") / world.factor("web/a") - 4.0).abs() < 0.3);
    let told = world.weigher.explained("web", "web/a").unwrap();
    assert!((told.inputs.availability.unwrap().value - 0.2).abs() < 1e-9);
    assert_eq!(world.weigher.availability("web/a").unwrap().arithmetic, "min(0.2, 1)");
    assert_eq!(world.run(10, &[("vm_cpu", "a", 0.8), ("vm_cpu", "b", 0.2)]), 0, "then they rest");
}

#[test]
fn a_service_has_its_own_formula() {
    let own = CONFIG
        .replace("weights = \"adaptive\"", "weights = \"adaptive\"\navailability = \"1 - open_flows / 100\"");
    let mut world = World::of(&own);
    world.run(60, &[("open_flows", "web/a", 80.0), ("open_flows", "web/b", 40.0), ("vm_cpu", "b", 0.99)]);
    assert!((world.factor("web/b") / world.factor("web/a") - 3.0).abs() < 0.3);
}

#[test]
fn a_queue_is_answered_at_the_next_look() {
    let mut world = World::new();
    let calm = [("queue_fill", "web/a", 0.0), ("queue_fill", "web/b", 0.0)];
    world.run(5, &calm);
    assert_eq!(world.look(10), None, "nothing moved, nothing to do");
    world.put("queue_fill", "web/a", 0.4);
    let news = world.look(10).unwrap();
    assert!(news.changed && world.factor("web/a") < 0.75, "{}", world.factor("web/a"));
}

#[test]
fn silence_is_told_and_ends_at_the_configured_weight() {
    let mut world = World::new();
    world.run(30, &[("vm_cpu", "a", 0.8), ("vm_cpu", "b", 0.2)]);
    let mut warnings = Vec::new();
    for _ in 0..20 * 90 {
        warnings.extend(world.look(50).into_iter().flat_map(|news| news.warnings));
    }
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("web/a") && warnings[0].contains("stale"), "{warnings:?}");
    assert_eq!(world.weigher.notes().len(), 2);
    for name in ["web/a", "web/b"] {
        assert!((world.factor(name) - 1.0).abs() < 0.02, "{}", world.factor(name));
    }
}

#[test]
fn an_override_is_left_alone_and_a_restart_goes_on() {
    let mut world = World::new();
    world.book.set_weight("web/a", Some(7));
    world.run(30, &[("vm_cpu", "a", 0.9), ("vm_cpu", "b", 0.2)]);
    assert!((world.factor("web/b") - 1.0).abs() < 0.02, "the only one that moves has nobody to move against");
    let mut again = World::new();
    again.weigher.adopt("web/a", 0.4);
    again.weigher.adopt("web/b", 1.6);
    again.weigher.retain(&again.config);
    assert!((again.factor("web/a") - 0.4).abs() < 1e-9);
    again.run(2, &[("vm_cpu", "a", 0.8), ("vm_cpu", "b", 0.2)]);
    assert!((again.factor("web/a") - 0.4).abs() < 0.1, "{}", again.factor("web/a"));
    again.config.services[0].weights = Weighing::Static;
    again.weigher.retain(&again.config);
    assert!((again.factor("web/a") - 1.0).abs() < 1e-9);
}

#[test]
fn who_was_drained_comes_back_slowly() {
    let mut world = World::new();
    let readings = [("vm_cpu", "a", 0.5), ("vm_cpu", "b", 0.5)];
    world.run(5, &readings);
    world.want.targets[0].state = StateWant::lasting(State::Draining);
    world.run(2, &readings);
    assert!((world.factor("web/a") - START).abs() < 0.01);
    world.want.targets[0].state = StateWant::lasting(State::Active);
    world.run(5, &readings);
    assert!((world.factor("web/a") - 0.55).abs() < 0.05, "{}", world.factor("web/a"));
    world.run(10, &readings);
    assert!((world.factor("web/a") - 1.0).abs() < 0.01);
    assert!((world.factor("web/new") - START).abs() < 1e-9, "so does one that joins");
}

#[test]
fn small_weights_are_held_finely() {
    let mut config = Config::parse("f", CONFIG).unwrap();
    let service = &mut config.services[0];
    for (weights, expected) in
        [([1, 1], 1000), ([100, 100], 10), ([0, 3], 1000), ([1000, 2], 1000), ([0, 0], 1)]
    {
        for (target, weight) in service.targets.iter_mut().zip(weights) {
            target.weight = weight;
        }
        assert_eq!(scale(service), expected, "{weights:?}");
    }
    (service.targets[0].weight, service.targets[1].weight) = (1_000_000, 1);
    assert!(u64::from(scale(service)) * 8_000_000 <= u64::from(u32::MAX) / 64);
    service.weights = Weighing::Static;
    assert_eq!(scale(service), 1);
    assert_eq!((weight(100, 10, 0.5), weight(0, 10, 1.0), weight(1, 1, 0.05)), (500, 0, 1));
}
