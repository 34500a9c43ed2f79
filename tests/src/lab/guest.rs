//! QEMU guests: the initramfs, the command line, the process.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::accel::Accel;
use super::cpio::Cpio;
use super::image::Image;
use super::process::Process;
use super::record::Record;
use super::vm::{Seat, Vm};
use crate::guest::params::Params;
use crate::guest::pattern::hex;

/// The emulator.
pub const QEMU: &str = "qemu-system-x86_64";
/// Names the static guest binary, where it is not next to the running one.
pub const BINARY_ENV: &str = "LBX_GUEST";

/// What every guest of a lab boots from.
#[derive(Debug, Clone)]
pub struct Boot {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
    /// KVM or TCG.
    pub accel: Accel,
}

/// The static `lbx-guest`: from `$LBX_GUEST`, or the newest in the target directory that the running binary is in.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(BINARY_ENV) {
        return Ok(path.into());
    }
    let me = std::env::current_exe()?;
    let mut found = Vec::new();
    for dir in me.ancestors().skip(1).take(3) {
        // `target/guest` is where xtask builds it, apart from what other RUSTFLAGS built.
        for base in ["guest/x86_64-unknown-linux-gnu", "x86_64-unknown-linux-gnu"] {
            for profile in ["debug", "release"] {
                let path = dir.join(base).join(profile).join("lbx-guest");
                found.extend(fs::metadata(&path).and_then(|m| m.modified()).map(|built| (built, path)));
            }
        }
    }
    if let Some((_, newest)) = found.into_iter().max() {
        return Ok(newest);
    }
    bail!(
        "no static lbx-guest near {}; build it with\n  RUSTFLAGS=\"-C target-feature=+crt-static\" cargo build \
         --target x86_64-unknown-linux-gnu -p lbx-tests --bin lbx-guest",
        me.display()
    )
}

/// Writes the initramfs of a lab: the static init, the modules and their order.
pub fn write_initramfs(image: &Image, dir: &Path) -> Result<PathBuf> {
    let path = dir.join("initramfs.cpio");
    write_initramfs_with(image, &path, |_| Ok(()))?;
    Ok(path)
}

/// The same with more in it.
pub(super) fn write_initramfs_with(
    image: &Image,
    path: &Path,
    more: impl FnOnce(&mut Cpio<BufWriter<File>>) -> Result<()>,
) -> Result<()> {
    let binary = binary()?;
    let init = fs::read(&binary).with_context(|| format!("reading {}", binary.display()))?;
    if !is_static(&init) {
        bail!("{} is dynamically linked: a guest has no libc; build it with +crt-static", binary.display());
    }
    let mut cpio = Cpio::new(BufWriter::new(File::create(path)?));
    cpio.directory("dev")?;
    // PID 1 gets its standard files from here, before devtmpfs is mounted.
    cpio.char_device("dev/console", 5, 1)?;
    for name in ["proc", "sys", "modules"] {
        cpio.directory(name)?;
    }
    cpio.file("init", 0o755, &init)?;
    add_modules(&mut cpio, "order", &image.modules)?;
    more(&mut cpio)?;
    cpio.finish()?.flush()?;
    Ok(())
}

/// Adds modules below `modules/` and the list of them.
pub(super) fn add_modules<W: Write>(cpio: &mut Cpio<W>, list: &str, modules: &[PathBuf]) -> Result<()> {
    let mut order = String::new();
    for module in modules {
        let name = module.file_name().and_then(|n| n.to_str()).context("module name")?;
        cpio.file(&format!("modules/{name}"), 0o644, &fs::read(module)?)?;
        order.push_str(name);
        order.push('\n');
    }
    Ok(cpio.file(&format!("modules/{list}"), 0o644, order.as_bytes())?)
}

