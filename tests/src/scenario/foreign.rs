//! Somebody else's program on an interface: one that does nothing, under a name of its own.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `BPF_TCX_EGRESS` of include/uapi/linux/bpf.h.
pub const TCX_EGRESS: u32 = 47;

const PROG_LOAD: u32 = 5;
const LINK_CREATE: u32 = 28;
/// `BPF_PROG_TYPE_SCHED_CLS`.
const SCHED_CLS: u32 = 3;
/// `r0 = TCX_NEXT; exit`.
const PASS: [u64; 2] = [0xffff_ffff_0000_00b7, 0x95];

/// The first fields of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log: [u32; 4],
    version: u32,
    flags: u32,
    name: [u8; 16],
    rest: [u32; 4],
}

/// Loads the program and hangs it on an interface of the caller's namespace; it goes with what is answered.
pub fn attach(name: &str, ifindex: u32, hook: u32) -> io::Result<OwnedFd> {
    let mut load = Load {
        kind: SCHED_CLS,
        count: PASS.len() as u32,
        instructions: PASS.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log: [0; 4],
        version: 0,
        flags: 0,
        name: [0; 16],
        rest: [0; 4],
    };
    load.name[..name.len()].copy_from_slice(name.as_bytes());
    let program = bpf(PROG_LOAD, (&raw mut load).cast(), size_of::<Load>())?;
    // prog_fd, target_ifindex, attach_type, flags, then what tcx may be told about its place.
    let mut link = [program.as_raw_fd() as u32, ifindex, hook, 0, 0, 0, 0, 0];
    bpf(LINK_CREATE, link.as_mut_ptr().cast(), size_of_val(&link))
}

fn bpf(command: u32, attribute: *mut libc::c_void, len: usize) -> io::Result<OwnedFd> {
    // SAFETY: both callers pass an initialised attribute of the length beside it, whose pointers are to constants.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attribute, len) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both commands answer with a descriptor the kernel just made; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
