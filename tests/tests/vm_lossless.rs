//! Hosts that hear their monitors and tell each other: a busy guest migrates there and back, and no client notices.

use lbx_tests::bench::migrate;
use lbx_tests::scenario::need_root;

#[test]
fn nothing_breaks_when_a_guest_goes_and_comes_back() {
    need_root();
    let figures = migrate::aware(1).unwrap();
    assert_eq!(figures.migrations, 2);
    assert!(figures.long > 0 && figures.requests > 0 && figures.fresh > 0, "nobody asked anything");
    let broken = [figures.broken, figures.failed, figures.fresh_failed];
    assert_eq!(broken, [0; 3], "long connections, requests on connections that stay, new connections");
}