/// The common part of every QEMU command line of the lab.
pub fn qemu(boot: &Boot, memory_mib: u32, cpus: u32, append: &str) -> Vec<String> {
    let text = |s: &str| s.to_owned();
    vec![
        text("-nodefaults"),
        text("-no-user-config"),
        text("-display"),
        text("none"),
        text("-no-reboot"),
        text("-accel"),
        text(boot.accel.qemu_accel()),
        text("-cpu"),
        text(boot.accel.qemu_cpu()),
        text("-smp"),
        cpus.to_string(),
        text("-m"),
        // Emulating, QEMU before 9.0 misses writes to memory whose size is a multiple of 256 KiB: migrated, the guest
        // panics over pages as they were (cpu_physical_memory_sync_dirty_bitmap, include/exec/ram_addr.h).
        format!("{}k", memory_mib * 1024 + 8),
        text("-kernel"),
        boot.kernel.display().to_string(),
        text("-initrd"),
        boot.initramfs.display().to_string(),
        text("-append"),
        // Emulated on a busy machine, the timer may tick later than the kernel's check of it allows, and the kernel
        // panics (check_timer in arch/x86/kernel/apic/io_apic.c).
        format!("console=ttyS0 quiet no_timer_check panic=-1 {append}"),
    ]
}

/// Starts a guest in its seat; `incoming`: it waits there for a migration instead of booting.
pub(super) fn start(
    record: &Record,
    vm: &Vm,
    seat: &Seat,
    boot: &Boot,
    params: &Params,
    incoming: bool,
) -> Result<Process> {
    let (name, queues) = (&vm.spec.name, vm.spec.queues);
    let mut arguments = qemu(boot, vm.spec.memory_mib, queues, &params.words().join(" "));
    let (netdev_queues, device_queues) = if queues > 1 {
        (format!(",queues={queues}"), format!(",mq=on,vectors={}", 2 * queues + 2))
    } else {
        (String::new(), String::new())
    };
    let mut option = |key: &str, value: String| arguments.extend([format!("-{key}"), value]);
    option("name", format!("guest={name},debug-threads=on"));
    option("uuid", uuid(vm.mac));
    option(
        "netdev",
        format!("tap,id=n0,ifname={},script=no,downscript=no,vhost=off{netdev_queues}", seat.port),
    );
    option(
        "device",
        format!("virtio-net-pci,netdev=n0,id=net0,romfile=,mac={}{device_queues}", vm.mac_text()),
    );
    option("device", "virtio-balloon-pci,id=balloon0".into());
    // All QEMUs of a VM write to one file, source and destination of a migration at the same time.
    option("chardev", format!("file,id=console,append=on,path={}", vm.console_path().display()));
    option("serial", "chardev:console".into());
    for path in vm.qmp_paths(seat) {
        option("qmp", format!("unix:{},server=on,wait=off", path.display()));
    }
    if incoming {
        option("incoming", "defer".into());
    }
    arguments.extend(vm.spec.qemu_args.iter().cloned());
    let mut command: Command = seat.host_ns.command(QEMU);
    command.args(arguments);
    Process::spawn(record, &seat.name(name), command)
}

/// A UUID that is as fixed as the MAC.
pub fn uuid(mac: [u8; 6]) -> String {
    format!("6c627800-0000-4000-8000-{}", hex(&mac))
}

/// Whether an ELF file names no interpreter (program header PT_INTERP): it runs without ld.so.
fn is_static(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let u16_at = |at: usize| elf.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]) as usize);
    let phoff = elf.get(32..40).and_then(|b| b.try_into().ok()).map(|b| u64::from_le_bytes(b) as usize);
    let (Some(phoff), Some(size), Some(count)) = (phoff, u16_at(54), u16_at(56)) else { return false };
    elf.starts_with(b"\x7fELF")
        && (0..count).all(|i| {
            let at = phoff + i * size;
            elf.get(at..at + 4).is_some_and(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) != PT_INTERP)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_is_dynamic_and_nonsense_is_no_program() {
        assert!(!is_static(&fs::read(std::env::current_exe().unwrap()).unwrap()));
        assert!(!is_static(b"\x7fELF"));
    }

    #[test]
    fn uuids_are_well_formed() {
        assert_eq!(uuid([2, 0x77, 0, 1, 0, 3]), "6c627800-0000-4000-8000-027700010003");
    }
}
