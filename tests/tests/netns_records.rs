//! Records of labs, while other labs begin and end.

use std::thread;

use lbx_tests::lab::cleanup;
use lbx_tests::lab::record::Record;

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
