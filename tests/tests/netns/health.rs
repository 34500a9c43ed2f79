//! Health checks of every kind against stand-ins that fall ill in different ways.

use std::time::{Duration, Instant};

use lbx_tests::lab::vm::Family;
use lbx_tests::lab::{Lab, LabSpec, Lbx, VmKind, addr, tools};
use lbx_tests::scenario::host::{head, narrow, service};
use lbx_tests::scenario::need_root;
use serde_json::Value;

/// Both stand-ins behind one VIP, probed in four ways.
fn config(file: &str) -> String {
    let target =
        |n: usize| format!("[[service.target]]\nnic = \"vif{n}\"\naddress = \"{}\"\n", addr::vm(0, n + 1).v4);
    // Processes have to be scheduled for these two; the kernel alone answers the others.
    let kernel = "interval = \"200ms\", timeout = \"200ms\", rise = 1, fall = 3";
    let process = "interval = \"500ms\", timeout = \"500ms\", rise = 1, fall = 2";
    format!(
        "{}{}{}{}[service.health]\ntcp = {{ {kernel} }}\nicmp = {{ {kernel} }}\n\
         http = {{ path = \"/\", body = \"server\", {process} }}\n\
         command = {{ argv = [\"/usr/bin/test\", \"-e\", \"{file}-{{address}}\"], {process} }}\n",
        head(),
        service("web", 0, "dsr", 80),
        target(0),
        target(1)
    )
}

/// One check's row.
fn row(lbx: &Lbx, target: &str, kind: &str) -> Value {
    let health = lbx.json(&["health"]).unwrap();
    let rows = health["checks"].as_array().unwrap();
    rows.iter().find(|row| row["target"] == target && row["kind"] == kind).cloned().unwrap_or_default()
}

fn target(lbx: &Lbx, name: &str) -> Value {
    let targets = lbx.json(&["targets"]).unwrap();
    targets["targets"].as_array().unwrap().iter().find(|row| row["name"] == name).cloned().unwrap_or_default()
}

