//! The `lbx` command: the daemon and its CLI.

use std::process::ExitCode;

fn main() -> ExitCode {
    lbx_user::cli::main()
}
