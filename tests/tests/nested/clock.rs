//! Somebody sets the wall's clock, hours on and hours back: nothing that lbx counts by time may take notice. Runs in a guest
//! (see `vm/clock.rs`), whose clock is its own.

use std::time::{Duration, Instant};

use lbx_common::target::State;
use lbx_tests::guest::echo;
use lbx_tests::lab::client::load::Load;
use lbx_tests::lab::client::udp;
use lbx_tests::lab::config::{File, Service, stand_ins};
use lbx_tests::lab::vm::Family;
use lbx_tests::lab::{LabSpec, VmKind, addr};
use lbx_tests::scenario::states::state as kernel;
use lbx_tests::scenario::{Scenario, eventually, vip};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};

const HOURS: i64 = 6 * 3600;
const PATIENCE: Duration = Duration::from_mins(2);

/// Sets the wall's clock so many seconds on.
fn step(seconds: i64) {
    let line = std::fs::read_to_string("/proc/cmdline").unwrap();
    assert!(line.contains("lbx.nested=1"), "not in a guest: this would set the machine's own clock");
    let now = clock_gettime(ClockId::CLOCK_REALTIME).unwrap();
    let then = TimeSpec::new(now.tv_sec() + seconds, now.tv_nsec());
    clock_settime(ClockId::CLOCK_REALTIME, then).unwrap();
}

fn row(scenario: &Scenario, target: &str) -> serde_json::Value {
    scenario.target(0, target).unwrap()
}

fn state(scenario: &Scenario, target: &str) -> String {
    row(scenario, target)["effective"].as_str().unwrap_or_default().to_owned()
}

fn until(scenario: &Scenario, what: &str, holds: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    let held = eventually(PATIENCE, || Ok(holds())).unwrap();
    let migrations = scenario.lbx().cli(&["migrations", "-v"]);
    assert!(held, "{what}: {migrations:?}\n{}", scenario.story());
    start.elapsed()
}

/// Everything that was measured, as long as it is not stale.
fn readings(scenario: &Scenario) -> usize {
    let load = scenario.lbx().json(&["load"]).unwrap();
    let host = load["host"].as_array().cloned().unwrap_or_default();
    let (limit, fresh) = (load["stale_after_ms"].as_u64().unwrap(), |metric: &&serde_json::Value| {
        metric["stale"] == false && metric["age_ms"].is_u64()
    });
    let ages = host.iter().filter(fresh).filter(|metric| metric["age_ms"].as_u64().unwrap() <= limit);
    ages.count()
}

#[test]
fn a_clock_that_is_set_changes_nothing() {
    let mut services = vec![
        Service::dsr("web", addr::vip(0), "tcp", 80, stand_ins(2)),
        Service::dsr("udp", addr::vip(0), "udp", echo::PORT, stand_ins(2)),
    ];
    services[0].health = true;
    let top = "[migration]\nslow_start = \"3s\"\nwatchdog = { announced = \"90s\", stopped = \"20s\" }\n";
    let file = File { top: top.into(), ..File::new(services) };
    let mut scenario = Scenario::start(LabSpec::one_host(2, VmKind::StandIn), &[file]).unwrap();
    let web = (vip(0, Family::V4), 80).into();
    scenario.wait_for(web).unwrap();
    until(&scenario, "both are well", || {
        ["web/vif0", "web/vif1"].iter().all(|target| state(&scenario, target) == "active")
    });
    until(&scenario, "measured", || readings(&scenario) > 0);
    let ask = || udp::socket((vip(0, Family::V4), echo::PORT).into(), None, Duration::from_secs(10));
    let flow = scenario.client().run(ask).unwrap().unwrap();
    let owner = udp::ask(&flow, b"who").unwrap();
    udp::ask(&flow, b"again").unwrap();

    for seconds in [HOURS, -HOURS] {
        step(seconds);
        // The known flow, new ones, health and what is measured.
        assert_eq!(udp::ask(&flow, b"still").unwrap(), owner, "{seconds}: {}", scenario.story());
        let report = Load { threads: 2, ..Load::new(web, 16) }.run(scenario.client()).unwrap();
        assert_eq!(report.failed, 0, "{seconds}: {:?}\n{}", report.errors, scenario.story());
        // A guest under load may find a check late; a clock of hours would keep it down for hours.
        until(&scenario, "both are well still", || {
            ["web/vif0", "web/vif1"].iter().all(|target| state(&scenario, target) == "active")
        });
        until(&scenario, "measured as before", || readings(&scenario) > 0);
        let health = scenario.lbx().json(&["health"]).unwrap();
        let since = health["checks"].as_array().unwrap().iter().filter_map(|check| check["since"].as_u64());
        assert!(since.max().is_some_and(|since| since < HOURS.unsigned_abs()), "{health}");

        // What has a deadline has it still: neither at once nor never.
        let tell = |phase: &str| scenario.lbx().cli(&["migration", phase, "vif0"]).unwrap();
        tell("announce");
        step(seconds);
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(state(&scenario, "web/vif0"), "draining", "{seconds}: {}", scenario.story());
        tell("stopped");
        step(-2 * seconds);
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(state(&scenario, "web/vif0"), "blackholed", "{seconds}: {}", scenario.story());
        let took = until(&scenario, "the watchdog", || state(&scenario, "web/vif0") == "active");
        assert!(took < Duration::from_mins(1), "{took:?}");
    }

    // Without the daemon the kernel's own deadline counts.
    scenario.lbx().cli(&["set", "state", "web/vif0", "blackholed"]).unwrap();
    scenario.lbx[0].kill().unwrap();
    step(-HOURS);
    let ended =
        until(&scenario, "the deadline", || kernel(scenario.lbx(), "web/vif0").unwrap() == State::Active);
    assert!(ended < Duration::from_secs(40), "{ended:?}");
    scenario.lbx[0].run().unwrap();
    step(HOURS);
    assert_eq!(udp::ask(&flow, b"still").unwrap(), owner, "{}", scenario.story());
    assert!(!scenario.lbx().log().contains("panicked"), "{}", scenario.story());
}
