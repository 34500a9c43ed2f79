//! `stopped = "hold"`: packets to a VM that is stopped wait in the queue of its vNIC at the host it goes to.
//!
//! The VM is a stand-in here; at the other host its vNIC is a tap whose queue is open, as that of a QEMU that waits for
//! the VM is, and read when the VM resumes.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use lbx_tests::bpf::tap::Tap;
use lbx_tests::guest::{announce::mac_text, echo};
use lbx_tests::lab::config::{File, Service, stand_ins};
use lbx_tests::lab::vm::Family;
use lbx_tests::lab::{Lab, LabSpec, Lbx, Netns, VmKind, addr, tools};
use lbx_tests::scenario::peers::{certificates, name, until};
use lbx_tests::scenario::sniff::Sniffer;
use lbx_tests::scenario::{Scenario, need_root, vip};

/// The pause that packets have to outlast, and so many of them come a second.
const PAUSE: Duration = Duration::from_millis(200);
const RATE: u32 = 1000;
const TARGET: &str = "echo/vif0";

/// What marks the datagrams of the stream: no other payload begins so.
const MARK: [u8; 4] = *b"hold";

/// A stream of numbered datagrams, [`RATE`] a second, from one socket.
struct Sender {
    sent: Arc<AtomicU32>,
    end: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Sender {
    fn start(client: &Netns) -> Self {
        let (sent, end) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let (to, done, client) =
            ((vip(0, Family::V4), echo::PORT), (sent.clone(), end.clone()), client.clone());
        let thread = std::thread::spawn(move || {
            client.enter().unwrap();
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect(to).unwrap();
            // Answers of the other VM, or none: both would be errors of the next send.
            let start = Instant::now();
            for n in 0_u32.. {
                if done.1.load(Ordering::Relaxed) {
                    return;
                }
                sleep((start + Duration::from_secs(1) * n / RATE).saturating_duration_since(Instant::now()));
                let _ = socket.send(&[MARK, n.to_be_bytes()].concat());
                done.0.store(n + 1, Ordering::Relaxed);
            }
        });
        Self { sent, end, thread }
    }

    fn sent(&self) -> u32 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until so many more are sent.
    fn more(&self, packets: u32) {
        let until = self.sent() + packets;
        while self.sent() < until {
            sleep(Duration::from_millis(1));
        }
    }

    /// How many there were.
    fn stop(self) -> u32 {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.sent.load(Ordering::Relaxed)
    }
}

/// The number of a datagram of the stream.
fn number(frame: &[u8]) -> Option<u32> {
    let data = frame.get(42..50)?;
    (frame[12..14] == [8, 0] && frame[23] == 17 && data[..4] == MARK)
        .then(|| u32::from_be_bytes([data[4], data[5], data[6], data[7]]))
}

fn config(lab: &Lab, host: usize, xdp: &'static str) -> String {
    let (other, own) = (1 - host, name(host));
    let end = |host: usize| addr::host(host).v4;
    let dir = lab.record.dir().join("ca");
    let dir = dir.display();
    let top = format!(
        "[migration]\nstopped = \"hold\"\n[peers]\nname = \"{own}\"\nlisten = \"{0}:9346\"\nca = \"{dir}/ca.pem\"\n\
         certificate = \"{dir}/{own}.pem\"\nkey = \"{dir}/{own}.key\"\ntunnel = \"{0}\"\n[[peer]]\nname = \"{2}\"\n\
         address = \"{1}:9346\"\ntunnel = \"{1}\"\n",
        end(host),
        end(other),
        name(other),
    );
    let echo = Service::dsr("echo", addr::vip(0), "udp", echo::PORT, stand_ins(1));
    File { top, ..File::new(vec![echo]).xdp(xdp) }.text()
}

/// Two hosts of one segment, with the VM at the first, and its vNIC waiting at the second, a ring of `len` frames.
fn hosts(xdp: &'static str, len: u32) -> (Scenario, Tap) {
    need_root();
    let lab = Lab::start(LabSpec::hosts(&[1, 0], VmKind::StandIn)).unwrap();
    let mut lbx: Vec<Lbx> =
        (0..2).map(|host| Lbx::new(&lab, host, &config(&lab, host, xdp)).unwrap()).collect();
    certificates(&lbx[0], &lab.record.dir().join("ca"), &[&name(0), &name(1)]).unwrap();
    lbx[0].run().unwrap();
    let there = lab.hosts[1].ns.clone();
    let tap = there.run(|| Tap::new("vif0", 1, len)).unwrap().unwrap();
    let vm = addr::vm(0, 1).v4;
    let mac = mac_text(lab.vm("vm1").unwrap().mac);
    // A QEMU says in its arguments which MAC its guest has; of a stand-in's tap the host knows it by the address.
    tools::ip(
        &there,
        &[
            "link set vif0 master br0".into(),
            format!("neigh replace {vm} lladdr {mac} dev br0 nud permanent"),
        ],
    )
    .unwrap();
    let answers = format!("{}: answering for it", vip(0, Family::V4));
    until(&lbx, "the first host answers", || lbx[0].log().contains(&answers));
    lbx[1].run().unwrap();
    (Scenario { lbx, lab }, tap)
}

/// Says that the VM leaves, and waits until its packets could wait there.
fn announce(scenario: &Scenario) {
    scenario.lbx().cli(&["migration", "announce", "vif0", "--to", &name(1)]).unwrap();
    until(&scenario.lbx, "packets could wait at the other host", || {
        let all = scenario.lbx().json(&["migrations"]).unwrap();
        let mut targets =
            all["migrations"].as_array().unwrap().iter().flat_map(|one| one["targets"].as_array().unwrap());
        targets.any(|target| target["target"] == TARGET && target["can_wait"] == true)
    });
}

fn say(scenario: &Scenario, words: &[&str]) -> String {
    scenario.lbx().cli(&[&["migration"], words].concat()).unwrap()
}

/// All datagrams that are in the tap's ring, and those that come until the sender has stopped.
fn read(tap: &mut Tap, sender: Sender) -> (Vec<u32>, u32) {
    let (mut frames, mut quiet) = (Vec::new(), 0);
    sender.more(RATE / 5);
    let sent = sender.stop();
    // What was sent last is under way for a moment, on a busy machine for a long one.
    while quiet < 300 && frames.last() != Some(&(sent - 1)) {
        match tap.next(0) {
            Some(frame) => frames.extend(number(&frame)),
            None => {
                quiet += 1;
                sleep(Duration::from_millis(10));
            }
        }
    }
    (frames, sent)
}

fn none_is_lost(xdp: &'static str) {
    let (scenario, mut tap) = hosts(xdp, 2000);
    let vm = scenario.lab.vm("vm1").unwrap().ns.clone().unwrap();
    let before = Sniffer::start(&vm, "eth0").unwrap();
    let sender = Sender::start(scenario.client());
    sender.more(50);
    announce(&scenario);
    let said = say(&scenario, &["stopped", "vif0"]);
    let (stopped, at) = (sender.sent(), Instant::now());
    assert!(said.contains("wait at its new host"), "{said}\n{}", scenario.story());
    sender.more(RATE * PAUSE.as_millis() as u32 / 1000);
    assert!(at.elapsed() >= PAUSE / 2);
    let target = scenario.target(0, TARGET).unwrap();
    assert_eq!(target["effective"], "moved", "{target}");
    let waiting = sender.sent() - stopped;
    // The VM runs at its new host: it reads, and nothing more is to change for its packets.
    say(&scenario, &["resumed", "vif0", "--where", "there", "--host", &name(1)]);
    let (after, sent) = read(&mut tap, sender);
    let mut all: Vec<u32> = before
        .stop()
        .unwrap()
        .iter()
        .filter(|frame| !frame.outgoing)
        .filter_map(|frame| number(&frame.bytes))
        .collect();
    let here = all.len();
    assert!(here > 0 && after.len() as u32 >= waiting, "{here} here, {} there of {waiting}", after.len());
    all.extend(&after);
    let expected: Vec<u32> = (0..sent).collect();
    let first = all.iter().zip(&expected).position(|(is, wanted)| is != wanted);
    assert_eq!(
        all,
        expected,
        "{here} here, {} there, first wrong: {first:?}\n{}",
        after.len(),
        scenario.story()
    );
    assert_eq!(scenario.count(0, "blackholed").unwrap(), 0);
    let log = scenario.lbx().log();
    assert!(log.contains("packets waited at its new host until it ran"), "{log}");
}

#[test]
fn none_is_lost_by_tc() {
    none_is_lost("auto");
}

#[test]
fn none_is_lost_by_xdp() {
    none_is_lost("native");
}

#[test]
fn what_waits_in_vain_or_overflows_is_counted() {
    let (scenario, mut tap) = hosts("auto", 64);
    let vm = scenario.lab.vm("vm1").unwrap().ns.clone().unwrap();
    let sender = Sender::start(scenario.client());
    announce(&scenario);
    say(&scenario, &["stopped", "vif0"]);
    sender.more(200);
    until(&scenario.lbx, "frames that found no room are counted", || {
        let queues = scenario.lbx[1].json(&["queues"]).unwrap();
        queues["queues"]
            .as_array()
            .unwrap()
            .iter()
            .any(|row| row["nic"] == "vif0" && row["drops"].as_u64() > Some(50))
    });
    // It could not be moved: it runs where it was.
    let again = Sniffer::start(&vm, "eth0").unwrap();
    say(&scenario, &["failed", "vif0"]);
    until(&scenario.lbx, "its packets are its again", || {
        again.so_far().iter().filter(|frame| !frame.outgoing && number(&frame.bytes).is_some()).count() > 20
    });
    let log = scenario.lbx().log();
    assert!(log.contains("packets that were sent to its new host to wait there are lost"), "{log}");
    let (waited, _) = read(&mut tap, sender);
    assert!((32..=64).contains(&waited.len()), "{}", waited.len());
    assert!(waited.is_sorted(), "{waited:?}");
}

#[test]
fn without_a_peer_that_says_so_packets_are_dropped() {
    let (mut scenario, _tap) = hosts("auto", 64);
    let sender = Sender::start(scenario.client());
    announce(&scenario);
    scenario.lbx[1].stop().unwrap();
    until(&scenario.lbx[..1], "nobody says that packets can wait", || {
        !scenario.lbx[0].json(&["migrations"]).unwrap().to_string().contains("\"can_wait\":true")
    });
    let said = say(&scenario, &["stopped", "vif0"]);
    assert!(!said.contains("wait at its new host"), "{said}");
    until(&scenario.lbx[..1], "they are dropped", || scenario.count(0, "blackholed").unwrap() > 20);
    assert_eq!(scenario.target(0, TARGET).unwrap()["effective"], "blackholed");
    sender.stop();
}
