//! A guest that is killed is down, and is found again when it is back, on a new tap.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use lbx_tests::lab::client::load::Load;
use lbx_tests::lab::config::{File, Service, guests};
use lbx_tests::lab::offload::Offloads;
use lbx_tests::lab::{Lab, LabSpec, Lbx, VmKind, addr, tools};

fn state(lbx: &Lbx, target: &str) -> String {
    let answer = lbx.json(&["targets"]).unwrap();
    let rows = answer["targets"].as_array().unwrap();
    let row = rows.iter().find(|row| row["target"] == target).unwrap();
    row["effective"].as_str().unwrap().to_owned()
}

/// Waits for a target's state; how long it took.
fn wait_state(lbx: &Lbx, target: &str, wanted: &str) -> Duration {
    let start = Instant::now();
    while state(lbx, target) != wanted {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{target} is {}, not {wanted}\n{}",
            state(lbx, target),
            lbx.log()
        );
        sleep(Duration::from_millis(20));
    }
    start.elapsed()
}

#[test]
fn a_killed_guest_is_down_and_found_again_on_a_new_tap() {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root: it makes network namespaces and taps");
    let mut spec = LabSpec::one_host(2, VmKind::Guest);
    spec.clients[0].offloads = Offloads::sender(false);
    let mut lab = Lab::start(spec).unwrap();
    let web = Service::dsr("web", addr::vip(0), "tcp", 80, guests(&lab, &[1, 1]));
    let lbx = Lbx::start(&lab, 0, &File::of_guests(vec![web]).text()).unwrap();
    let client = lab.client().ns.clone();
    let at = SocketAddr::new(addr::vip(0).v4.into(), 80);
    let load = |n| Load { limit: Duration::from_secs(3), ..Load::new(at, n) };
    let deadline = Instant::now() + Duration::from_secs(20);
    while load(1).run(&client).unwrap().failed > 0 {
        assert!(Instant::now() < deadline, "{at} is not served:\n{}", lbx.log());
    }
    let both = load(400).run(&client).unwrap();
    assert_eq!((both.failed, both.requests.len()), (0, 2), "{both:?}");

    // 20 connections are open when vm1 is killed and its tap goes.
    let open =
        Load { requests_per_connection: 1000, threads: 20, pause: Duration::from_millis(100), ..load(20) };
    let open = open.start(&client);
    sleep(Duration::from_secs(1));
    let of_vm1 = open.so_far().connections.get("vm1").copied().unwrap_or(0);
    lab.vm_mut("vm1").unwrap().kill();
    let took = wait_state(&lbx, "vm1", "down");
    eprintln!("vm1 was down {took:?} after kill -9");
    assert!(took < Duration::from_secs(5));
    let rest = load(200).run(&client).unwrap();
    assert_eq!((rest.failed, rest.requests.get("vm1")), (0, None), "{rest:?}");

    // Its connections were selected anew: vm2 knows nothing of them and says so, at once.
    sleep(Duration::from_secs(4));
    let report = open.stop().unwrap();
    assert!(of_vm1 > 0, "some connections were vm1's: {report:?}");
    assert_eq!((report.failed, report.moved), (of_vm1, 0), "{report:?}");
    let reasons = lbx.json(&["stats"]).unwrap()["reasons"].as_array().unwrap().clone();
    let count =
        reasons.iter().find(|r| r["name"] == "flow_reselected").map_or(0, |r| r["count"].as_u64().unwrap());
    assert!(count >= of_vm1, "{reasons:?}");

    // Back on a tap of the same name but another index.
    let (host, port) = (lab.hosts[0].ns.clone(), lab.vm("vm1").unwrap().port.clone());
    let renew = [
        format!("link del {port}"),
        format!("tuntap add dev {port} mode tap vnet_hdr"),
        format!("link set {port} mtu 1500 master br0 up"),
    ];
    tools::ip(&host, &renew).unwrap();
    lab.start_vm("vm1").unwrap();
    wait_state(&lbx, "vm1", "active");
    let again = load(400).run(&client).unwrap();
    assert_eq!((again.failed, again.requests.len()), (0, 2), "{again:?}");
}
