//! A wall's clock that is set, hours on and hours back: in a guest, whose clock is its own.

use std::time::Duration;

use lbx_tests::lab::nested::{self, Program};

#[test]
fn nobody_minds_a_clock_that_is_set() {
    let ran = nested::run("6.12", &[Program::test("nested_clock")], Duration::from_mins(14)).unwrap();
    ran.expect(1);
}
