//! What measuring lives on is missing: no types of the kernel, no fdinfo of a VM's process, then no tap. Traffic goes on,
//! what is not known is said to be, and nothing crashes.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use lbx_tests::lab::client::http;
use lbx_tests::lab::config::{File, Service, Target};
use lbx_tests::lab::offload::Offloads;
use lbx_tests::lab::{Lab, LabSpec, Lbx, VmKind, VmSpec, addr, tools};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

/// Far more than it takes, for machines that have other things to do.
const PATIENCE: Duration = Duration::from_mins(1);

/// Polls: how long it takes is the machine's affair.
fn until(lbx: &Lbx, what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        let told = ["queues", "load", "targets"].map(|verb| lbx.cli(&[verb]).unwrap_or_default()).join("\n");
        assert!(Instant::now() < deadline, "{what}\n{told}\n{}", lbx.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Covers a directory with an empty one, for this thread and whoever it starts.
fn hide(path: &Path) {
    let none = None::<&str>;
    mount(Some("none"), path, Some("tmpfs"), MsFlags::empty(), none).unwrap();
}

fn rows(lbx: &Lbx, verb: &str, of: &str) -> Vec<Value> {
    lbx.json(&[verb]).unwrap()[of].as_array().unwrap().clone()
}

#[test]
fn traffic_goes_on_without_types_without_fdinfo_and_without_a_tap() {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root: it makes network namespaces and taps");
    let mut spec = LabSpec::one_host(1, VmKind::Guest);
    spec.hosts[0].vms.push(VmSpec::stand_in("vm2"));
    spec.clients[0].offloads = Offloads::sender(false);
    let lab = Lab::start(spec).unwrap();
    let (guest, pid) = (&lab.vms[0], lab.vms[0].pid().unwrap());
    let fdinfo = format!("/proc/{pid}/fdinfo");
    // What is mounted from here on nobody else sees.
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    hide(Path::new("/sys/kernel/btf"));
    hide(Path::new(&fdinfo));

    let targets = vec![Target::local(&guest.port, guest.addr), Target::stand_in(0, 1)];
    let mut web = Service::dsr("web", addr::vip(0), "tcp", 80, targets);
    web.keys = String::from("weights = \"adaptive\"");
    let file =
        File { top: "[measure]\nload = \"200ms\"\n".into(), xdp: "auto", ..File::of_guests(vec![web]) };
    let lbx = Lbx::start(&lab, 0, &file.text()).unwrap();
    let at = SocketAddr::new(addr::vip(0).v4.into(), 80);
    let ask =
        || lab.client().ns.run(|| http::request(at, "GET", "/", b"")).unwrap().map(|answer| answer.vm).ok();
    until(&lbx, "the guest answers", || ask().as_deref() == Some("vm1"));
    until(&lbx, "the stand-in answers", || ask().as_deref() == Some("vm2"));

    // Rings cannot be found without the kernel's types: packets are counted, and that is said.
    let port = guest.port.as_str();
    let counted = || {
        let queues = lbx.json(&["queues"]).unwrap();
        let own = queues["queues"].as_array().unwrap().iter().find(|row| row["nic"] == port).cloned();
        queues["problem"].is_string()
            && own.is_some_and(|row| row["source"] != "tap ring" && row["stale"] == false)
    };
    until(&lbx, "packets are counted", counted);
    // Whose tap it is cannot be found out.
    assert_eq!(rows(&lbx, "load", "vms"), Vec::<Value>::new());
    umount2(Path::new(&fdinfo), MntFlags::empty()).unwrap();
    until(&lbx, "the VM is known", || rows(&lbx, "load", "vms").iter().any(|vm| vm["name"] == "vm1"));

    // The tap goes, and with it the target: whoever is left serves.
    tools::ip(&lab.host().ns, &[format!("link del {port}")]).unwrap();
    until(&lbx, "no queue of a tap that is gone", || {
        rows(&lbx, "queues", "queues").iter().all(|row| row["nic"] != port)
    });
    until(&lbx, "the rest serves all", || (0..20).all(|_| ask().as_deref() == Some("vm2")));
    let log = lbx.log();
    assert!(!log.contains("panicked"), "{log}");
}
