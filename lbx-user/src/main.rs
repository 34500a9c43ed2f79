//! The `lbx` command: the daemon and its CLI.

fn main() {}
