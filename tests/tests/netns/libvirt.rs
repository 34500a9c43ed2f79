//! Real libvirt daemons: what they say of VMs, and live migrations between two of them as lbx hears of them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lbx_common::migration::{Place, Source, What};
use lbx_tests::lab::{Lab, LabSpec, Lbx, Libvirtd, VmKind};
use lbx_tests::scenario::host::{head, service};
use lbx_tests::scenario::need_root;
use lbx_user::host::libvirt::session::Incoming;
use lbx_user::host::libvirt::{Change, Notice, Session, Sources, Why, wanted};
use lbx_user::migration::{Stream, Told};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{sleep, timeout};

const UUID: &str = "6c627802-0000-4000-8000-000000000001";
const MAC: &str = "02:77:00:00:0f:01";
/// Long enough for a machine that is busy with other things.
const LIMIT: Duration = Duration::from_mins(1);

/// Listens to one daemon as `lbx run` does.
fn listen(socket: &Path) -> (Sources, UnboundedReceiver<Told>) {
    let (stream, told) = Stream::new();
    let mut sources = Sources::default();
    sources.follow(wanted(Some(&[socket.to_owned()])), &stream);
    (sources, told)
}

async fn until_connected(sources: &Sources, times: u64) {
    let connected = async {
        while !sources.shown().iter().all(|one| one.connects == times && one.version.is_some()) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = timeout(LIMIT, connected).await;
    assert!(in_time.is_ok(), "{:?}", sources.shown());
}

/// What is told up to and with `last`, each once however often it is repeated.
async fn told_until(told: &mut UnboundedReceiver<Told>, last: What) -> Vec<What> {
    let mut all: Vec<What> = Vec::new();
    let until_last = async {
        while all.last() != Some(&last) {
            let one = told.recv().await.unwrap();
            assert_eq!((one.vm.name.as_deref(), one.vm.uuid.as_deref()), (Some("vm1"), Some(UUID)));
            assert_eq!(one.event.source, Source::Libvirt);
            if all.last() != Some(&one.event.what) {
                all.push(one.event.what);
            }
        }
    };
    let in_time = timeout(LIMIT, until_last).await;
    assert!(in_time.is_ok(), "no {last:?} after {all:?}");
    all
}

/// Waits for a change in the VM's life (a VM that boots is also told to be resumed); counts passes over its memory.
async fn until_change(session: &mut Session, passes: &mut usize, awaited: Change) {
    let change = async {
        loop {
            match session.next().await.unwrap() {
                Incoming::Notice(Notice::Lifecycle(domain, change)) => {
                    assert_eq!((domain.name.as_str(), domain.uuid_text().as_str()), ("vm1", UUID));
                    if change == awaited {
                        return;
                    }
                }
                Incoming::Notice(Notice::Iteration(..)) => *passes += 1,
                _ => {}
            }
        }
    };
    assert!(timeout(LIMIT, change).await.is_ok(), "libvirt does not say {awaited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_a_vm_is_heard_and_is_no_migration() {
    need_root();
    let lab = Lab::start(LabSpec::one_host(0, VmKind::Guest)).unwrap();
    let libvirt = Libvirtd::start(&lab, 0).unwrap();
    let (sources, mut told) = listen(&libvirt.socket());
    until_connected(&sources, 1).await;
    let mut session = Session::open(&libvirt.socket()).await.unwrap();
    assert!(session.running.is_empty() && session.version.contains('.'), "{session:?}");

    let mut passes = 0;
    libvirt.create("vm1", UUID, MAC).unwrap();
    until_change(&mut session, &mut passes, Change::Started(Why::Other(0))).await;
    let file = lab.record.dir().join("saved").display().to_string();
    let expected = [
        (["suspend", "vm1"].as_slice(), Change::Suspended(Why::Other(0))),
        (&["resume", "vm1"], Change::Resumed(Why::Other(0))),
        // Its memory goes into a file the way it goes to another host.
        (&["save", "vm1", &file], Change::Suspended(Why::Other(0))),
    ];
    for (words, change) in expected {
        let begun = Instant::now();
        libvirt.run(words).unwrap();
        until_change(&mut session, &mut passes, change).await;
        eprintln!("{words:?}: {:?}", begun.elapsed());
    }
    until_change(&mut session, &mut passes, Change::Stopped(Why::Other(4))).await;
    assert!(passes > 0, "libvirt tells of saving as of migrating");
    libvirt.create("vm1", UUID, MAC).unwrap();
    until_change(&mut session, &mut passes, Change::Started(Why::Other(0))).await;
    libvirt.run(&["destroy", "vm1"]).unwrap();
    until_change(&mut session, &mut passes, Change::Stopped(Why::Other(1))).await;
    assert!(told.try_recv().is_err(), "none of this is a migration");
    let shown = sources.shown();
    assert!(shown[0].notices >= 7 && shown[0].told == 0, "{shown:?}");
}

#[test]
fn the_hook_announces_and_never_keeps_libvirt_waiting() {
    let hook = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/libvirt/qemu-hook");
    let dir = tempfile::tempdir().unwrap();
    let program = |body: &str| {
        let file = dir.path().join("lbx");
        std::fs::write(&file, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    let said = dir.path().join("said");
    let call = |operation: &str| {
        let mut hook = Command::new(&hook);
        hook.args(["vm1", operation, "begin", "-"]).stdin(Stdio::null());
        let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
        let out = hook.env("PATH", path).output().unwrap();
        assert!(out.status.success() && out.stdout.is_empty() && out.stderr.is_empty(), "{out:?}");
        std::fs::read_to_string(&said).unwrap_or_default()
    };
    program(&format!("echo \"$@\" >> {}; echo noise; exit 1", said.display()));
    assert_eq!(call("start"), "");
    assert_eq!(call("migrate"), "migration announce -- vm1\n");
    // It hangs: killed after two seconds, and a busy machine has its time on top.
    program("exec sleep 300");
    let begun = Instant::now();
    call("migrate");
    assert!(begun.elapsed() < Duration::from_mins(1), "{:?}", begun.elapsed());
}

/// lbx on a host, with the VM as its target.
fn lbx(lab: &Lab, host: usize, libvirt: &Libvirtd) -> Lbx {
    let sockets = format!("[libvirt]\nsockets = [\"{}\"]\n", libvirt.socket().display());
    let target = "[[service.target]]\nvm = \"vm1\"\naddress = \"10.77.0.11\"\n";
    let text = format!("{}{sockets}{}{target}", head(), service("web", 0, "dsr", 80));
    Lbx::start(lab, host, &text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn live_migration_between_two_daemons() {
    need_root();
    let lab = Lab::start(LabSpec::hosts(&[0, 0], VmKind::Guest)).unwrap();
    let mut daemons = [0, 1].map(|host| Libvirtd::start(&lab, host).unwrap());
    let products = [0, 1].map(|host| lbx(&lab, host, &daemons[host]));
    let (source, mut leaves) = listen(&daemons[0].socket());
    let (destination, mut comes) = listen(&daemons[1].socket());
    until_connected(&source, 1).await;
    until_connected(&destination, 1).await;
    daemons[0].create("vm1", UUID, MAC).unwrap();

    // Given up before it was stopped: libvirt says nothing of that to the source.
    let (to, way) = (daemons[1].uri(), format!("tcp://{}", lab.hosts[1].addr.v4));
    let mut slow = daemons[0].virsh(&["migrate", "--live", "--bandwidth", "1", "vm1", &to, &way]);
    let mut slow = slow.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    assert_eq!(told_until(&mut leaves, What::Transferring).await, [What::Transferring]);
    daemons[0].run(&["domjobabort", "vm1"]).unwrap();
    assert!(!slow.wait().unwrap().success());
    assert_eq!(told_until(&mut leaves, What::Failed).await.last(), Some(&What::Failed));
    assert_eq!(told_until(&mut comes, What::Failed).await, [What::Expected, What::Failed]);

    let begun = Instant::now();
    daemons[0].run(&["migrate", "--live", "vm1", &to, &way]).unwrap();
    eprintln!("migrated in {:?}", begun.elapsed());
    let expected = [What::Transferring, What::Stopped, What::Done(Place::There)];
    let mut seen = told_until(&mut leaves, What::Done(Place::There)).await;
    seen.retain(|what| *what != What::Resumed(Place::There));
    assert_eq!(seen, expected);
    let expected = [What::Expected, What::Resumed(Place::Here), What::Done(Place::Here)];
    assert_eq!(told_until(&mut comes, What::Done(Place::Here)).await, expected);
    assert!(daemons[1].run(&["list"]).unwrap().contains("vm1"), "{}", daemons[1].log());

    // So says lbx on both hosts, of the migration that was given up and of the other.
    for (lbx, role, end) in [(&products[0], "source", "there"), (&products[1], "destination", "here")] {
        let deadline = Instant::now() + LIMIT;
        let ends = || {
            let all = lbx.json(&["migrations"]).unwrap();
            let all = all["migrations"].as_array().unwrap().clone();
            let mine = all.into_iter().filter(|one| one["role"] == role);
            mine.map(|one| format!("{} {}", one["phase"], one["place"])).collect::<Vec<_>>()
        };
        let done = format!("\"done\" \"{end}\"");
        let as_expected =
            |ends: &[String]| matches!(ends, [first, second] if first.contains("failed") && *second == done);
        while !as_expected(&ends()) {
            assert!(Instant::now() < deadline, "{role}: {:?}\n{}", ends(), lbx.log());
            sleep(Duration::from_millis(50)).await;
        }
        let status = lbx.json(&["status"]).unwrap();
        let heard = &status["libvirt"][0];
        assert!(heard["version"].is_string() && heard["events"].as_u64() >= Some(4), "{status}");
    }
    // Whether anything else is wrong with the host does not matter here.
    let doctor = products[0].output(&["--json", "doctor"]).unwrap();
    let text = String::from_utf8_lossy(&doctor.stdout);
    assert!(text.contains("its news of migrations are followed"), "{text}");

    // A daemon that is killed is listened to again once it is back.
    daemons[0].kill().unwrap();
    let lost = async {
        while source.shown()[0].error.is_none() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, lost).await.unwrap();
    daemons[0].restart().unwrap();
    until_connected(&source, 2).await;
}
