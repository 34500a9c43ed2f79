//! Weights of guests whose vNIC's queue fills: less at once, and back when it is empty.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use lbx_tests::guest::echo;
use lbx_tests::lab::client::udp;
use lbx_tests::lab::config::{File, Service, guests};
use lbx_tests::lab::offload::Offloads;
use lbx_tests::lab::{Lab, LabSpec, Lbx, VmKind, addr};
use lbx_tests::scenario::eventually;
use serde_json::{Value, json};

/// Far more than it takes, for machines that have other things to do.
const PATIENCE: Duration = Duration::from_mins(1);

/// Weight over configured weight of a guest.
fn factor(lbx: &Lbx, vm: &str) -> f64 {
    let all = lbx.json(&["weights"]).unwrap();
    let row = all["weights"].as_array().unwrap().iter().find(|row| row["target"] == vm).unwrap().clone();
    row["weight"].as_f64().unwrap() / row["configured"].as_f64().unwrap()
}

fn wait(lbx: &Lbx, what: &str, holds: impl Fn(f64, f64) -> bool) {
    let begin = Instant::now();
    let both = || (factor(lbx, "vm1"), factor(lbx, "vm2"));
    let reached = eventually(PATIENCE, || {
        let (a, b) = both();
        Ok(holds(a, b))
    });
    let why = || lbx.cli(&["why", "weight", "vm1"]).unwrap();
    assert!(reached.unwrap(), "{what}: {:?}\n{}\n{}", both(), why(), lbx.log());
    eprintln!("{what}: after {:?}", begin.elapsed());
}

/// A flow, and the guest that it goes to, once somebody answers.
fn flow(at: SocketAddr) -> Option<(UdpSocket, String)> {
    let socket = udp::socket(at, None, Duration::from_millis(300)).unwrap();
    let who = udp::ask(&socket, b"who?").ok()?;
    Some((socket, who))
}

#[test]
fn a_queue_that_fills_takes_weight_and_gives_it_back() {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root: it makes network namespaces and taps");
    let mut spec = LabSpec::one_host(2, VmKind::Guest);
    spec.clients[0].offloads = Offloads::sender(false);
    let lab = Lab::start(spec).unwrap();
    let mut echo = Service::dsr("echo", addr::vip(0), "udp", echo::PORT, guests(&lab, &[100, 100]));
    // The load of a guest is another matter: what availability says is the same for both.
    echo.keys = "weights = \"adaptive\"\navailability = \"1\"".to_owned();
    let lbx = Lbx::start(&lab, 0, &File::of_guests(vec![echo]).text()).unwrap();
    let at = SocketAddr::new(addr::vip(0).v4.into(), echo::PORT);
    let client = lab.client().ns.clone();
    let mut to_first = Vec::new();
    let found = eventually(PATIENCE, || {
        let (socket, who) = client.run(|| flow(at))?.unzip();
        to_first.extend(socket.filter(|_| who.as_deref() == Some("vm1")));
        Ok(to_first.len() == 4)
    });
    assert!(found.unwrap(), "no flow goes to vm1\n{}", lbx.log());
    wait(&lbx, "nothing to do", |a, b| (a - 1.0).abs() < 0.03 && (b - 1.0).abs() < 0.03);

    // A guest that stands still takes nothing out of its ring.
    let mut qmp = lab.vms[0].qmp().unwrap();
    qmp.execute("stop", &json!({})).unwrap();
    let send = |n: usize| {
        let each = || to_first.iter().cycle().take(n).for_each(|socket| drop(socket.send(b"fill")));
        client.run(each).unwrap();
    };
    send(400);
    wait(&lbx, "a queue of hundreds", |a, b| a < 0.4 && b > 1.4);
    let why = lbx.cli(&["why", "weight", "vm1"]).unwrap();
    assert!(why.contains("of the ring above its first 5 %"), "{why}");
    let told: Value = lbx.json(&["why", "weight", "vm1"]).unwrap();
    assert!(told["weighed"]["depth"].as_f64().unwrap() > 0.1, "{told}");
    // The flows that it has are still its own: what they send comes on top.
    let depth = || lbx.json(&["queues"]).unwrap()["queues"].to_string();
    let before = depth();
    send(20);
    assert!(eventually(PATIENCE, || Ok(depth() != before)).unwrap(), "{before}");

    qmp.execute("cont", &json!({})).unwrap();
    wait(&lbx, "an empty queue", |a, b| a > 0.9 && b < 1.1);
    assert!(
        client
            .run(|| eventually(PATIENCE, || Ok(udp::ask(&to_first[0], b"still?").is_ok())))
            .unwrap()
            .unwrap()
    );
}
