//! Who builds and who is root: builds run as the invoking user, also under `sudo cargo xtask`; only finished
//! programs run as root.

use std::env;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};
use nix::unistd::{Uid, User, geteuid};

use crate::paths;

/// The user behind `sudo`, when this process is root only because of it.
#[derive(Debug, Clone)]
pub struct Invoker {
    /// Numeric user id.
    pub uid: u32,
    /// Numeric primary group id.
    pub gid: u32,
    /// Home directory, from the password database.
    pub home: PathBuf,
}

/// Whether this process is root.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// The user to build as, when that is not the one this process runs as.
pub fn invoker() -> Option<Invoker> {
    if !is_root() {
        return None;
    }
    let uid: u32 = env::var("SUDO_UID").ok()?.parse().ok()?;
    if uid == 0 {
        return None;
    }
    let user = User::from_uid(Uid::from_raw(uid)).ok()??;
    Some(Invoker { uid, gid: user.gid.as_raw(), home: user.dir })
}

/// Makes `command` run as the user behind sudo, if there is one, and returns that user.
pub fn drop_to_invoker(command: &mut Command) -> Option<Invoker> {
    use std::os::unix::process::CommandExt;
    let invoker = invoker()?;
    command.uid(invoker.uid).gid(invoker.gid).env("HOME", &invoker.home);
    // Root's toolchain is none of the user's business; rust-toolchain.toml says which one to take.
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
    Some(invoker)
}

/// Under sudo, cargo has just built xtask as root into the user's target directory: gives that back.
///
/// # Errors
/// When `chown` cannot be run.
pub fn give_back_target() -> Result<()> {
    let Some(invoker) = invoker() else { return Ok(()) };
    let target = paths::target();
    if target.is_dir() {
        let owner = format!("{}:{}", invoker.uid, invoker.gid);
        Command::new("chown").args(["-R", "-h", "--from=0", &owner]).arg(target).status()?;
    }
    Ok(())
}

/// Makes sure that root can be had without a question: asks for the password now, in the foreground, because
/// the commands themselves run in process groups of their own, where sudo could not read from the terminal.
///
/// # Errors
/// When this is not root and sudo is missing or refuses.
pub fn authorise() -> Result<()> {
    if is_root() {
        return Ok(());
    }
    let quiet = Command::new("sudo").args(["-n", "true"]).stdin(Stdio::null()).stderr(Stdio::null()).status();
    match quiet {
        Err(_) => bail!("this step needs root, and there is no sudo: run it as root"),
        Ok(status) if status.success() => return Ok(()),
        Ok(_) if !std::io::stdin().is_terminal() => {
            bail!("this step needs root, and sudo wants a password but there is no terminal to ask on")
        }
        Ok(_) => {}
    }
    eprintln!("+ sudo -v");
    if !Command::new("sudo").arg("-v").status()?.success() {
        bail!("sudo refused");
    }
    Ok(())
}
