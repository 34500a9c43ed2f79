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
    // Each lost datagram is where it can be: dropped and counted by lbx, or in the ring that the guest left. Where the
    // machine has no time for a ring, it is full, and counts frames of all kinds: no more than these are uncertain.
    let losses = figures.losses;
    assert!(losses.unexplained <= losses.full, "{losses:?}");
}

#[test]
fn what_is_sent_to_a_guest_that_is_stopped_waits_where_it_goes() {
    need_root();
    let held = migrate::hold(1).unwrap();
    assert!(held.waited > 0 && held.pause.min() >= 200.0, "{held:?}");
    assert_eq!(held.disordered, 0, "{held:?}");
    assert!(held.lost() <= held.losses.full, "{held:?}");
}
