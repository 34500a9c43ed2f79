//! A real libvirt daemon on a host of a lab, with a world of its own: network, mounts, host name and processes.
//!
//! ```text
//!  DIR/libvirt-H/{etc,run,var}   bound over /etc/libvirt, /run and /var where only the daemon and its QEMUs see it
//! ```
//!
//! Nothing of it is seen by the machine, nothing of the machine's own libvirt is seen by it, and it finds no cgroups
//! to make its own in. Its QEMUs leave it and become children of the first process of the namespace of processes, so
//! that all of them end with that one, however it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::netns::Netns;
use super::process::{self, Process};
use super::record::Record;
use super::topology::Lab;

/// The daemon of Debian's package libvirt-daemon, and the client of libvirt-clients.
const PROGRAMS: [&str; 2] = ["libvirtd", "virsh"];

/// What happens in the daemon's world before it starts: `sh -c SCRIPT DIR HOST`. The user that QEMU would run as is
/// made by a package that would start services; only its name is needed.
const SCRIPT: &str = r#"
set -e
dir=$1 host=$2
umount -R -l /sys
mount -t sysfs sysfs /sys
for file in passwd group; do
    cp /etc/$file "$dir/$file"
    mount --bind "$dir/$file" /etc/$file
done
grep -q ^libvirt-qemu: "$dir/passwd" || echo libvirt-qemu:x:64055:64055::/:/bin/false >> "$dir/passwd"
grep -q ^libvirt-qemu: "$dir/group" || echo libvirt-qemu:x:64055: >> "$dir/group"
mount --bind "$dir/etc" /etc/libvirt
mount --bind "$dir/var" /var
# The lab's own directory is below /run and stays where it is.
lab=${dir%/*}
mount --bind "$lab" "$dir/run/${lab#/run/}"
mount --rbind "$dir/run" /run
hostname "lbx-host$host"
# The shell takes care of the QEMUs that were left to it when they end.
libvirtd --pid-file "$dir/libvirtd.pid" &
wait
"#;

/// Everything that would ask the rest of a host for something is off.
const QEMU_CONF: &str = r#"user = "root"
group = "root"
security_driver = "none"
dynamic_ownership = 0
remember_owner = 0
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
"#;

/// A running daemon. Dropping it kills it and its VMs.
pub struct Libvirtd {
    process: Process,
    record: Record,
    ns: Netns,
    host: usize,
    dir: PathBuf,
}

impl Drop for Libvirtd {
    fn drop(&mut self) {
        // The directories it has open are removed next.
        let _ = self.kill();
    }
}

impl Libvirtd {
    /// Starts one on a host of a lab, and waits until it answers.
    pub fn start(lab: &Lab, host: usize) -> Result<Self> {
        for program in PROGRAMS {
            let mut found = Command::new("sh");
            if !found
                .args(["-c", "command -v \"$0\"", program])
                .env("PATH", path())
                .output()?
                .status
                .success()
            {
                bail!("there is no {program} here: `cargo xtask setup` installs it");
            }
        }
        let dir = lab.record.dir().join(format!("libvirt-{host}"));
        let below_run = lab.record.dir().strip_prefix("/run").context("a lab is below /run")?;
        for part in ["etc", "run/libvirt", "var/lib/libvirt", "var/cache", "var/log", "var/tmp"] {
            fs::create_dir_all(dir.join(part))?;
        }
        fs::create_dir_all(dir.join("run").join(below_run))?;
        std::os::unix::fs::symlink("/run", dir.join("var/run"))?;
        // Two daemons with one identity refuse to migrate to each other.
        let libvirtd = format!(
            "auth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\nlog_outputs = \"3:stderr\"\n\
             host_uuid = \"6c627801-0000-4000-8000-{host:012}\"\n"
        );
        fs::write(dir.join("etc/libvirtd.conf"), libvirtd)?;
        fs::write(dir.join("etc/qemu.conf"), QEMU_CONF)?;
        let (record, ns) = (lab.record.clone(), lab.hosts[host].ns.clone());
        let process = spawn(&record, &ns, &dir, host)?;
        let mut daemon = Self { process, record, ns, host, dir };
        daemon.wait()?;
        Ok(daemon)
    }

    /// Its socket, seen from outside.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("run/libvirt/libvirt-sock")
    }

    /// How `virsh` calls it.
    pub fn uri(&self) -> String {
        format!("qemu+unix:///system?socket={}", self.socket().display())
    }

    /// A `virsh` command that talks to it.
    pub fn virsh(&self, words: &[&str]) -> Command {
        let mut command = Command::new("virsh");
        command.args(["--quiet", "--connect", &self.uri()]).args(words);
        // It would keep a history.
        command.env("HOME", &self.dir).env("XDG_CACHE_HOME", &self.dir);
        command
    }

    /// Runs `virsh` to its end; its standard output.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        super::tools::run(&mut self.virsh(words)).with_context(|| self.log())
    }

    /// Makes and starts a VM that has one vNIC on the host's bridge and nothing to boot from: it can be stopped and
    /// migrated like any other, in a moment.
    pub fn create(&self, name: &str, uuid: &str, mac: &str) -> Result<()> {
        let file = self.dir.join(format!("{name}.xml"));
        fs::write(&file, domain(name, uuid, mac))?;
        self.run(&["create", &file.display().to_string()]).map(drop)
    }

    /// Kills it with all its VMs, and starts it again.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.process = spawn(&self.record, &self.ns, &self.dir, self.host)?;
        self.wait()
    }

    /// Kills it with all its VMs: nobody answers any more.
    pub fn kill(&mut self) -> Result<()> {
        let pid = self.process.pid();
        let first = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let first = first.trim().parse().ok().and_then(|pid| Some((pid, process::start_time(pid)?)));
        self.process.kill()?;
        // The first process of the namespace ends when all others have.
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Some((pid, start)) = first
            && process::start_time(pid) == Some(start)
        {
            if Instant::now() > deadline {
                bail!("the VMs of the libvirtd on host {} do not end", self.host);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        self.process.log()
    }

    fn wait(&mut self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            if self.virsh(&["list"]).output()?.status.success() {
                return Ok(());
            }
            if let Some(status) = self.process.ended() {
                bail!("libvirtd ended with {status}:\n{}", self.log());
            }
            if Instant::now() > deadline {
                bail!("libvirtd does not answer:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Daemons are not on everybody's path.
fn path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

fn spawn(record: &Record, ns: &Netns, dir: &Path, host: usize) -> Result<Process> {
    let mut command = ns.command("unshare");
    command.env("PATH", path());
    command.args(["--mount", "--uts", "--ipc", "--pid", "--fork", "--mount-proc", "--kill-child"]);
    command.args(["sh", "-c", SCRIPT, "libvirtd"]).arg(dir).arg(host.to_string());
    Process::spawn(record, &format!("libvirtd-{host}"), command)
}

fn domain(name: &str, uuid: &str, mac: &str) -> String {
    format!(
        "<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='GiB'>1</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <cpu mode='custom' match='exact'><model fallback='forbid'>qemu64</model></cpu>
  <devices>
    <emulator>/usr/bin/{}</emulator>
    <interface type='bridge'>
      <mac address='{mac}'/>
      <source bridge='br0'/>
      <target dev='tap-{name}'/>
      <model type='virtio'/>
      <rom enabled='no'/>
    </interface>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <video><model type='none'/></video>
  </devices>
</domain>
",
        super::guest::QEMU
    )
}
