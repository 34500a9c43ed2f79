//! `cargo xtask build`: the kernel program, then the user-space crates with it inside.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process::Cmd;
use crate::setup::toolchain;
use crate::{paths, user};

/// What every command for user space selects: always the same packages and features, because another selection
/// resolves other features, and with them builds `lbx` and half of its dependencies once more.
const SELECTION: [&str; 5] = ["--workspace", "--exclude", "lbx-ebpf", "--features", "lbx-tests/privileged"];

/// The BPF target; little-endian, as every machine that the labs run on.
const EBPF_TARGET: &str = "bpfel-unknown-none";

/// Arguments of `build`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Optimise the user-space programs (the kernel program always is)
    #[arg(long)]
    release: bool,
    /// Let the kernel program log; costs hundreds of nanoseconds a packet
    #[arg(long)]
    debug_log: bool,
}

/// Runs the verb.
///
/// # Errors
/// When something does not build.
pub fn run(args: &Args) -> Result<()> {
    everything(args.release, args.debug_log)?;
    println!("built {}", crate::artifacts::dir(args.release).join("lbx").display());
    Ok(())
}

/// Builds the kernel program, `lbx` with it inside, and the lab program.
///
/// # Errors
/// When something does not build.
pub fn everything(release: bool, debug_log: bool) -> Result<()> {
    ebpf(debug_log)?;
    user_space(release, &["--bin", "lbx", "--bin", "lbx-lab"])
}

/// Builds the kernel programs and copies them to `target/lbx-ebpf.o` and `target/lbx-ebpf-measure.o`.
///
/// # Errors
/// When the toolchain is missing or the program does not build.
pub fn ebpf(debug_log: bool) -> Result<()> {
    user::give_back_target()?;
    toolchain::require_ebpf()?;
    let mut cmd = ebpf_cargo("build").args(["--release", "-Z", "build-std=core"]);
    if debug_log {
        cmd = cmd.args(["--features", "log"]);
    }
    cmd.run().context("the kernel program did not build")?;
    let built = paths::target().join("ebpf").join(EBPF_TARGET).join("release");
    publish(&built.join("lbx-ebpf"), &paths::ebpf_object())?;
    publish(&built.join("lbx-ebpf-measure"), &paths::measure_object())
}

/// The measuring programs, which are built with the kernel program. Read when a bench runs, embedded nowhere.
pub fn bench_object() -> PathBuf {
    paths::target().join("ebpf").join(EBPF_TARGET).join("release/lbx-ebpf-bench")
}

/// `cargo VERB` for the kernel program on its own target, with a target directory of its own.
pub fn ebpf_cargo(verb: &str) -> Cmd {
    Cmd::cargo([verb, "-p", "lbx-ebpf", "--target", EBPF_TARGET])
        .path_first(paths::tools().join("bin"))
        // Stable with build-std: core has to be compiled for a target that ships none.
        .env("RUSTC_BOOTSTRAP", "1")
        // The target's flags are in .cargo/config.toml, which gives way to a RUSTFLAGS meant for this machine.
        .unset("RUSTFLAGS")
        .unset("CARGO_ENCODED_RUSTFLAGS")
        // Incremental builds cut the program into units: less is inlined, and stacks grow beyond what is allowed.
        .env("CARGO_INCREMENTAL", "0")
        .env("CARGO_TARGET_DIR", paths::target().join("ebpf"))
}

/// Copies the object only when it differs: cargo rebuilds `lbx` when the file's time changes.
fn publish(built: &Path, object: &Path) -> Result<()> {
    let bytes = fs::read(built).with_context(|| format!("cargo left no {}", built.display()))?;
    if !bytes.starts_with(b"\x7fELF") {
        bail!("{} is no ELF object", built.display());
    }
    if fs::read(object).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    // Through a second file: a kill in between must not leave half an object for the next build to embed.
    let fresh = object.with_extension("o.new");
    fs::write(&fresh, bytes)?;
    fs::rename(&fresh, object)?;
    user::give_back_target()
}

/// Builds user-space programs, with the kernel program inside when it has been built.
///
/// # Errors
/// When something does not build.
pub fn user_space(release: bool, what: &[&str]) -> Result<()> {
    user::give_back_target()?;
    let profile: &[&str] = if release { &["--release"] } else { &[] };
    cargo("build").args(profile).args(what).run()
}

/// `cargo VERB` for user space.
pub fn cargo(verb: &str) -> Cmd {
    with_object(Cmd::cargo([verb]).args(SELECTION))
}

/// Tells `lbx-user/build.rs` where the kernel programs are; the same for every cargo command here, because
/// another value means another build of `lbx`.
pub fn with_object(cmd: Cmd) -> Cmd {
    let objects =
        [("LBX_EBPF_OBJECT", paths::ebpf_object()), ("LBX_MEASURE_OBJECT", paths::measure_object())];
    let there = objects.into_iter().filter(|(_, object)| object.is_file());
    there.fold(cmd, |cmd, (variable, object)| cmd.env(variable, object))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_object_keeps_its_time_and_other_files_are_refused() {
        let dir = paths::target().join("xtask-test-publish");
        fs::create_dir_all(&dir).unwrap();
        let (built, object) = (dir.join("built"), dir.join("object.o"));
        let _ = fs::remove_file(&object);
        fs::write(&built, b"\x7fELF one").unwrap();
        publish(&built, &object).unwrap();
        let first = fs::metadata(&object).unwrap().modified().unwrap();
        publish(&built, &object).unwrap();
        assert_eq!(fs::metadata(&object).unwrap().modified().unwrap(), first);
        fs::write(&built, b"\x7fELF two").unwrap();
        publish(&built, &object).unwrap();
        assert_eq!(fs::read(&object).unwrap(), b"\x7fELF two");
        fs::write(&built, b"text").unwrap();
        assert!(publish(&built, &object).is_err());
        fs::remove_dir_all(dir).unwrap();
    }
}
