//! VLANs, in a guest: this machine's bridges may not be able to filter them.

use std::time::Duration;

use lbx_tests::lab::nested::{self, Program};

#[test]
fn vlans_hold_for_steered_frames() {
    let programs = [Program::test("nested").only(&["vlan::"])];
    let ran = nested::run("6.12", &programs, Duration::from_mins(14)).unwrap();
    ran.expect(2);
}
