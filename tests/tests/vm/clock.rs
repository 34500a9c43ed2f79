//! A wall's clock that is set, hours on and hours back: in a guest, whose clock is its own.

use std::time::Duration;

use lbx_tests::lab::nested::{self, Program};

#[test]
fn nobody_minds_a_clock_that_is_set() {
    let programs = [Program::test("nested").only(&["clock::"])];
    let ran = nested::run("6.12", &programs, Duration::from_mins(14)).unwrap();
    ran.expect(1);
}
