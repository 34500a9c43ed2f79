//! A migration that fails while the guest is stopped: traffic is right again within a second, and nothing is left. All the
//! other ways and phases: `cargo xtask bench failures`.

use lbx_tests::bench::failures::{Failure, Phase, cell};
use lbx_tests::scenario::need_root;

#[test]
fn the_source_is_killed_while_the_guest_is_stopped() {
    need_root();
    let outcome = cell(Failure::SourceKilled, Phase::Stopped).unwrap();
    eprintln!("{outcome:?}");
    // How soon is the bench's to say, on a machine that does nothing else.
    assert!(outcome.right_after.is_some(), "{outcome:?}");
    assert!(outcome.wrong.is_empty(), "{outcome:?}");
}
