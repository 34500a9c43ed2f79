//! Running the system's tools (`ip`, `bridge`, `ethtool`) with errors that say what failed.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::netns::Netns;

/// Runs a command to its end; its standard output.
pub fn run(command: &mut Command) -> Result<String> {
    let out = command.stdin(Stdio::null()).output().with_context(|| format!("starting {command:?}"))?;
    if !out.status.success() {
        bail!("{command:?}: {}: {}", out.status, String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Runs lines of `ip` commands inside a namespace; stops at the first that fails.
pub fn ip(ns: &Netns, lines: &[String]) -> Result<()> {
    batch(ns, "ip", lines)
}

/// Runs lines of `bridge` commands inside a namespace; stops at the first that fails.
pub fn bridge(ns: &Netns, lines: &[String]) -> Result<()> {
    batch(ns, "bridge", lines)
}

fn batch(ns: &Netns, tool: &str, lines: &[String]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut child = ns
        .command(tool)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {tool}"))?;
    let text = lines.join("\n") + "\n";
    child.stdin.take().context("stdin is piped")?.write_all(text.as_bytes())?;
    let out = child.wait_with_output()?;
    if !out.status.success() {
        bail!("{tool} in {}: {}\n{text}", ns.name(), String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}
