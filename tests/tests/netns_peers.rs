//! Two hosts that know each other: each knows the VMs of the other, whoever has no right to speak is refused, and
//! a peer that is gone is told, not waited for.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lbx_tests::guest::announce::mac_text;
use lbx_tests::lab::config::{File, Service, Target};
use lbx_tests::lab::{Lab, LabSpec, Lbx, VmKind, addr};
use lbx_tests::scenario::host::narrow;
use lbx_tests::scenario::need_root;
use serde_json::Value;

/// Names of the hosts, in the order of the lab.
const NAMES: [&str; 2] = ["kvm1", "kvm2"];

/// A host's file: one target of its own, one on the other host, and the peers as `name` with files of `dir`.
fn config(lab: &Lab, host: usize, name: &str, dir: &Path) -> String {
    let target = |vm: &lbx_tests::lab::Vm| {
        if vm.host == host { Target::stand_in(host, 0) } else { Target::remote(vm) }
    };
    let service = Service::dsr("web", addr::vip(0), "tcp", 80, lab.vms.iter().map(target).collect());
    let at = |host: usize| format!("{}:9346", addr::host(host).v4);
    let (other, dir) = (1 - host, dir.display());
    let top = format!(
        "[peers]\nname = \"{name}\"\nlisten = \"{}\"\nca = \"{dir}/ca.pem\"\ncertificate = \"{dir}/{name}.pem\"\n\
         key = \"{dir}/{name}.key\"\n[[peer]]\nname = \"{}\"\naddress = \"{}\"\n",
        at(host),
        NAMES[other],
        at(other)
    );
    File { top, ..File::new(vec![service]) }.text()
}

fn peers(lbx: &Lbx) -> Value {
    lbx.json(&["peers"]).unwrap()
}

/// The only peer's row.
fn peer(lbx: &Lbx) -> Value {
    peers(lbx)["peers"][0].clone()
}

fn until(lbx: &[Lbx], what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        let say = |lbx: &Lbx| format!("{}\n{}", lbx.cli(&["peers"]).unwrap_or_default(), lbx.log());
        let story = || lbx.iter().map(say).collect::<Vec<_>>().join("\n---\n");
        assert!(start.elapsed() < Duration::from_secs(40), "{what}\n{}", story());
        std::thread::sleep(Duration::from_millis(20));
    }
    eprintln!("{what} after {:?}", start.elapsed());
}

fn refused(lbx: &Lbx, reason: &str) -> u64 {
    let all = peers(lbx);
    let rows = all["refused"].as_array().unwrap();
    rows.iter().find(|row| row["reason"] == reason).map_or(0, |row| row["count"].as_u64().unwrap())
}

#[test]
fn peers_are_told_heard_refused_and_missed() {
    need_root();
    let lab = Lab::start(LabSpec::hosts(&[1, 1], VmKind::StandIn)).unwrap();
    let dirs: Vec<PathBuf> = ["ca", "other-ca"].iter().map(|name| lab.record.dir().join(name)).collect();
    let (good, other) = (&dirs[0], &dirs[1]);
    let mut lbx: Vec<Lbx> =
        (0..2).map(|host| Lbx::new(&lab, host, &config(&lab, host, NAMES[host], good)).unwrap()).collect();

    // Certificates, the way an operator makes them.
    for dir in &dirs {
        let made = lbx[0].cli(&["peers", "init", dir.to_str().unwrap(), "kvm1", "kvm2", "kvm9"]).unwrap();
        assert!(made.contains("ca.key") && made.contains("[[peer]]"), "{made}");
    }
    let again = lbx[0].cli(&["peers", "init", good.to_str().unwrap(), "kvm1"]).unwrap();
    assert!(again.contains("everything already"), "{again}");

    // Nobody waits for the other one: the first serves alone.
    lbx[0].run().unwrap();
    until(&lbx[..1], "alone", || {
        peer(&lbx[0])["problem"].as_str().is_some_and(|why| why.contains("refused"))
    });
    lbx[1].run().unwrap();
    for n in 0..2 {
        until(&lbx, "up", || peer(&lbx[n])["state"] == "up");
        let vm = lab.vms.iter().find(|vm| vm.host != n).unwrap();
        until(&lbx, "the other's VM", || peer(&lbx[n])["vms"][0]["macs"][0] == mac_text(vm.mac).as_str());
    }
    let text = lbx[0].cli(&["peers"]).unwrap();
    narrow(&["peers"], &text);
    assert!(text.contains("this host is kvm1") && text.contains("kvm2"), "{text}");
    let socket = lbx[0].socket().unwrap();
    let socket = socket.to_str().unwrap();
    let metrics = std::process::Command::new("curl")
        .args(["-sS", "--unix-socket", socket, "http://lbx/metrics"])
        .output()
        .unwrap();
    let metrics = String::from_utf8_lossy(&metrics.stdout).into_owned();
    assert!(metrics.contains("lbx_peer_heard{peer=\"kvm2\"} 1"), "{metrics}");

    // Killed: reported at once, and back as soon as it runs again.
    lbx[1].kill().unwrap();
    until(&lbx[..1], "killed", || peer(&lbx[0])["state"] == "down");
    let status = lbx[0].cli(&["status"]).unwrap();
    assert!(status.contains("kvm2: not reached"), "{status}");
    lbx[1].run().unwrap();
    until(&lbx, "back", || peer(&lbx[0])["state"] == "up" && peer(&lbx[1])["state"] == "up");
    assert!(peer(&lbx[0])["heard"]["times"].as_u64() >= Some(2), "{}", peer(&lbx[0]));

    // The wrong CA, then the right one with a name that nobody lists.
    lbx[1].write_config(&config(&lab, 1, "kvm2", other)).unwrap();
    lbx[1].cli(&["reload"]).unwrap();
    until(&lbx, "refused by tls", || refused(&lbx[0], "tls") > 0 && peer(&lbx[0])["state"] == "down");
    lbx[1].write_config(&config(&lab, 1, "kvm9", good)).unwrap();
    lbx[1].cli(&["reload"]).unwrap();
    until(&lbx, "unlisted", || refused(&lbx[0], "unlisted") > 0);
    let knows = || peer(&lbx[1])["problem"].as_str().is_some_and(|why| why.contains("no [[peer]] of kvm1"));
    until(&lbx, "the refused one knows why", knows);

    // A reload with files that are not there changes nothing.
    lbx[1].write_config(&config(&lab, 1, "kvm7", good)).unwrap();
    let said = lbx[1].output(&["reload"]).unwrap();
    let error = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(!said.status.success() && error.contains("kvm7.pem"), "{error}");
    assert_eq!(peers(&lbx[1])["name"], "kvm9");

    lbx[1].write_config(&config(&lab, 1, NAMES[1], good)).unwrap();
    lbx[1].cli(&["reload"]).unwrap();
    until(&lbx, "up again", || peer(&lbx[0])["state"] == "up" && peer(&lbx[1])["state"] == "up");
}
