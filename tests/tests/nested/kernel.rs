//! lbx on the kernel that runs: loaded, attached the way that kernel can, steering, killed, taken up again, removed.
//! Runs in a guest (see `vm/kernels.rs`), where the kernel is another one than this machine's.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use lbx_tests::lab::client::load::Load;
use lbx_tests::lab::config::{File, Service, stand_ins};
use lbx_tests::lab::{LabSpec, VmKind, addr, tools};
use lbx_tests::scenario::{FAMILIES, Scenario, eventually, vip};

/// Which VIP on which port: `dsr` and `nat`.
const SERVED: [(usize, u16); 2] = [(0, 80), (1, 8080)];
const CONNECTIONS: u64 = 32;

/// Major and minor number of the running kernel.
fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

fn served(scenario: &Scenario) {
    for (k, port) in SERVED {
        for family in FAMILIES {
            let at = SocketAddr::new(vip(k, family), port);
            scenario.wait_for(at).unwrap();
            let load = Load { threads: 4, ..Load::new(at, CONNECTIONS) };
            let report = load.run(scenario.client()).unwrap();
            let story = || format!("{at}: {report:?}\n{}", scenario.story());
            assert_eq!((report.failed, report.total()), (0, CONNECTIONS), "{}", story());
            assert_eq!(report.requests.len(), 2, "{}", story());
        }
    }
}

/// Programs of lbx on the host's devices: how many lines of `bpftool net` name one, and the filters of clsact.
fn attached(scenario: &Scenario) -> (usize, usize) {
    let host = &scenario.lab.host().ns;
    let net = tools::run(host.command("bpftool").args(["net", "show"])).unwrap();
    let qdiscs = tools::run(host.command("tc").args(["qdisc", "show"])).unwrap();
    let mine = |line: &&str| line.contains("lbx_");
    (net.lines().filter(mine).count(), qdiscs.lines().filter(|line| line.contains("clsact")).count())
}

#[test]
fn steers_survives_its_daemon_and_leaves_nothing() {
    let services = vec![
        Service::dsr("web", addr::vip(0), "tcp", 80, stand_ins(2)),
        Service::nat("nat", addr::vip(1), "tcp", 8080, 80, stand_ins(2)),
    ];
    let file = File::new(services).xdp("native");
    let mut scenario = Scenario::start(LabSpec::one_host(2, VmKind::StandIn), &[file]).unwrap();
    served(&scenario);

    // XDP on the uplink, tc on two ports and on the bridge itself; tcx links are there from 6.6 on.
    let (programs, clsact) = attached(&scenario);
    let log = scenario.lbx().log();
    assert_eq!(clsact, if kernel() < (6, 6) { 3 } else { 0 }, "{log}");
    if kernel() >= (6, 6) {
        assert!(log.contains("tcx ingress attached"), "{log}");
    }
    let doctor = scenario.lbx().json(&["doctor"]).unwrap();
    let failed: Vec<_> =
        doctor["checks"].as_array().unwrap().iter().filter(|check| check["level"] == "fail").collect();
    assert!(failed.is_empty(), "{failed:#?}");

    scenario.lbx[0].kill().unwrap();
    served(&scenario);
    scenario.lbx[0].run().unwrap();
    served(&scenario);
    assert_eq!(attached(&scenario), (programs, clsact), "a restart attaches nothing twice");
    let errors = scenario.checksum_errors().unwrap();
    assert!(errors.values().all(|&n| n == 0), "{errors:?}");

    scenario.lbx[0].stop().unwrap();
    scenario.lbx().cli(&["detach"]).unwrap();
    assert_eq!(attached(&scenario), (0, 0));
    assert!(!scenario.lbx().pin_dir().exists());
    // The kernel frees programs when nobody can be running them any more, in its own time.
    let loaded = || tools::run(std::process::Command::new("bpftool").args(["prog", "show"]));
    let gone = eventually(Duration::from_secs(20), || Ok(!loaded()?.contains("lbx_"))).unwrap();
    assert!(gone, "{}", loaded().unwrap());
}
