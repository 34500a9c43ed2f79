use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;

use super::*;
use crate::measure::catalogue::find;
use crate::measure::vm::Vm;

/// Answers as QEMU does, a balloon included, until it is told to hang.
async fn monitor(listener: UnixListener, hangs: Arc<AtomicBool>) {
    let (stream, _) = listener.accept().await.unwrap();
    let (input, mut output) = stream.into_split();
    let mut lines = BufReader::new(input).lines();
    output.write_all(b"{\"QMP\": {\"version\": {}}}\n").await.unwrap();
    let mut updates = 0;
    while let Ok(Some(line)) = lines.next_line().await {
        while hangs.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let asked: Value = serde_json::from_str(&line).unwrap();
        let arguments = &asked["arguments"];
        let value = match (asked["execute"].as_str().unwrap(), arguments["property"].as_str()) {
            ("qom-list", _) => json!([{ "name": "b0", "type": "child<virtio-balloon-pci>" }]),
            ("qom-get", Some("guest-stats-polling-interval")) => json!(0),
            ("qom-set", _) => {
                assert_eq!(
                    (&arguments["value"], &arguments["path"]),
                    (&json!(1), &json!("/machine/peripheral/b0"))
                );
                json!({})
            }
            ("qom-get", _) => {
                updates += 1;
                let stats = json!({ "stat-total-memory": 100, "stat-available-memory": 25 });
                json!({ "last-update": updates, "stats": stats })
            }
            ("query-cpus-fast", _) => json!([{ "cpu-index": 0, "thread-id": 12 }, { "thread-id": 9 }]),
            _ => json!({}),
        };
        let answer = json!({ "return": value, "id": asked["id"] }).to_string() + "\n";
        if output.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn plan(qmp: Option<PathBuf>) -> Plan {
    let vm = Vm { name: "web-1".into(), pid: 1, start_time: 1, qmp, ..Vm::default() };
    Plan { every: Duration::from_millis(20), vms: vec![vm], uplinks: Vec::new() }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_monitor_that_hangs_is_waited_for_and_said_to_hang() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qmp");
    let hangs = Arc::new(AtomicBool::new(false));
    let server = tokio::spawn(monitor(UnixListener::bind(&path).unwrap(), hangs.clone()));
    let (board, told) = (Shared::default(), Told::default());
    let (sender, plans) = watch::channel(plan(Some(path.clone())));
    let watching = tokio::spawn(watch(plans, board.clone(), told.clone(), None));
    let get = |metric: &str| board.lock().get(find(metric).unwrap(), "web-1");
    let why = |metric: &str| {
        board.lock().why_missing(find(metric).unwrap(), "web-1").map(ToOwned::to_owned).unwrap_or_default()
    };
    until("first readings", || get("vm_qmp").is_some() && get("vm_memory").is_some()).await;
    assert!((get("vm_memory").unwrap().value - 0.75).abs() < 1e-9);
    assert_eq!(told.of(&plan(None).vms[0]), ["9", "12"]);
    until("paging", || why("vm_paging").contains("does not say")).await;

    hangs.store(true, Ordering::SeqCst);
    until("hanging", || why("vm_qmp").contains("no answer to") && why("vm_memory").contains(" s")).await;
    let last = get("vm_qmp").unwrap();
    hangs.store(false, Ordering::SeqCst);
    // The answer that was outstanding counts, with all the time it took.
    until("awake", || why("vm_qmp").is_empty() && get("vm_qmp").unwrap().at > last.at).await;

    server.abort();
    let socket = path.display().to_string();
    until("its end", || why("vm_qmp").starts_with(&socket)).await;
    drop(sender);
    watching.await.unwrap();
}
