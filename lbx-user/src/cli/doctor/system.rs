//! The kernel and lbx itself.

use std::fs;
use std::path::Path;

use lbx_common::control::flags;

use super::Findings;
use crate::cli::session::Session;
use crate::datapath::{self, Maps};

/// `BPF_FS_MAGIC` of include/uapi/linux/magic.h.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

pub(super) fn look(session: &Session, found: &mut Findings) {
    match datapath::check_capabilities() {
        Ok(()) => found.ok("capabilities", "", "all that lbx needs"),
        Err(error) => found.fail("capabilities", "", error.to_string(), "run it as root"),
    }
    if datapath::ebpf_object().is_some() {
        found.ok("datapath", "", "the kernel program is part of this lbx");
    } else {
        let hint = "build it with `cargo xtask build`";
        found.fail("datapath", "", "this lbx was built without its kernel program", hint);
    }
    if Path::new("/sys/kernel/btf/vmlinux").exists() {
        found.ok("btf", "", "the kernel describes its types");
    } else {
        let hint = "use a kernel with CONFIG_DEBUG_INFO_BTF (every distribution's has it)";
        found.fail("btf", "", "/sys/kernel/btf/vmlinux is not there", hint);
    }
    match nix::sys::statfs::statfs("/sys/fs/bpf") {
        Ok(stat) if stat.filesystem_type().0 == BPF_FS_MAGIC => {
            found.ok("bpffs", "", "mounted at /sys/fs/bpf");
        }
        _ => {
            let hint = "`lbx run` and `lbx attach` mount it themselves; systemd does it at boot";
            found.warn("bpffs", "", "not mounted at /sys/fs/bpf", hint);
        }
    }
    forwarding(found);
    if session.daemon_runs() {
        found.ok("daemon", "", "it answers");
    } else {
        let hint = "start it with `lbx run`; what is attached goes on without it";
        found.warn("daemon", "", "it is not running: nobody follows VMs and health", hint);
    }
    maps(session, found);
}

/// A host that routes would route the packets to VIPs that are not steered.
fn forwarding(found: &mut Findings) {
    for (family, path) in
        [("ipv4", "/proc/sys/net/ipv4/ip_forward"), ("ipv6", "/proc/sys/net/ipv6/conf/all/forwarding")]
    {
        match fs::read_to_string(path).as_deref().map(str::trim) {
            Ok("0") => found.ok("ip_forward", family, "off"),
            Ok(_) => {
                let hint = "turn it off if this host is no router, or drop forwarded packets to the VIPs";
                let text = "on: packets to a VIP that are not steered (bypass, no service) would be routed";
                found.warn("ip_forward", family, text, hint);
            }
            // A kernel without that family.
            Err(_) => {}
        }
    }
}

fn maps(session: &Session, found: &mut Findings) {
    let control = match Maps::open_pinned(&session.paths.instance).and_then(|maps| maps.control()) {
        Ok(control) => control,
        Err(datapath::Error::NotLoaded(_)) => {
            let hint = "`lbx attach` or `lbx run` loads it";
            return found.warn("maps", "", "nothing is loaded", hint);
        }
        Err(error) => return found.fail("maps", "", error.to_string(), "see docs/operations.md"),
    };
    found.ok("maps", "", "pinned, with the layout of this lbx");
    if control.flags & flags::BYPASS != 0 {
        found.warn("bypass", "", "on: every packet passes as on a plain bridge", "`lbx bypass off` ends it");
    }
    if control.flags & flags::OBSERVE != 0 {
        let hint = "attach again without --observe to steer";
        found.warn("observe", "", "verdicts are computed and counted, every packet passes", hint);
    }
}
