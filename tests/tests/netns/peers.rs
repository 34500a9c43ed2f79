//! Two hosts that know each other: each knows the VMs of the other and hears of their migrations, whoever has no right
//! to speak is refused, and a peer that is gone is told, not waited for.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use lbx_tests::guest::announce::mac_text;
use lbx_tests::lab::config::{File, Service, Target};
use lbx_tests::lab::{Lab, LabSpec, Lbx, VmKind, addr};
use lbx_tests::scenario::host::narrow;
use lbx_tests::scenario::need_root;
use lbx_tests::scenario::peers::{certificates, name, top, until};
use serde_json::Value;

/// A host's file: its own stand-ins and those of the other host as targets, and the peers as `name` with files of `dir`.
fn config(lab: &Lab, host: usize, name: &str, dir: &Path) -> String {
    let local =
        lab.vms.iter().filter(|vm| vm.host == host).enumerate().map(|(n, _)| Target::stand_in(host, n));
    let remote = lab.vms.iter().filter(|vm| vm.host != host).map(Target::remote);
    let service = Service::dsr("web", addr::vip(0), "tcp", 80, local.chain(remote).collect());
    File { top: top(lab, host, name, dir), ..File::new(vec![service]) }.text()
}

fn peers(lbx: &Lbx) -> Value {
    lbx.json(&["peers"]).unwrap()
}

/// The only peer's row.
fn peer(lbx: &Lbx) -> Value {
    peers(lbx)["peers"][0].clone()
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
        (0..2).map(|host| Lbx::new(&lab, host, &config(&lab, host, &name(host), good)).unwrap()).collect();

    // Certificates, the way an operator makes them.
    for dir in &dirs {
        let made = certificates(&lbx[0], dir, &["kvm1", "kvm2", "kvm9"]).unwrap();
        assert!(made.contains("ca.key") && made.contains("[[peer]]"), "{made}");
    }
    let again = certificates(&lbx[0], good, &["kvm1"]).unwrap();
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

    lbx[1].write_config(&config(&lab, 1, "kvm2", good)).unwrap();
    lbx[1].cli(&["reload"]).unwrap();
    until(&lbx, "up again", || peer(&lbx[0])["state"] == "up" && peer(&lbx[1])["state"] == "up");
}

/// State and owner of the target on a host.
fn state(lbx: &Lbx, target: &str) -> (String, String) {
    let all = lbx.json(&["targets"]).unwrap();
    let row = all["targets"].as_array().unwrap().iter().find(|row| row["name"] == target).cloned();
    let text = |key: &str| row.as_ref().and_then(|row| row[key].as_str()).unwrap_or_default().to_owned();
    (text("effective"), text("by"))
}

/// What a host's last record says: who spoke, and what of it was news.
fn record(lbx: &Lbx) -> (Value, BTreeSet<String>, Vec<String>) {
    let all = lbx.json(&["migrations"]).unwrap();
    let last = all["migrations"].as_array().unwrap().last().cloned().unwrap_or_default();
    let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let events = last["events"].as_array().cloned().unwrap_or_default();
    let sources = events.iter().map(|event| text(event, "source")).collect();
    let news = events.iter().filter(|event| event["heard"] == "news").map(|event| text(event, "event"));
    (last.clone(), sources, news.collect())
}

#[test]
fn a_migration_is_known_on_the_other_host_from_its_start_to_its_end() {
    need_root();
    let lab = Lab::start(LabSpec::hosts(&[2, 2], VmKind::StandIn)).unwrap();
    let dir = lab.record.dir().join("ca");
    let mut lbx: Vec<Lbx> =
        (0..2).map(|host| Lbx::new(&lab, host, &config(&lab, host, &name(host), &dir)).unwrap()).collect();
    certificates(&lbx[0], &dir, &["kvm1", "kvm2"]).unwrap();
    for lbx in &mut lbx {
        lbx.run().unwrap();
    }
    until(&lbx, "up", || lbx.iter().all(|lbx| peer(lbx)["state"] == "up"));
    // The first VM of the first host, as the second one knows it.
    let there = format!("web/{}", mac_text(lab.vms[0].mac));
    let tell = |lbx: &[Lbx], words: &[&str]| lbx[0].cli(&[&["migration"], words].concat()).unwrap();
    let is = |lbx: &[Lbx], wanted: &str| until(lbx, wanted, || state(&lbx[1], &there).0 == wanted);

    tell(&lbx, &["announce", "vif0", "--to", "kvm2"]);
    is(&lbx, "draining");
    assert_eq!(state(&lbx[1], &there).1, "migration");
    // Its own port of the same name is another VM.
    assert_eq!(state(&lbx[1], "web/vif0").0, "active");
    tell(&lbx, &["transferring", "vif0"]);
    tell(&lbx, &["stopped", "vif0"]);
    is(&lbx, "blackholed");
    tell(&lbx, &["cancelled", "vif0"]);
    is(&lbx, "active");
    let (last, sources, news) = record(&lbx[1]);
    assert_eq!(last["role"], "bystander", "{last}");
    assert_eq!(sources, BTreeSet::from(["peer".to_owned()]), "{last}");
    assert_eq!(news, ["announced", "transferring", "stopped", "cancelled"], "{last}");

    // The second host's daemon is away when it ends: it hears of the end when it is back.
    tell(&lbx, &["announce", "vif0"]);
    is(&lbx, "draining");
    lbx[1].kill().unwrap();
    tell(&lbx, &["failed", "vif0"]);
    lbx[1].run().unwrap();
    is(&lbx, "active");
    // The first host's daemon dies in the middle; the next one tells the end.
    tell(&lbx, &["announce", "vif0"]);
    is(&lbx, "draining");
    lbx[0].kill().unwrap();
    until(&lbx[1..], "missed", || peer(&lbx[1])["state"] == "down");
    assert_eq!(state(&lbx[1], &there).0, "draining", "nothing was said of an end");
    lbx[0].run().unwrap();
    tell(&lbx, &["cancelled", "vif0"]);
    is(&lbx, "active");

    // To its end. Where it is now it has the same MAC.
    for words in [&["announce", "vif0"][..], &["stopped", "vif0"]] {
        tell(&lbx, words);
    }
    is(&lbx, "blackholed");
    for verb in ["resumed", "done"] {
        tell(&lbx, &[verb, "vif0", "--where", "there", "--host", "kvm2"]);
    }
    is(&lbx, "active");
    until(&lbx, "done", || record(&lbx[1]).0["phase"] == "done");
    let (last, ..) = record(&lbx[1]);
    assert_eq!(last["host"], "kvm1", "where it came from: {last}");
    // Nothing comes back: the first host heard its operator alone.
    let (last, sources, _) = record(&lbx[0]);
    assert_eq!(sources, BTreeSet::from(["operator".to_owned()]), "{last}");
}
