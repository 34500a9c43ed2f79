//! The eBPF toolchain: rust-src for the pinned Rust, and bpf-linker, which uses that Rust's own LLVM.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::paths;
use crate::process::{Cmd, interrupted};

/// What has to come with the pinned toolchain.
pub const COMPONENTS: [&str; 3] = ["rust-src", "rustfmt", "clippy"];

/// The version of bpf-linker that goes with the pinned toolchain's LLVM.
pub const LINKER_VERSION: &str = "0.10.3";

/// What to do on a machine where rustup cannot fetch.
const FALLBACK: &str = "rustup could not fetch a component of the pinned toolchain. Where its server cannot be \
reached, Debian has the same in packages: rustc-web, rust-web-src, cargo-web, llvm-22-dev and libpolly-22-dev. \
They conflict with Debian's rustc, cargo and rustup, so do not install them: `apt-get download` them and \
`dpkg-deb -x` each into target/rust-web, then build bpf-linker 0.13 with feature llvm-22 and \
LLVM_PREFIX=/usr/lib/llvm-22 below that directory";

/// The pinned toolchain, from rust-toolchain.toml.
pub fn channel() -> String {
    let text = fs::read_to_string(paths::root().join("rust-toolchain.toml")).unwrap_or_default();
    channel_in(&text).unwrap_or_else(|| "stable".to_owned())
}

fn channel_in(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.trim_start().starts_with("channel"))?;
    line.split('"').nth(1).map(str::to_owned)
}

fn sysroot() -> Result<PathBuf> {
    let asked = Cmd::new("rustc").args(["--print", "sysroot"]).keep(false)?;
    if !asked.status.success() {
        bail!("rustc does not run here; install rustup, then `rustup toolchain install {}`", channel());
    }
    Ok(PathBuf::from(asked.stdout.trim()))
}

/// The components that the toolchain in use lacks.
///
/// # Errors
/// When there is no rustc.
pub fn missing_components() -> Result<Vec<&'static str>> {
    let sysroot = sysroot()?;
    let there = |component: &str| match component {
        "rust-src" => sysroot.join("lib/rustlib/src/rust/library/Cargo.lock").is_file(),
        "clippy" => sysroot.join("bin/cargo-clippy").is_file(),
        other => sysroot.join("bin").join(other).is_file(),
    };
    Ok(COMPONENTS.into_iter().filter(|component| !there(component)).collect())
}

/// Adds components with rustup. Explicitly: rustup may have been told not to install anything by itself.
///
/// # Errors
/// When rustup is missing or cannot fetch; the message says what else can be done.
pub fn add_components(missing: &[&str]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let add = || Cmd::new("rustup").args(["component", "add", "--toolchain", &channel()]).args(missing).run();
    retry(add).context(FALLBACK)
}

fn linker() -> PathBuf {
    paths::tools().join("bin/bpf-linker")
}

/// Whether bpf-linker is installed in the right version.
pub fn linker_is_there() -> bool {
    linker().is_file()
        && Cmd::new(linker())
            .arg("--version")
            .keep(false)
            .is_ok_and(|asked| asked.status.success() && asked.stdout.trim().ends_with(LINKER_VERSION))
}

/// Builds and installs bpf-linker (about a minute on two cores).
///
/// # Errors
/// When it cannot be fetched or built.
pub fn install_linker() -> Result<()> {
    let scratch = paths::target().join("bpf-linker");
    let install = || {
        Cmd::cargo(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--force", "--root"])
            .arg(paths::tools())
            // Below target/, so that a killed run leaves nothing in /tmp and the next one goes on from there.
            .env("CARGO_TARGET_DIR", &scratch)
            .run()
    };
    retry(install).context("bpf-linker could not be installed")?;
    let _ = fs::remove_dir_all(scratch);
    Ok(())
}

/// Whether the kernel program can be built here.
///
/// # Errors
/// When rustc is missing.
pub fn ebpf_is_ready() -> Result<bool> {
    Ok(!missing_components()?.contains(&"rust-src") && linker_is_there())
}

/// Fails with what to do when the kernel program cannot be built here.
///
/// # Errors
/// See above.
pub fn require_ebpf() -> Result<()> {
    if ebpf_is_ready()? {
        return Ok(());
    }
    bail!("the eBPF toolchain is not complete; get it with: cargo xtask setup")
}

/// Runs a step that fetches something up to three times.
///
/// # Errors
/// The last attempt's, or that of a signal.
pub fn retry(step: impl Fn() -> Result<()>) -> Result<()> {
    for pause in [5, 15] {
        match step() {
            Err(error) if !interrupted(&error) => {
                eprintln!("xtask: {error:#}; trying again in {pause} s");
                thread::sleep(Duration::from_secs(pause));
            }
            other => return other,
        }
    }
    step()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_channel_is_read_from_the_toolchain_file() {
        assert_eq!(channel_in("[toolchain]\nchannel = \"1.2.3\"\n").as_deref(), Some("1.2.3"));
        assert_eq!(channel_in("[toolchain]\n"), None);
        assert!(channel().starts_with("1."));
    }
}
