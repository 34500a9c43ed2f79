//! Debian packages: which are missing, and installing only those.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Result, bail};

use super::policy::{self, NoServices};
use super::toolchain::retry;
use crate::paths;
use crate::process::{Cmd, interrupted};

/// What is needed: the package, and the program that shows that it is there.
const NEEDED: [(&str, &str); 16] = [
    ("qemu-system-x86", "qemu-system-x86_64"),
    ("iproute2", "ip"),
    ("ethtool", "ethtool"),
    ("tcpdump", "tcpdump"),
    ("nftables", "nft"),
    ("ebtables", "ebtables"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("curl", "curl"),
    ("wrk", "wrk"),
    ("iperf3", "iperf3"),
    ("bpftool", "bpftool"),
    ("xz-utils", "xz"),
    ("kmod", "modprobe"),
    // Without the package that starts it: the tests run their own, in namespaces.
    ("libvirt-daemon", "libvirtd"),
    ("libvirt-clients", "virsh"),
];

/// What the bench of real programs needs besides: references to measure against, and servers.
const FOR_BENCHES: [(&str, &str); 2] = [("haproxy", "haproxy"), ("nginx-light", "nginx")];

const LISTS: &str = "/var/lib/apt/lists";

/// Package lists older than this name versions that the mirrors may have dropped.
const STALE: Duration = Duration::from_hours(24);

/// Which packages to install, and whether the lists have to be fetched first.
#[derive(Debug)]
pub struct Plan {
    missing: Vec<&'static str>,
    update: bool,
}

impl Plan {
    /// Looks at the machine.
    ///
    /// # Errors
    /// When a signal arrived.
    pub fn make() -> Result<Self> {
        Self::make_of(&NEEDED)
    }

    /// The same for the benches' own.
    ///
    /// # Errors
    /// When a signal arrived.
    pub fn for_benches() -> Result<Self> {
        Self::make_of(&FOR_BENCHES)
    }

    fn make_of(needed: &[(&'static str, &'static str)]) -> Result<Self> {
        // dpkg is asked only about what a program does not prove already: elsewhere packages have other names.
        let unseen: Vec<_> =
            needed.iter().copied().filter(|(_, program)| paths::which(program).is_none()).collect();
        let missing = if unseen.is_empty() { Vec::new() } else { missing(&unseen, &installed(&unseen)?) };
        Ok(Self { missing, update: lists_are_stale(newest_list(), SystemTime::now()) })
    }

    /// Whether there is nothing to install.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty()
    }

    /// One line for people.
    pub fn describe(&self) -> String {
        if self.is_empty() {
            "packages: QEMU, and the network tools of the tests".to_owned()
        } else {
            format!("packages: {}", self.missing.join(" "))
        }
    }

    /// Installs what is missing.
    ///
    /// # Errors
    /// When this is no Debian, or apt-get fails three times.
    pub fn install(&self) -> Result<()> {
        if self.is_empty() {
            policy::release_leftover();
            return Ok(());
        }
        if paths::which("apt-get").is_none() {
            bail!("there is no apt-get here: install the equivalents of {}", self.missing.join(" "));
        }
        let _no_services = NoServices::begin()?;
        if was_stopped() {
            dpkg_repair()?;
        }
        if self.update {
            retry(|| apt(&["update"]))?;
        }
        let install = || {
            let words = ["install", "--yes", "--no-remove", "--no-install-recommends"];
            apt(&[words.as_slice(), self.missing.as_slice()].concat())
        };
        match install() {
            Err(error) if !interrupted(&error) => {
                // The usual reason: the lists name a version that the mirror has replaced.
                eprintln!("xtask: {error:#}; fetching the package lists again");
                retry(|| apt(&["update"]))?;
                retry(install)
            }
            other => other,
        }
    }
}

fn apt(words: &[&str]) -> Result<()> {
    Cmd::new("apt-get")
        .args(["-q", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"])
        .args(["-o", "Dpkg::Use-Pty=0"])
        .args(words)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .root()
        .outlives_us()
        .spin()
        .run()
}

/// What `dpkg-query` says about packages: lines of `name status`.
fn installed(asked: &[(&str, &str)]) -> Result<String> {
    if paths::which("dpkg-query").is_none() {
        return Ok(String::new());
    }
    let names = asked.iter().map(|(package, _)| *package);
    let asked = Cmd::new("sh")
        // Unknown packages make it complain and fail; the known ones are still listed.
        .args(["-c", "dpkg-query -W -f '${Package} ${db:Status-Status}\\n' \"$@\" 2>/dev/null", "sh"])
        .args(names)
        .keep(false)?;
    Ok(asked.stdout)
}

fn missing(asked: &[(&'static str, &str)], installed: &str) -> Vec<&'static str> {
    let there = |package: &str| installed.lines().any(|line| line == format!("{package} installed"));
    asked.iter().map(|(package, _)| *package).filter(|package| !there(package)).collect()
}

/// When the newest package list was fetched; none if there are none.
fn newest_list() -> Option<SystemTime> {
    let entries = fs::read_dir(LISTS).ok()?.filter_map(Result::ok);
    let lists = entries.filter(|entry| entry.file_name().to_string_lossy().contains("_Packages"));
    // Not the time of modification: apt sets that to the one on the server.
    lists.filter_map(|entry| entry.metadata().and_then(|data| data.created().or(data.modified())).ok()).max()
}

fn lists_are_stale(newest: Option<SystemTime>, now: SystemTime) -> bool {
    // A time in the future is a wrong clock, not a stale list.
    newest.is_none_or(|newest| now.duration_since(newest).is_ok_and(|age| age > STALE))
}

/// dpkg keeps a journal there while it works; files left in it mean that it was stopped in the middle.
fn was_stopped() -> bool {
    let journal = Path::new("/var/lib/dpkg/updates");
    fs::read_dir(journal).is_ok_and(|mut entries| entries.next().is_some())
}

fn dpkg_repair() -> Result<()> {
    Cmd::new("dpkg")
        .args(["--configure", "-a"])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .root()
        .outlives_us()
        .spin()
        .run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_missing_packages_are_installed() {
        let asked = [("a", "a"), ("ab", "ab"), ("c", "c"), ("d", "d")];
        let answer = "ab installed\nc config-files\nd installed\n";
        assert_eq!(missing(&asked, answer), ["a", "c"]);
        assert_eq!(missing(&asked, ""), ["a", "ab", "c", "d"]);
        assert!(missing(&asked[1..2], answer).is_empty());
    }

    #[test]
    fn lists_are_fetched_when_absent_or_old() {
        let now = SystemTime::now();
        assert!(lists_are_stale(None, now));
        assert!(lists_are_stale(now.checked_sub(STALE + Duration::from_secs(1)), now));
        assert!(!lists_are_stale(now.checked_sub(STALE / 2), now));
        assert!(!lists_are_stale(now.checked_add(STALE), now));
    }
}
