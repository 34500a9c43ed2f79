//! The queue of a guest's vNIC: what lbx says of it against what was sent, what the guest counted, and what was
//! refused, while the guest is stopped, full, drained in parts, and killed.

use std::net::{SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

use lbx_tests::guest::echo;
use lbx_tests::lab::config::{File, Service, guests};
use lbx_tests::lab::offload::Offloads;
use lbx_tests::lab::qmp::Qmp;
use lbx_tests::lab::{Lab, LabSpec, Lbx, VmKind, addr, tools};
use lbx_user::datapath::{Instance, Maps};
use serde_json::{Value, json};

/// A frame that nobody sent on purpose may come between: somebody asks for an address.
const WITHIN: u64 = 1;
const PATIENCE: Duration = Duration::from_secs(20);

/// The only queue of the only vNIC, and the whole answer.
fn queue(lbx: &Lbx) -> Option<Value> {
    let answer = lbx.json(&["queues"]).unwrap();
    assert_eq!(answer["problem"], Value::Null, "{answer}");
    let rows = answer["queues"].as_array().unwrap().clone();
    assert!(rows.len() <= 1, "{answer}");
    rows.into_iter().next()
}

/// Waits until the queue is as wanted; its last state.
fn wait(lbx: &Lbx, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let row = queue(lbx);
        match row {
            Some(row) if wanted(&row) => return row,
            other => assert!(Instant::now() < deadline, "not {what}: {other:?}\n{}", lbx.log()),
        }
        sleep(Duration::from_millis(20));
    }
}

fn number(row: &Value, field: &str) -> u64 {
    row[field].as_u64().unwrap_or_else(|| panic!("{field} of {row}"))
}

/// Whether a depth is what was expected, within a frame.
fn is_about(row: &Value, field: &str, expected: u64) -> bool {
    number(row, field).abs_diff(expected) <= WITHIN
}

/// Sends datagrams through lbx, slowly enough for the wire.
fn send(lab: &Lab, socket: &UdpSocket, count: usize) {
    let sent = lab.client().ns.run(|| {
        for n in 0..count {
            socket.send(b"counted").unwrap();
            if n % 16 == 15 {
                sleep(Duration::from_millis(1));
            }
        }
    });
    sent.unwrap();
}

/// Datagrams that the guest has seen: answered, or without room in its socket.
fn guest_count(lab: &Lab) -> u64 {
    let stats = lab.vms[0].stats(&lab.client().ns).unwrap();
    let of = |name: &str| stats["kernel"][name].as_u64().unwrap_or(0);
    of("Udp.InDatagrams") + of("Udp.RcvbufErrors")
}

fn execute(qmp: &mut Qmp, command: &str) {
    qmp.execute(command, &json!({})).unwrap();
}

/// What the tap has counted as taken by the guest's side: no part of how a ring is read.
fn taken(lab: &Lab) -> u64 {
    let text =
        tools::run(lab.host().ns.command("ip").args(["-s", "-j", "link", "show", &lab.vms[0].port])).unwrap();
    let links: Value = serde_json::from_str(&text).unwrap();
    links[0]["stats64"]["tx"]["packets"].as_u64().unwrap()
}

