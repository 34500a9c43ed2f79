//! Iterators.

use super::{bpf_fd, cmd, raw};
use bytemuck::{Pod, Zeroable};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

/// `BPF_TRACE_ITER` of `enum bpf_attach_type`.
const TRACE_ITER: u32 = 28;

/// `BPF_LINK_CREATE` of an iterator.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct IterLink {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    info: u64,
    info_len: u32,
    pad: u32,
}

/// Makes a link of an iterator over the tasks of one process, or of all (`None`).
pub fn iter_link(program: &impl AsFd, pid: Option<u32>) -> io::Result<OwnedFd> {
    // union bpf_iter_link_info, its `task`: tid, pid, pid_fd.
    let info = [0, pid.unwrap_or(0), 0];
    let mut attr = IterLink {
        prog_fd: raw(program),
        target_fd: 0,
        attach_type: TRACE_ITER,
        flags: 0,
        info: info.as_ptr() as u64,
        info_len: size_of_val(&info) as u32,
        pad: 0,
    };
    bpf_fd(cmd::LINK_CREATE, &mut attr)
}

/// Runs an iterator once and appends what it writes to `out`.
pub fn iterate(link: &impl AsFd, out: &mut Vec<u8>) -> io::Result<()> {
    let fd = bpf_fd(cmd::ITER_CREATE, &mut [raw(link), 0])?;
    // A read gives whole records of as many files as fit its buffer (bpf_seq_read, kernel/bpf/bpf_iter.c).
    File::from(fd).read_to_end(out).map(drop)
}
