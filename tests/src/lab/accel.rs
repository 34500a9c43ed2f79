//! KVM or TCG: decided by booting a guest, because /dev/kvm may be there and still run no ordinary guest.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::guest::{Boot, QEMU, qemu};
use super::image::{self, Image};
use super::process::Process;
use super::record::Record;
use crate::guest::init;

/// Overrides the decision: `kvm` or `tcg`.
pub const ENV: &str = "LBX_ACCEL";
/// How long a guest under KVM may take to say that it booted; a real one takes about a second.
const LIMIT: Duration = Duration::from_secs(6);

/// How QEMU runs its vCPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// Hardware virtualisation.
    Kvm,
    /// Emulation.
    Tcg,
}

impl Accel {
    /// The value of `-accel`.
    pub fn qemu_accel(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg,thread=multi",
        }
    }

    /// The value of `-cpu`. Emulated vector units are slower than none.
    pub fn qemu_cpu(self) -> &'static str {
        match self {
            Self::Kvm => "host",
            Self::Tcg => "qemu64",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            "kvm" => Some(Self::Kvm),
            "tcg" => Some(Self::Tcg),
            _ => None,
        }
    }
}

impl std::fmt::Display for Accel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}

/// Tries KVM once per boot of the machine and kernel of the guest, and remembers the answer in the cache.
pub fn choose(record: &Record, image: &Image, initramfs: &Path) -> Result<Accel> {
    if let Some(value) = std::env::var_os(ENV) {
        let text = value.to_string_lossy();
        return Accel::parse(&text).with_context(|| format!("{ENV}={text}: kvm or tcg expected"));
    }
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let key = format!("accel-{}-{}", image.version, boot_id.trim());
    let cache = image::cache_dir()?;
    let answer = cache.join(&key);
    if let Some(accel) = fs::read_to_string(&answer).ok().and_then(|text| Accel::parse(&text)) {
        return Ok(accel);
    }
    let accel = if boots_under_kvm(record, image, initramfs)? { Accel::Kvm } else { Accel::Tcg };
    // Answers for earlier boots of the machine are of no use; those for other kernels are.
    for entry in fs::read_dir(&cache).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("accel-") && !name.ends_with(boot_id.trim()) {
            let _ = fs::remove_file(entry.path());
        }
    }
    fs::write(&answer, format!("{accel}\n")).with_context(|| format!("writing {}", answer.display()))?;
    image::give_to_user(&answer);
    Ok(accel)
}

fn boots_under_kvm(record: &Record, image: &Image, initramfs: &Path) -> Result<bool> {
    if fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return Ok(false);
    }
    let boot = Boot { kernel: image.kernel.clone(), initramfs: initramfs.into(), accel: Accel::Kvm };
    let console = record.dir().join("kvm-probe.console");
    let mut command = Command::new(QEMU);
    command
        .args(qemu(&boot, 128, 1, "lbx.probe=1"))
        .arg("-serial")
        .arg(format!("file:{}", console.display()));
    let mut guest = Process::spawn(record, "kvm-probe", command)?;
    let booted = || fs::read(&console).is_ok_and(|text| String::from_utf8_lossy(&text).contains(init::UP));
    let deadline = Instant::now() + LIMIT;
    while guest.ended().is_none() && !booted() && Instant::now() < deadline {
        sleep(Duration::from_millis(20));
    }
    Ok(booted())
}
