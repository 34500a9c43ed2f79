//! Steering to QEMU guests: the first flow, and 200 long connections that nothing the operator does may move.

use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use lbx_tests::guest::echo;
use lbx_tests::lab::client::{http, long::Long, long::Running};
use lbx_tests::lab::config::{File, Service, guests};
use lbx_tests::lab::offload::Offloads;
use lbx_tests::lab::{Lab, LabSpec, Lbx, VmKind, addr};

fn lab(guests: usize) -> Lab {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root: it makes network namespaces and taps");
    let mut spec = LabSpec::one_host(guests, VmKind::Guest);
    spec.clients[0].offloads = Offloads::sender(false);
    Lab::start(spec).unwrap()
}

/// Waits until a TCP connection to the address is accepted.
fn wait_open(lab: &Lab, at: SocketAddr) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let open = || {
        let connect = || lbx_tests::lab::client::socket::tcp(at, None, Duration::from_millis(500)).is_ok();
        lab.client().ns.run(connect).unwrap()
    };
    while !open() {
        assert!(Instant::now() < deadline, "{at} is not served");
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn one_flow_end_to_end() {
    let lab = lab(1);
    let web = Service::dsr("web", addr::vip(0), "tcp", 80, guests(&lab, &[100]));
    let lbx = Lbx::start(&lab, 0, &File::of_guests(vec![web]).text()).unwrap();
    let at = SocketAddr::new(addr::vip(0).v4.into(), 80);
    wait_open(&lab, at);
    let before = lbx.json(&["weights"]).unwrap()["weights"][0]["flows"].as_u64().unwrap();
    let answer = lab.client().ns.run(|| http::request(at, "GET", "/", b"")).unwrap().unwrap();
    assert_eq!((answer.status, answer.vm.as_str()), (200, "vm1"));
    assert!(answer.text().contains("\"server\":\"10.77.0.100:80\""), "{}", answer.text());
    let after = lbx.json(&["weights"]).unwrap()["weights"][0]["flows"].as_u64().unwrap();
    assert_eq!(after, before + 1);
    // Detach ends it: nobody answers for the VIP, and no pin is left.
    let mut lbx = lbx;
    lbx.stop().unwrap();
    assert!(
        lab.client().ns.run(|| http::request(at, "GET", "/", b"")).unwrap().is_ok(),
        "a stop stops nothing"
    );
    lbx.cli(&["detach"]).unwrap();
    assert!(!lbx.pin_dir().exists(), "detach leaves no pin");
    let gone = || http::request_within(at, "GET", "/", b"", Duration::from_secs(1));
    assert!(lab.client().ns.run(gone).unwrap().is_err(), "nobody steers any more");
}

/// Both services on the echo port; the weights are those of the file.
fn services(lab: &Lab, weights: &[u32]) -> String {
    let port = echo::PORT;
    let dsr = Service::dsr("dsr", addr::vip(0), "tcp", port, guests(lab, weights));
    let nat = Service::nat("nat", addr::vip(1), "tcp", port, port, guests(lab, weights));
    File::of_guests(vec![dsr, nat]).text()
}

#[test]
fn two_hundred_long_connections_stay_where_they_are() {
    let lab = lab(3);
    let mut lbx = Lbx::start(&lab, 0, &services(&lab, &[100, 200, 300])).unwrap();
    let servers: Vec<_> = [addr::vip(0), addr::vip(1)]
        .iter()
        .flat_map(|vip| vip.both())
        .map(|ip: IpAddr| SocketAddr::new(ip, echo::PORT))
        .collect();
    for &at in &servers {
        wait_open(&lab, at);
    }
    let long: Vec<_> = servers.iter().map(|&at| Long::new(at, 50).start(&lab.client().ns).unwrap()).collect();
    let targets: Vec<String> = lbx.json(&["targets"]).unwrap()["targets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(targets.len(), 6);

    unmoved(&long, "at the start");
    for (target, weight) in targets.iter().zip(["600", "10", "0", "1", "400", "900"]) {
        lbx.cli(&["set", "weight", target, weight]).unwrap();
    }
    unmoved(&long, "a weight change of every target");
    for target in targets.iter().filter(|t| t.contains("vm2")) {
        lbx.cli(&["drain", target]).unwrap();
    }
    unmoved(&long, "a drain");
    for target in targets.iter().filter(|t| t.contains("vm2")) {
        lbx.cli(&["undrain", target]).unwrap();
    }
    lbx.write_config(&services(&lab, &[300, 100, 50])).unwrap();
    lbx.cli(&["reload"]).unwrap();
    unmoved(&long, "a reload");
    lbx.restart().unwrap();
    unmoved(&long, "a restart");
    lbx.kill().unwrap();
    unmoved(&long, "kill -9");
    lbx.run().unwrap();
    unmoved(&long, "a start after it");

    let mut frames = 0;
    for running in long {
        let report = running.stop().unwrap();
        report.check(50).unwrap();
        assert!(report.opened.len() > 1, "spread over several VMs: {:?}", report.opened);
        frames += report.frames;
    }
    eprintln!("200 long connections, {frames} frames: 0 moved, 0 broken");
    for vm in &lab.vms {
        assert_eq!(vm.stats(&lab.client().ns).unwrap()["checksum_errors"], 0);
    }
}

/// Lets traffic run for a while, and looks: every connection is open, on its VM, and moves data.
fn unmoved(long: &[Running], after: &str) {
    let frames = |long: &[Running]| long.iter().map(|r| r.so_far().frames).collect::<Vec<_>>();
    let before = frames(long);
    sleep(Duration::from_millis(1500));
    for (running, before) in long.iter().zip(before) {
        let report = running.so_far();
        assert_eq!((report.refused, report.moved, report.broken), (0, 0, 0), "after {after}: {report:?}");
        assert_eq!(report.open.values().sum::<u64>(), 50, "after {after}: {report:?}");
        assert!(report.frames > before + 50, "after {after} data stands still: {report:?}");
    }
}