fn until(lbx: &Lbx, what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    let deadline = start + Duration::from_secs(30);
    while !holds() {
        let say = |verb| lbx.cli(&[verb]).unwrap();
        assert!(Instant::now() < deadline, "{what}\n{}\n{}\n{}", say("health"), say("targets"), lbx.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    eprintln!("{what} after {:?}", start.elapsed());
}

fn until_state(lbx: &Lbx, name: &str, state: &str) {
    until(lbx, &format!("{name} {state}"), || target(lbx, name)["effective"] == state);
}

#[test]
fn every_kind_of_check_takes_a_target_down_and_up_again() {
    need_root();
    let lab = Lab::start(LabSpec::one_host(2, VmKind::StandIn)).unwrap();
    let client = lab.client().ns.clone();
    let (one, two) = (lab.vm("vm1").unwrap(), lab.vm("vm2").unwrap());
    let file = lab.record.dir().join("well").display().to_string();
    let file_of = |vm: &lbx_tests::lab::Vm| format!("{file}-{}", vm.ip(Family::V4));
    for vm in [one, two] {
        std::fs::write(file_of(vm), "").unwrap();
    }

    // vm2 does not serve from the start: new as it is, it is never used.
    two.control(&client, "stop/80").unwrap();
    let mut lbx = Lbx::start(&lab, 0, &config(&file)).unwrap();
    until_state(&lbx, "web/vif0", "active");
    until(&lbx, "refused", || row(&lbx, "web/vif1", "tcp")["streak"].as_u64() > Some(2));
    let new = target(&lbx, "web/vif1");
    assert_eq!((&new["effective"], &new["by"]), (&"down".into(), &"health".into()), "{new}");
    assert_eq!(new["counters"]["flows"], 0, "{new}");
    assert_eq!(row(&lbx, "web/vif1", "tcp")["new"], true);
    for kind in ["icmp", "command"] {
        until(&lbx, kind, || row(&lbx, "web/vif1", kind)["state"] == "up");
    }
    two.control(&client, "start/80").unwrap();
    until_state(&lbx, "web/vif1", "active");
    for (target, kind) in
        [("web/vif0", "tcp"), ("web/vif0", "http"), ("web/vif1", "http"), ("web/vif1", "icmp")]
    {
        until(&lbx, kind, || {
            row(&lbx, target, kind)["state"] == "up" && row(&lbx, target, kind)["micros"].is_u64()
        });
    }
    let shown = lbx.cli(&["health"]).unwrap();
    narrow(&["health"], &shown);

    // Slow is ill for HTTP and well for everybody else.
    one.control(&client, "service-time/3000").unwrap();
    until_state(&lbx, "web/vif0", "down");
    let reason = target(&lbx, "web/vif0")["wishes"][0]["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason.contains("connected, but no answer"), "{reason}");
    assert_eq!(row(&lbx, "web/vif0", "tcp")["state"], "up");
    assert_eq!(row(&lbx, "web/vif0", "http")["new"], false, "it was used before");
    one.control(&client, "service-time/0").unwrap();
    until_state(&lbx, "web/vif0", "active");

    // So does the command say, and a machine that answers no ping.
    std::fs::remove_file(file_of(two)).unwrap();
    until_state(&lbx, "web/vif1", "down");
    std::fs::write(file_of(two), "").unwrap();
    until_state(&lbx, "web/vif1", "active");
    two.ns.as_ref().unwrap().sysctls(&[("net/ipv4/icmp_echo_ignore_all", "1")]).unwrap();
    until_state(&lbx, "web/vif1", "down");
    assert_eq!(row(&lbx, "web/vif1", "icmp")["state"], "down");
    two.ns.as_ref().unwrap().sysctls(&[("net/ipv4/icmp_echo_ignore_all", "0")]).unwrap();
    until_state(&lbx, "web/vif1", "active");

    // Away and back is as good as new, and passes as soon as it has been looked at.
    let link = |to: &str| tools::ip(&lab.host().ns, &[format!("link set vif1 {to}")]).unwrap();
    link("down");
    until(&lbx, "away", || {
        target(&lbx, "web/vif1")["by"] == "presence" || target(&lbx, "web/vif1")["problem"].is_string()
    });
    link("up");
    until_state(&lbx, "web/vif1", "active");
    assert!(lbx.log().contains("web/vif1 passes its first health check"), "{}", lbx.log());

    // The checker's own address goes: nobody is judged, nobody falls.
    let own = |verb: &str| {
        let line = format!("addr {verb} {}/24 dev br0", lab.host().addr.v4);
        tools::ip(&lab.host().ns, &[line]).unwrap();
    };
    own("del");
    for target in ["web/vif0", "web/vif1"] {
        let cannot = |row: Value| row["error"].as_str().is_some_and(|error| error.contains("cannot check"));
        until(&lbx, "no way", || cannot(row(&lbx, target, "tcp")) && cannot(row(&lbx, target, "icmp")));
    }
    std::thread::sleep(Duration::from_secs(1));
    for name in ["web/vif0", "web/vif1"] {
        assert_eq!(
            target(&lbx, name)["effective"],
            "active",
            "{}\n{}",
            lbx.cli(&["health"]).unwrap(),
            lbx.log()
        );
    }
    // A daemon that starts in this very moment finds nobody new, and nobody falls either.
    let before = lbx.log().matches("is new").count();
    lbx.restart().unwrap();
    for name in ["web/vif0", "web/vif1"] {
        assert_eq!(target(&lbx, name)["effective"], "active", "{}", lbx.log());
    }
    assert_eq!(lbx.log().matches("is new").count(), before, "{}", lbx.log());
    own("add");
    until(&lbx, "back", || row(&lbx, "web/vif0", "tcp")["micros"].is_u64());
    assert!(!lbx.log().contains("panicked"), "{}", lbx.log());
}
