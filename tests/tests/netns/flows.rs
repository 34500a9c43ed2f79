//! `lbx flows` of somebody who may not read the maps: the daemon lists them, portion by portion.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::Duration;

use lbx_tests::lab::config::{File, Service, stand_ins};
use lbx_tests::lab::{LabSpec, VmKind, addr};
use lbx_tests::scenario::{Scenario, need_root};
use serde_json::Value;

/// The clients of a listing.
fn clients(answer: &Value) -> BTreeSet<String> {
    let flows = answer["flows"].as_array().unwrap();
    flows.iter().map(|flow| flow["client"].as_str().unwrap_or("-").to_owned()).collect()
}

#[test]
fn without_the_right_to_read_maps_the_daemon_lists_the_flows() {
    need_root();
    let file = File::new(vec![Service::dsr("web", addr::vip(0), "tcp", 80, stand_ins(2))]);
    let mut scenario = Scenario::start(LabSpec::one_host(2, VmKind::StandIn), &[file]).unwrap();
    let vip = SocketAddr::new(addr::vip(0).v4.into(), 80);
    scenario.wait_for(vip).unwrap();
    for _ in 0..10 {
        scenario.get(vip, Duration::from_secs(2)).unwrap();
    }
    let words = ["--json", "flows", "--limit", "1000"];
    let all = clients(&scenario.lbx().json(&words[1..]).unwrap());
    assert!(all.len() >= 10, "{all:?}");
    // Nobody, in the group of the daemon's socket: it may ask the daemon, the pins are root's. With a copy of the
    // program where nobody can reach it.
    let program = scenario.lab.record.dir().join("lbx");
    std::fs::copy(scenario.lbx().command(&[]).get_program(), &program).unwrap();
    let group = std::fs::metadata(scenario.lbx().socket().unwrap()).unwrap().gid().to_string();
    let ran = |scenario: &Scenario, words: &[&str]| {
        let plain = scenario.lbx().command(words);
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", &group, "--clear-groups", "--"]);
        command.arg(&program).args(plain.get_args()).output().unwrap()
    };
    let powerless = |words: &[&str]| {
        let out = ran(&scenario, words);
        assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let listed: Value = serde_json::from_str(&powerless(&words)).unwrap();
    // Some may have ended meanwhile; none is new.
    assert!(clients(&listed).is_subset(&all) && clients(&listed).len() >= 5, "{listed}");
    assert_eq!(listed["more"], false);
    let some: Value = serde_json::from_str(&powerless(&["--json", "flows", "--limit", "2"])).unwrap();
    assert_eq!((some["flows"].as_array().unwrap().len(), &some["more"]), (2, &Value::Bool(true)));
    let text = powerless(&["flows", "--limit", "3"]);
    assert_eq!(
        text.lines().filter(|line| line.starts_with("tcp") || line.starts_with('-')).count(),
        3,
        "{text}"
    );
    assert!(text.ends_with("filters show fewer)\n"), "{text}");
    // It was the daemon that answered.
    scenario.lbx[0].kill().unwrap();
    let out = ran(&scenario, &["flows"]);
    assert!(!out.status.success() && out.stdout.is_empty(), "{}", String::from_utf8_lossy(&out.stdout));
}
