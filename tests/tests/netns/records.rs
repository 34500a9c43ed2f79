//! Records of labs, while other labs begin and end.

use std::process::Command;
use std::thread;
use std::time::Duration;

use lbx_tests::lab::cleanup;
use lbx_tests::lab::process::{Process, start_time};
use lbx_tests::lab::record::Record;
use lbx_tests::scenario::eventually;

/// Every lab gets its record, however many others begin, end and look for leftovers at the same moment.
#[test]
fn labs_that_begin_while_others_end_all_get_a_record() {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root: it writes below /run");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..150 {
                    let record = Record::create().unwrap_or_else(|error| panic!("record {n}: {error:#}"));
                    assert!(record.dir().join("owner").exists());
                    cleanup::remove(record.dir()).unwrap();
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..300 {
                    cleanup::gc().unwrap();
                }
            });
        }
    });
}

/// A server's workers end with it, whether the lab ends it or whoever removes what a lab left.
#[test]
fn what_a_process_has_started_ends_with_it() {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root: it writes below /run");
    let within = Duration::from_secs(20);
    for by_record in [false, true] {
        let record = Record::create().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & echo $!; wait"]);
        let mut parent = Process::spawn(&record, "parent", command).unwrap();
        let mut worker = None;
        let started = eventually(within, || {
            worker = parent.log().trim().parse::<i32>().ok();
            Ok(worker.and_then(start_time).is_some())
        });
        assert!(started.unwrap(), "it has a child");
        if by_record {
            cleanup::remove(record.dir()).unwrap();
        } else {
            parent.kill().unwrap();
        }
        let gone = eventually(within, || Ok(worker.and_then(start_time).is_none()));
        assert!(gone.unwrap(), "its child outlives it, by record: {by_record}");
        drop(parent);
        cleanup::remove(record.dir()).unwrap();
    }
}
