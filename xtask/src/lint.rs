//! `cargo xtask lint`: format, clippy, docs, feature combinations, and house rules that no lint knows.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::process::{Cmd, interrupted};
use crate::setup::toolchain;
use crate::{build, paths, user};

/// Longer files are listed: two jobs in one room?
const LONG: usize = 400;

/// Not to be left in the source. Spelled in two parts, so that this file does not hold them.
const FORBIDDEN: [&str; 3] = [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("#[", "ignore")];

/// Arguments of `lint`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Let rustfmt mend what it can first
    #[arg(long)]
    fix: bool,
}

/// Runs the verb: every check, even after one has failed.
///
/// # Errors
/// When a check fails.
pub fn run(args: &Args) -> Result<()> {
    user::give_back_target()?;
    toolchain::add_components(
        &toolchain::missing_components()?.into_iter().filter(|name| *name != "rust-src").collect::<Vec<_>>(),
    )?;
    if args.fix {
        Cmd::cargo(["fmt", "--all"]).run()?;
    }
    let mut failed = Vec::new();
    let mut check = |name: &'static str, result: Result<()>| match result {
        Err(error) if interrupted(&error) => Err(error),
        Err(error) => {
            eprintln!("xtask: {name}: {error:#}");
            failed.push(name);
            Ok(())
        }
        Ok(()) => Ok(()),
    };
    check("house rules", house_rules())?;
    check("format", Cmd::cargo(["fmt", "--all", "--check"]).run())?;
    check("clippy", deny(build::cargo("clippy").arg("--all-targets")).run())?;
    let clippy = |args: &[&str]| deny(Cmd::cargo(["clippy"]).args(args)).run();
    check("lbx-common without std", clippy(&["-p", "lbx-common"]))?;
    check("clippy of the kernel program for this machine", clippy(&["-p", "lbx-ebpf", "--features", "log"]))?;
    if toolchain::ebpf_is_ready()? {
        check("clippy of the kernel program", ebpf_clippy(&[]))?;
        check("clippy of the kernel program with log", ebpf_clippy(&["--features", "log"]))?;
    } else {
        println!("!! the kernel program was not checked for its own target: run cargo xtask setup first");
        if std::env::var_os("CI").is_some() {
            check("clippy of the kernel program", toolchain::require_ebpf())?;
        }
    }
    let doc = build::cargo("doc").args(["--no-deps", "--document-private-items"]);
    check("docs", doc.env("RUSTDOCFLAGS", "-Dwarnings").run())?;
    let doc =
        Cmd::cargo(["doc", "-p", "lbx-ebpf", "--features", "log", "--no-deps", "--document-private-items"]);
    check("docs of the kernel program", doc.env("RUSTDOCFLAGS", "-Dwarnings").run())?;
    if failed.is_empty() {
        println!("lint: all well");
        return Ok(());
    }
    bail!("lint failed: {}", failed.join(", "))
}

fn deny(cmd: Cmd) -> Cmd {
    cmd.args(["--", "-D", "warnings"])
}

fn ebpf_clippy(args: &[&str]) -> Result<()> {
    deny(build::ebpf_cargo("clippy").args(["--release", "-Z", "build-std=core"]).args(args)).run()
}

/// What clippy does not know: words that mean unfinished work fail, long files are listed.
fn house_rules() -> Result<()> {
    let mut found = Vec::new();
    for file in sources(&paths::root())? {
        let text = fs::read_to_string(&file)?;
        let name = file.strip_prefix(paths::root()).unwrap_or(&file).display().to_string();
        let lines = text.lines().count();
        if lines > LONG {
            println!("warning: {name} has {lines} lines (more than {LONG})");
        }
        found.extend(forbidden(&text).map(|(line, word)| format!("{name}:{line}: `{word}`")));
    }
    if found.is_empty() {
        return Ok(());
    }
    bail!("unfinished work:\n{}", found.join("\n"))
}

/// Line numbers (from 1) and words that must not stay.
fn forbidden(text: &str) -> impl Iterator<Item = (usize, &'static str)> {
    text.lines().zip(1..).flat_map(|(line, number)| {
        FORBIDDEN.into_iter().filter(|word| line.contains(word)).map(move |word| (number, word))
    })
}

/// Every Rust file of the workspace.
fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut dirs = vec![root.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let hidden = name.as_encoded_bytes().starts_with(b".");
            if entry.file_type()?.is_dir() && !hidden && name != "target" {
                dirs.push(entry.path());
            } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_work_is_found_by_line() {
        let text = format!("fn a() {{}}\n    {})\n// to do\n{}]\n", FORBIDDEN[0], FORBIDDEN[2]);
        let lines: Vec<usize> = forbidden(&text).map(|(line, _)| line).collect();
        assert_eq!(lines, [2, 4]);
    }

    #[test]
    fn sources_are_found_and_build_output_is_not() {
        let files = sources(&paths::root()).unwrap();
        assert!(files.contains(&paths::root().join("xtask/src/lint.rs")));
        assert!(files.iter().all(|file| !file.starts_with(paths::root().join("target"))));
    }
}