#[test]
fn the_depth_of_a_guests_queue_is_true_to_a_packet() {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root: it makes network namespaces and taps");
    let mut spec = LabSpec::one_host(1, VmKind::Guest);
    spec.clients[0].offloads = Offloads::sender(false);
    let mut lab = Lab::start(spec).unwrap();
    let vip = addr::vip(0);
    let mut service = Service::dsr("echo", vip, "udp", echo::PORT, guests(&lab, &[100]));
    service.vips = vec![vip.v4.into()];
    // XDP on the uplink, straight into the tap; nobody asks for the VIP meanwhile.
    let file = File::new(vec![service]).xdp("native").text().replace("\"probe\"", "\"off\"");
    let lbx = Lbx::start(&lab, 0, &file).unwrap();
    let mac = bridge_mac(&lab);
    let client = lab.client().ns.clone();
    tools::ip(&client, &[format!("neigh replace {} lladdr {mac} dev eth0 nud permanent", vip.v4)]).unwrap();
    let at = SocketAddr::new(vip.v4.into(), echo::PORT);
    let socket = client
        .run(|| lbx_tests::lab::client::udp::socket(at, None, Duration::from_secs(2)))
        .unwrap()
        .unwrap();

    // Answered, so it is lbx that sends them there.
    let deadline = Instant::now() + PATIENCE;
    let ask = || lbx_tests::lab::client::udp::ask(&socket, b"there?");
    while !client.run(|| ask().is_ok()).unwrap() {
        assert!(Instant::now() < deadline, "{at} is not served\n{}", lbx.log());
    }
    let idle = wait(&lbx, "empty", |row| row["depth"] == 0 && row["stale"] == false);
    assert_eq!((&idle["vm"], &idle["source"]), (&json!("vm1"), &json!("tap ring")), "{idle}");
    assert_eq!((&idle["targets"], &idle["nic"]), (&json!(["echo/vm1"]), &json!(lab.vms[0].port)), "{idle}");
    let size = number(&idle, "size");
    let maps = Maps::open_pinned(&Instance::new(Some(&lbx.instance)).unwrap()).unwrap();
    assert_ne!(maps.target(0).unwrap().ring, 0, "the datapath does not know where the ring is");
    let before = guest_count(&lab);

    // Filling: a stopped guest takes nothing. No neighbour's question is to come between, nor the end of a connection.
    flood(&lab, "off");
    (0..5).for_each(|_| assert!(client.run(|| ask().is_ok()).unwrap()));
    let before = before + 5;
    let mut qmp = lab.vms[0].qmp().unwrap();
    execute(&mut qmp, "stop");
    let base = number(&wait(&lbx, "seen while stopped", |row| row["stale"] == false), "depth");
    assert!(base <= WITHIN, "{base} frames were there");
    let (taken_before, dropped_before) = (taken(&lab), number(&queue(&lbx).unwrap(), "drops"));
    let mut sent = 0;
    for more in [1, 99, 400, 300] {
        send(&lab, &socket, more);
        sent += more as u64;
        let row = wait(&lbx, &format!("{sent} deep"), |row| number(row, "depth") + WITHIN >= sent);
        assert!(is_about(&row, "depth", sent), "{sent} sent: {row}");
        assert!(is_about(&row, "peak", sent), "{sent} sent: {row}");
    }

    // Full: what is sent on top is dropped, and counted one by one.
    send(&lab, &socket, 500);
    sent += 500;
    let accounted = |row: &Value| number(row, "depth") + number(row, "drops") - dropped_before;
    let full = wait(&lbx, "full", |row| accounted(row) + WITHIN >= sent);
    let dropped = number(&full, "drops") - dropped_before;
    assert!(accounted(&full).abs_diff(sent) <= WITHIN, "{sent} sent: {full}");
    // A batch of slots that the guest has emptied may not be free yet.
    assert!(number(&full, "depth") + 16 > size, "{full}");
    assert!(lbx.cli(&["queues"]).unwrap().contains("vm1"));

    // Draining, in parts: it runs for a moment and is stopped again, until it has taken something and not all.
    let (mut parts, mut stops) = (0, 0);
    for _ in 0..50 {
        execute(&mut qmp, "cont");
        execute(&mut qmp, "stop");
        stops += 1;
        // Stopped, QEMU takes one more frame, and holds it.
        let deadline = Instant::now() + PATIENCE;
        let row = loop {
            let row = wait(&lbx, "read again", |row| row["stale"] == false);
            let gone = taken(&lab) - taken_before;
            if is_about(&row, "depth", (sent - dropped).saturating_sub(gone)) {
                break row;
            }
            assert!(Instant::now() < deadline, "{gone} of {sent} taken, {dropped} dropped: {row}");
        };
        let left = number(&row, "depth");
        parts += u32::from(left > 0 && left + WITHIN < size);
        if left == 0 || parts > 1 {
            break;
        }
    }
    assert!(parts > 0, "never seen between full and empty");
    execute(&mut qmp, "cont");
    flood(&lab, "on");
    let empty = wait(&lbx, "empty", |row| row["depth"] == 0 && row["rate"] != Value::Null);
    assert_eq!(number(&empty, "drops") - dropped_before, dropped, "{empty}");
    // What is in its socket counts when its server has read it. A stop costs QEMU the frame that it has taken and
    // not yet handed over (net_vm_change_state_handler, net/net.c).
    let deadline = Instant::now() + PATIENCE;
    loop {
        let received = guest_count(&lab) - before;
        if received <= sent - dropped + WITHIN && received + stops + WITHIN >= sent - dropped {
            break;
        }
        let left = Instant::now() < deadline;
        assert!(left, "the guest saw {received} of {sent}, {dropped} dropped");
        sleep(Duration::from_millis(20));
    }

    // Killed: its tap is not held any more, and nobody complains.
    drop(qmp);
    lab.vm_mut("vm1").unwrap().kill();
    let deadline = Instant::now() + PATIENCE;
    while queue(&lbx).is_some() {
        assert!(Instant::now() < deadline, "the queue of a dead VM is still seen\n{}", lbx.log());
        sleep(Duration::from_millis(20));
    }
    while maps.target(0).unwrap().ring != 0 {
        assert!(Instant::now() < deadline, "the datapath still has the ring of a dead VM\n{}", lbx.log());
        sleep(Duration::from_millis(20));
    }
    let answer = lbx.json(&["queues"]).unwrap();
    let log = lbx.log();
    assert!(!log.contains("cannot be read") && !log.contains("panicked"), "{log}");
    assert_eq!(answer["queues"], json!([]), "a VM that is gone has no queue: {answer}");
}

/// Whether the bridge sends frames for everybody into the guest's port.
fn flood(lab: &Lab, on: &str) {
    let port = &lab.vms[0].port;
    let set = format!("link set dev {port} flood {on} mcast_flood {on} bcast_flood {on}");
    tools::bridge(&lab.host().ns, &[set]).unwrap();
}

/// MAC of the bridge, which frames for the VIP are addressed to.
fn bridge_mac(lab: &Lab) -> String {
    let text = tools::run(lab.host().ns.command("ip").args(["-j", "link", "show", "br0"])).unwrap();
    let links: Value = serde_json::from_str(&text).unwrap();
    links[0]["address"].as_str().unwrap().to_owned()
}
