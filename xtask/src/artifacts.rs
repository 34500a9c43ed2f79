//! Finished programs, and the environment that tells labs and tests where they are.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::process::Cmd;
use crate::setup::toolchain;
use crate::{build, paths};

/// Target of the static guest: named, so that `RUSTFLAGS` do not reach build scripts and macros.
const GUEST_TARGET: &str = "x86_64-unknown-linux-gnu";

/// The directory of finished programs of a profile.
pub fn dir(release: bool) -> PathBuf {
    paths::target().join(if release { "release" } else { "debug" })
}

/// The static init of the lab's guests.
pub fn guest() -> PathBuf {
    paths::target().join(GUEST_TARGET).join("debug/lbx-guest")
}

/// What labs, tests and benches find in their environment.
pub fn env(release: bool) -> Vec<(&'static str, PathBuf)> {
    let dir = dir(release);
    vec![
        ("LBX_BIN", dir.join("lbx")),
        ("LBX_LAB", dir.join("lbx-lab")),
        ("LBX_GUEST", guest()),
        ("LBX_EBPF_OBJECT", paths::ebpf_object()),
        ("LBX_MEASURE_OBJECT", paths::measure_object()),
        ("LBX_BENCH_OBJECT", build::bench_object()),
        ("LBX_CACHE", paths::cache()),
    ]
}

/// The lab program, as root, with its environment.
pub fn lab(release: bool) -> Cmd {
    Cmd::new(dir(release).join("lbx-lab")).envs(&env(release)).root()
}

/// Builds the static guest.
///
/// # Errors
/// When it does not build.
pub fn build_guest() -> Result<()> {
    Cmd::cargo(["build", "--target", GUEST_TARGET, "-p", "lbx-tests", "--bin", "lbx-guest"])
        // Emulated, and slower by an order of magnitude: here optimising pays.
        .args(["--config", "profile.dev.package.lbx-tests.opt-level=1"])
        .unset("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .run()
}

/// Whether a guest kernel has been prepared (by `lbx-lab setup-image`).
pub fn guest_kernel_is_there() -> bool {
    std::fs::read_dir(paths::cache()).is_ok_and(|entries| {
        entries
            .filter_map(Result::ok)
            .any(|entry| entry.file_name().to_string_lossy().starts_with("guest-kernel"))
    })
}

/// Fetches and prepares the guest kernel, as the user: it goes into the user's cache.
///
/// # Errors
/// When it cannot be fetched.
pub fn setup_image() -> Result<()> {
    let lab = || Cmd::new(dir(false).join("lbx-lab")).arg("setup-image").env("LBX_CACHE", paths::cache());
    toolchain::retry(|| lab().run())
}

/// Fails when labs, tests or the demo have left anything on the machine.
///
/// # Errors
/// Then, and when it cannot be found out.
pub fn nothing_left(release: bool) -> Result<()> {
    let looked =
        Cmd::new(dir(release).join("lbx-lab")).arg("left").arg(paths::target()).root().cleanup().run();
    looked.context("something was left behind")
}

/// Removes the labs that a killed run left behind.
///
/// # Errors
/// When the cleaning fails.
pub fn clean_leftovers(release: bool) -> Result<()> {
    Cmd::new(dir(release).join("lbx-lab")).arg("gc").root().run()
}
