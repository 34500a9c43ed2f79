//! What a guest does is seen from outside: its vCPU at work, waiting for a CPU, its memory, its hung monitor.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use lbx_tests::lab::client::http;
use lbx_tests::lab::config::{File, Service, Target};
use lbx_tests::lab::offload::Offloads;
use lbx_tests::lab::vm::Family;
use lbx_tests::lab::{Lab, LabSpec, Lbx, VmKind, VmSpec, addr};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// A thread that goes on until this is dropped.
struct Busy(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl Busy {
    fn start(mut work: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                work();
            }
        });
        Self(stop, Some(thread))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        let _ = self.1.take().map(JoinHandle::join);
    }
}

/// vm1's metric of a name.
fn metric(lbx: &Lbx, name: &str) -> Value {
    let load = lbx.json(&["load", "--vm", "vm1"]).unwrap();
    let metrics = load["vms"][0]["metrics"].as_array().unwrap();
    metrics.iter().find(|metric| metric["name"] == name).cloned().unwrap_or_default()
}

fn value(lbx: &Lbx, name: &str) -> Option<f64> {
    let metric = metric(lbx, name);
    metric["value"].as_f64().filter(|_| metric["stale"] == false)
}

/// Polls: how long it takes is the machine's affair.
fn until(lbx: &Lbx, what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(40);
    while !holds() {
        assert!(
            Instant::now() < deadline,
            "{what}: {}\n{}",
            lbx.cli(&["load", "--vm", "vm1"]).unwrap(),
            lbx.log()
        );
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_guest_is_seen_at_work_waiting_and_hanging() {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root: it makes network namespaces and taps");
    let mut spec = LabSpec::one_host(1, VmKind::Guest);
    spec.hosts[0].vms.push(VmSpec::stand_in("vm2"));
    spec.clients[0].offloads = Offloads::sender(false);
    let mut lab = Lab::start(spec).unwrap();
    let (guest, other) = (Target::guest(lab.vm("vm1").unwrap()), Target::stand_in(0, 1));
    let services = vec![
        Service::dsr("one", addr::vip(1), "tcp", 80, vec![guest]),
        Service::dsr("web", addr::vip(0), "tcp", 80, vec![other]),
    ];
    let socket = lab.vm("vm1").unwrap().qmp_path_for_lbx().display().to_string().replace("vm1", "{vm}");
    let file = File { xdp: "auto", ..File::of_guests(services) };
    let lbx =
        Lbx::start(&lab, 0, &format!("{}\n[measure]\nload = \"200ms\"\nqmp = \"{socket}\"\n", file.text()))
            .unwrap();

    // Everything is there, from /proc and from the guest's own balloon driver.
    for name in ["vm_cpu", "vm_steal", "vm_resident", "vm_disk", "vm_net", "vm_qmp", "vm_memory"] {
        until(&lbx, name, || value(&lbx, name).is_some());
    }
    assert_eq!(value(&lbx, "vm_vcpus"), Some(1.0));
    let memory = value(&lbx, "vm_memory").unwrap();
    assert!(memory > 0.0 && memory < 1.0, "{memory}");
    assert!(value(&lbx, "vm_resident").unwrap() > 16e6, "a kernel and its initramfs");
    let load = lbx.json(&["load"]).unwrap();
    assert_eq!(load["vms"][0]["targets"], serde_json::json!(["one/vm1"]));
    assert!(
        load["host"].as_array().unwrap().iter().any(|one| one["name"] == "host_cpu" && one["value"].is_f64())
    );
    until(&lbx, "idle", || value(&lbx, "vm_cpu").is_some_and(|share| share < 0.3));

    // It computes: its vCPU runs, or would like to. Pinned to a CPU with somebody who never stops, it waits.
    let (vm, client) = (lab.vm("vm1").unwrap(), lab.client().ns.clone());
    let (at, pid) = (vm.http(Family::V4), vm.pid().unwrap());
    let work = Busy::start(move || {
        let _ = client.run(|| http::request(at, "GET", "/bytes/2000000", b"")).unwrap();
    });
    until(&lbx, "busy", || {
        value(&lbx, "vm_cpu").zip(value(&lbx, "vm_steal")).is_some_and(|(cpu, steal)| cpu + steal > 0.4)
    });
    until(&lbx, "traffic", || value(&lbx, "vm_net").is_some_and(|bytes| bytes > 1e5));
    let (mine, mut first) = (sched_getaffinity(Pid::from_raw(0)).unwrap(), CpuSet::new());
    first.set((0..CpuSet::count()).find(|cpu| mine.is_set(*cpu).unwrap()).unwrap()).unwrap();
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let thread: i32 = thread.file_name().to_str().unwrap().parse().unwrap();
        let _ = sched_setaffinity(Pid::from_raw(thread), &first);
    }
    let hogs: Vec<_> = (0..2)
        .map(|_| {
            let mut pinned = false;
            Busy::start(move || {
                if !std::mem::replace(&mut pinned, true) {
                    sched_setaffinity(Pid::from_raw(0), &first).unwrap();
                }
                std::hint::black_box((0..10_000u64).sum::<u64>());
            })
        })
        .collect();
    until(&lbx, "waiting", || value(&lbx, "vm_steal").is_some_and(|steal| steal > 0.2));
    drop(hogs);
    drop(work);

    // A stopped QEMU answers nobody: what it said grows stale, and nobody else notices.
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    let hung = || {
        let qmp = metric(&lbx, "vm_qmp");
        qmp["stale"] == true && qmp["why"].as_str().is_some_and(|why| why.contains("no answer to"))
    };
    until(&lbx, "hung", hung);
    until(&lbx, "/proc goes on", || value(&lbx, "vm_cpu").is_some_and(|share| share < 0.05));
    let at = SocketAddr::new(addr::vip(0).v4.into(), 80);
    until(&lbx, "traffic to others", || {
        let answer = lab.client().ns.run(|| http::request(at, "GET", "/", b"")).unwrap();
        answer.is_ok_and(|answer| answer.vm == "vm2")
    });
    kill(Pid::from_raw(pid), Signal::SIGCONT).unwrap();
    until(&lbx, "awake", || value(&lbx, "vm_qmp").is_some() && metric(&lbx, "vm_qmp")["why"].is_null());

    // Gone is gone, and no crash.
    lab.vm_mut("vm1").unwrap().kill();
    until(&lbx, "gone", || lbx.json(&["load"]).unwrap()["vms"].as_array().unwrap().is_empty());
    assert!(lbx.output(&["load", "--vm", "vm1"]).unwrap().status.code() == Some(1));
    assert!(!lbx.log().contains("panicked"), "{}", lbx.log());
}
