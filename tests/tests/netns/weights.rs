//! Weights that follow what is measured, from the flow table to the slots of the service's table.

use std::time::{Duration, Instant};

use lbx_tests::guest::echo;
use lbx_tests::lab::client::long::Long;
use lbx_tests::lab::config::{File, Service, stand_ins};
use lbx_tests::lab::vm::Family;
use lbx_tests::lab::{LabSpec, VmKind, addr};
use lbx_tests::scenario::{Scenario, eventually, need_root, vip};

/// Far more than it takes, for machines that have other things to do.
const PATIENCE: Duration = Duration::from_mins(1);
/// Long connections, all on one of two targets.
const FLOWS: usize = 30;

/// A target's row of `lbx weights`: weight over configured weight, part of the table, what is wished.
fn row(scenario: &Scenario, target: &str) -> (f64, f64, Option<f64>) {
    let all = scenario.lbx().json(&["weights", "--service", "echo"]).unwrap();
    let rows = all["weights"].as_array().unwrap();
    let row = rows.iter().find(|row| row["target"] == target).unwrap();
    let of = |name: &str| row[name].as_f64().unwrap();
    (of("weight") / of("configured"), of("table_share"), row["wished"].as_f64())
}

fn wait(scenario: &Scenario, what: &str, holds: impl Fn(f64, f64) -> bool) {
    let begin = Instant::now();
    let both = || (row(scenario, "vif0").0, row(scenario, "vif1").0);
    let reached = eventually(PATIENCE, || {
        let (a, b) = both();
        Ok(holds(a, b))
    });
    let why = || scenario.lbx().cli(&["why", "weight", "echo/vif1"]).unwrap();
    assert!(reached.unwrap(), "{what}: {:?}\n{}\n{}", both(), why(), scenario.story());
    eprintln!("{what}: after {:?}", begin.elapsed());
}

#[test]
fn weights_follow_open_flows_and_flows_stay_where_they_are() {
    need_root();
    let mut echo = Service::dsr("echo", addr::vip(0), "tcp", echo::PORT, stand_ins(2));
    echo.keys = "weights = \"adaptive\"\navailability = \"1 - open_flows / 40\"".to_owned();
    let file = File {
        top: "[weights]\nslow = \"200ms\"\nstep = 200\nslow_start = \"500ms\"\n".to_owned(),
        ..File::new(vec![echo])
    };
    let mut scenario = Scenario::start(LabSpec::one_host(2, VmKind::StandIn), &[file]).unwrap();
    let at = (vip(0, Family::V4), echo::PORT).into();
    let first = Long::new(at, 1);
    let served =
        eventually(PATIENCE, || Ok(first.clone().start(scenario.client())?.stop()?.check(1).is_ok()));
    assert!(served.unwrap(), "{}", scenario.story());
    let (_, share, wished) = row(&scenario, "vif0");
    assert!((share - 0.5).abs() < 0.05 && wished.is_some(), "{share} {wished:?}");

    // All connections go to the other one; then the first is back, with nothing to do.
    scenario.lbx().cli(&["drain", "echo/vif0"]).unwrap();
    let long = Long::new(at, FLOWS).start(scenario.client()).unwrap();
    assert_eq!(long.so_far().open.get("vm2"), Some(&(FLOWS as u64)), "{:?}", long.so_far());
    scenario.lbx().cli(&["undrain", "echo/vif0"]).unwrap();
    // A quarter and the whole of availability: factors of 0.4 and 1.6.
    wait(&scenario, "weights follow", |a, b| a > 1.5 && b < 0.5);
    let ((a, share_a, _), (b, share_b, _)) = (row(&scenario, "vif0"), row(&scenario, "vif1"));
    assert!((share_a / share_b - a / b).abs() < 0.1 * a / b, "{share_a} {share_b} {a} {b}");

    let explained = || scenario.lbx().cli(&["why", "weight", "echo/vif1"]).unwrap();
    let says = ["open_flows 30", "from flow table", "1 - open_flows / 40 = 1 - 30 / 40 = 0.25"];
    let said = eventually(PATIENCE, || Ok(says.iter().all(|says| explained().contains(says))));
    assert!(said.unwrap(), "{}\n{:?}", explained(), long.so_far());
    let value = scenario.lbx().json(&["why", "weight", "echo/vif1"]).unwrap();
    assert_eq!(value["weighed"]["availability"], 0.25, "{value}");

    // A daemon that starts anew goes on from there; what the operator says is taken as it is.
    scenario.lbx[0].restart().unwrap();
    let now = row(&scenario, "vif1").0;
    assert!(now < 0.75, "after a restart {now}\n{}", scenario.story());
    scenario.lbx().cli(&["set", "weight", "echo/vif1", "70"]).unwrap();
    wait(&scenario, "an override", |a, b| (a - 1.0).abs() < 0.03 && (b - 0.7).abs() < 0.001);
    scenario.lbx().cli(&["set", "weight", "echo/vif1", "--clear"]).unwrap();
    wait(&scenario, "no override", |a, b| a > 1.5 && b < 0.5);

    let report = long.stop().unwrap();
    report.check(FLOWS).unwrap_or_else(|error| panic!("{error:#}\n{}", scenario.story()));
    wait(&scenario, "all as configured again", |a, b| (a - 1.0).abs() < 0.03 && (b - 1.0).abs() < 0.03);
}
