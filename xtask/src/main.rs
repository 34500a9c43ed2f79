//! `cargo xtask`: builds, sets up, demonstrates, tests and measures lbx.

fn main() {}
