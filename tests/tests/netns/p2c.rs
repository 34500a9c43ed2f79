//! Power of two choices and response times, with a daemon, clients and stand-ins for VMs.

use std::time::Duration;

use lbx_tests::guest::echo;
use lbx_tests::lab::client::long::Long;
use lbx_tests::lab::config::{File, Service, stand_ins};
use lbx_tests::lab::vm::Family;
use lbx_tests::lab::{LabSpec, VmKind, addr};
use lbx_tests::scenario::{Scenario, eventually, need_root, vip};

/// Far more than it takes, for machines that have other things to do.
const PATIENCE: Duration = Duration::from_mins(1);
const FLOWS: usize = 40;

#[test]
fn flows_go_where_fewer_are_open_and_answers_are_timed() {
    need_root();
    let mut echo = Service::dsr("echo", addr::vip(0), "tcp", echo::PORT, stand_ins(2));
    echo.keys =
        "algorithm = \"p2c\"\nweights = \"adaptive\"\navailability = \"1 - response / 1000000\"".to_owned();
    let file = File { top: "[measure]\nresponse = 1\n".to_owned(), ..File::new(vec![echo]) };
    let scenario = Scenario::start(LabSpec::one_host(2, VmKind::StandIn), &[file]).unwrap();
    let at = (vip(0, Family::V4), echo::PORT).into();
    let first = Long::new(at, 1);
    let served =
        eventually(PATIENCE, || Ok(first.clone().start(scenario.client())?.stop()?.check(1).is_ok()));
    assert!(served.unwrap(), "{}", scenario.story());

    let long = Long::new(at, FLOWS).start(scenario.client()).unwrap();
    let open = long.so_far().open;
    // By chance each would have 20 give or take 3 (a standard deviation): 10 off would be one in a thousand.
    let near = |vm| open.get(vm).is_some_and(|n| (15..=25).contains(n));
    assert!(near("vm1") && near("vm2"), "{open:?}\n{}", scenario.story());

    let targets = || scenario.lbx().json(&["targets"]).unwrap();
    let timed = eventually(PATIENCE, || {
        let all = targets();
        let each = all["targets"].as_array().unwrap();
        Ok(each.iter().all(|one| one["response_ms"].as_f64().is_some_and(|ms| ms > 0.0)))
    });
    assert!(timed.unwrap(), "{}\n{}", targets(), scenario.story());
    assert_eq!(targets()["targets"][0]["response_by_handshake"], false);
    let why = || scenario.lbx().cli(&["why", "weight", "echo/vif1"]).unwrap();
    let known = eventually(PATIENCE, || Ok(why().contains("from request to answer at the tap")));
    assert!(known.unwrap(), "{}", why());
    let port = echo::PORT.to_string();
    let (client, vip) = ("203.0.113.99:4321", format!("{}:{port}", vip(0, Family::V4)));
    let flow = || scenario.lbx().cli(&["why", "flow", "tcp", client, &vip]).unwrap();
    let told = flow();
    assert!(told.contains("p2c: echo/vif") && told.contains("open flows, weight"), "{told}");
    assert!(scenario.lbx().cli(&["services"]).unwrap().contains("p2c"));
    long.stop().unwrap().check(FLOWS).unwrap_or_else(|error| panic!("{error:#}\n{}", scenario.story()));
    let none = eventually(PATIENCE, || Ok(flow().matches(" 0 open flows").count() == 2));
    assert!(none.unwrap(), "{}", flow());
}
