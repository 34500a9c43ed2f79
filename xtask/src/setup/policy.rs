//! Keeps packages from starting services while they are installed.
//!
//! Debian's `invoke-rc.d` asks `/usr/sbin/policy-rc.d` and obeys its 101 (invoke-rc.d(8)). Ours is there only
//! while apt-get runs; one that an administrator has put there is left alone, and its decision is respected.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::paths;
use crate::process::Cmd;

const POLICY: &str = "/usr/sbin/policy-rc.d";

/// How a later run recognises what a killed one left.
const MARK: &str = "# Made by `cargo xtask setup` of lbx while it installs packages; it removes this again.";

/// Removes the policy on drop.
#[derive(Debug)]
pub struct NoServices {
    ours: bool,
}

impl NoServices {
    /// Forbids services to start, unless somebody else has a policy here.
    ///
    /// # Errors
    /// When the policy cannot be written.
    pub fn begin() -> Result<Self> {
        if Path::new(POLICY).exists() && !is_ours() {
            return Ok(Self { ours: false });
        }
        let draft = paths::target().join("policy-rc.d");
        fs::create_dir_all(paths::target())?;
        fs::write(&draft, format!("#!/bin/sh\n{MARK}\nexit 101\n"))?;
        let guard = Self { ours: true };
        Cmd::new("install")
            .args(["-o", "root", "-g", "root", "-m", "755"])
            .args([draft.as_os_str(), POLICY.as_ref()])
            .root()
            .run()
            .context("cannot keep packages from starting services")?;
        Ok(guard)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            remove();
        }
    }
}

fn is_ours() -> bool {
    fs::read_to_string(POLICY).is_ok_and(|text| text.contains(MARK))
}

fn remove() {
    if is_ours() && Cmd::new("rm").args(["-f", POLICY]).root().cleanup().run().is_err() {
        eprintln!("xtask: cannot remove {POLICY}; please do");
    }
}

/// Removes the policy of a killed run. Only when there is nothing to install: the apt-get of that run may still be
/// at work, and needs it.
pub fn release_leftover() {
    remove();
}
