//! Other kernels than this machine's, booted in a guest: each loads every program of the datapath, attaches it the
//! way it can, runs packets through it, and keeps nothing after a detach.

use std::time::Duration;

use lbx_tests::lab::nested::{self, Program};

/// One test for each group of programs: loading all of them is what takes the time.
fn tested_on(series: &str) {
    let packets = [
        "nat::every_checksum_comes_out_right",
        "headers::nat_translates_every_fragment_and_the_checksum_once",
        "icmp::nat_translates_an_error_on_the_way_back",
    ];
    let programs = [Program::test("nested").only(&["kernel::"]), Program::test("bpf").only(&packets)];
    nested::run(series, &programs, Duration::from_mins(14)).unwrap().expect(4);
}

#[test]
fn the_long_term_6_12() {
    tested_on("6.12");
}
