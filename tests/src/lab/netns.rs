//! Named network namespaces, visible to `ip netns`, entered with setns(2).
//!
//! Not with `ip netns exec`, which gives its child a fresh /sys and so hides bpffs and cgroupfs.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use super::record::{Item, Record};

/// Where iproute2 looks for named namespaces.
pub const DIR: &str = "/run/netns";

/// An open namespace. Cloning it clones the handle.
#[derive(Clone, Debug)]
pub struct Netns {
    name: String,
    file: Arc<File>,
}

impl Netns {
    /// Makes the namespace `lbx-ID-SUFFIX`, with lo up and IPv6 on, and writes it into the record first.
    pub fn create(record: &Record, suffix: &str) -> Result<Self> {
        let name = format!("lbx-{}-{suffix}", record.id());
        let path = path_of(&name);
        fs::create_dir_all(DIR)?;
        record.with(&Item::Netns(name.clone()), || -> Result<()> {
            File::create_new(&path).with_context(|| format!("making {}", path.display()))?;
            on_thread(|| -> Result<()> {
                unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET): are you root?")?;
                // A bind mount keeps the namespace alive without a process in it.
                let none = None::<&str>;
                mount(Some("/proc/thread-self/ns/net"), &path, none, MsFlags::MS_BIND, none)?;
                Ok(())
            })?
        })??;
        let ns = Self::open(&name)?;
        ns.sysctls(&[
            ("net/ipv6/conf/all/disable_ipv6", "0"),
            ("net/ipv6/conf/default/disable_ipv6", "0"),
            ("net/ipv6/conf/lo/disable_ipv6", "0"),
            // Addresses must be usable at once; nothing here has a duplicate.
            ("net/ipv6/conf/all/accept_dad", "0"),
            ("net/ipv6/conf/default/accept_dad", "0"),
            ("net/ipv6/conf/all/accept_ra", "0"),
            ("net/ipv6/conf/default/accept_ra", "0"),
            ("net/ipv6/conf/default/router_solicitations", "0"),
            ("net/ipv6/conf/all/forwarding", "0"),
            ("net/ipv4/ip_forward", "0"),
            // A reply may come in by another way than the request went out.
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
            ("net/ipv4/conf/all/arp_ignore", "1"),
            ("net/ipv4/conf/default/arp_ignore", "1"),
            ("net/ipv4/conf/all/arp_announce", "2"),
            ("net/ipv4/conf/default/arp_announce", "2"),
            ("net/ipv4/conf/all/arp_filter", "0"),
            ("net/ipv4/icmp_ratelimit", "0"),
        ])?;
        // Only there when the module is loaded; the lab must not depend on what the host happens to filter.
        for table in ["iptables", "ip6tables", "arptables"] {
            let key = format!("net/bridge/bridge-nf-call-{table}");
            ns.run(|| fs::write(Path::new("/proc/sys").join(key), "0").unwrap_or(()))?;
        }
        super::tools::ip(&ns, &["link set lo up".into()])?;
        Ok(ns)
    }

    /// Opens a namespace by its name.
    pub fn open(name: &str) -> Result<Self> {
        let file = File::open(path_of(name)).with_context(|| format!("namespace {name}"))?;
        Ok(Self { name: name.into(), file: Arc::new(file) })
    }

    /// The name `ip netns` shows.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The path of the bind mount, as `nsenter --net=PATH` wants it.
    pub fn path(&self) -> PathBuf {
        path_of(&self.name)
    }

    /// Moves the calling thread into the namespace, for good. Sockets it opened before stay where they are.
    pub fn enter(&self) -> Result<()> {
        setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET).with_context(|| format!("entering {}", self.name))
    }

    /// Runs `work` in the namespace, on a thread of its own.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        on_thread(|| self.enter().map(|()| work()))?
    }

    /// A command that will run in the namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let file = Arc::clone(&self.file);
        // SAFETY: between fork and exec only async-signal-safe calls are allowed; setns(2) is a bare system call,
        // and turning its errno into an io::Error allocates nothing.
        unsafe { command.pre_exec(move || Ok(setns(file.as_fd(), CloneFlags::CLONE_NEWNET)?)) };
        command
    }

    /// Writes sysctls, given by their paths under /proc/sys.
    pub fn sysctls(&self, values: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            values.iter().try_for_each(|(key, value)| {
                let path = Path::new("/proc/sys").join(key);
                fs::write(&path, value)
                    .with_context(|| format!("{} = {value} in {}", path.display(), self.name))
            })
        })?
    }
}

/// Unmounts and removes a namespace's name; the namespace ends with its last process.
pub fn remove(name: &str) -> Result<()> {
    let path = path_of(name);
    // EINVAL: not (or no longer) a mount.
    let _ = nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => bail!("removing {}: {e}", path.display()),
        _ => Ok(()),
    }
}

fn path_of(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

/// Namespaces are a property of threads: this one is made for the purpose and ends afterwards.
fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|s| s.spawn(work).join())
        .map_err(|_| anyhow!("the thread inside a namespace panicked"))
}
