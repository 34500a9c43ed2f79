//! Finding queues: every open file of every task (or of one process) that is a queue of a tap.

use crate::kernel::{member, offsets, read, ring};
use crate::read::holds;
use aya_ebpf::bindings::seq_file;
use aya_ebpf::helpers::generated::bpf_seq_write;
use core::ffi::c_void;
use lbx_common::queue::{Found, Watched};

/// `/dev/net/tun` is character device 10:200 (Documentation/admin-guide/devices.txt), as a `dev_t` of the kernel.
const TUN: u32 = (10 << 20) + 200;

/// For one file. `struct bpf_iter__task_file`: meta, task, fd, file (kernel/bpf/task_iter.c).
#[inline(always)]
pub fn run(ctx: *mut c_void) {
    let base = ctx as u64;
    // Read as plain memory: typed pointers of the context would need offsets known when this was compiled.
    let task: u64 = read(base + 8);
    let fd: u32 = read(base + 16);
    let file: u64 = read(base + 24);
    if task == 0 || file == 0 {
        return;
    }
    let at = offsets();
    let inode: u64 = member(file, at.file_inode);
    if member::<u32>(inode, at.inode_rdev) != TUN {
        return;
    }
    let queue: u64 = member(file, at.file_private);
    let tun: u64 = member(queue, at.queue_tun);
    let dev: u64 = member(tun, at.tun_dev);
    let net: u64 = member(dev, at.dev_net);
    let number = member::<u16>(queue, at.queue_index) as u32;
    let queues: u32 = member(tun, at.tun_queues);
    // Opened and not, or no longer, attached to a device; or detached.
    if queue == 0 || tun == 0 || number >= queues || !holds(tun, number, queue, &at) {
        return;
    }
    let found = Found {
        at: Watched { file: queue, tun, dev, ifindex: member(dev, at.dev_ifindex), queue: number },
        netns: member(net, at.net_inum),
        pid: member(task, at.task_tgid),
        fd,
        queues,
        ring: ring(queue, &at),
    };
    // SAFETY: the context of this program begins with a pointer to `struct bpf_iter_meta`, which begins with the
    // pointer to the sequence file; the verifier knows both.
    let seq: *mut seq_file = unsafe { **ctx.cast::<*const *mut seq_file>() };
    // SAFETY: `found` is initialised, padding-free (Pod) and as long as said; the output is cut if it has no room.
    unsafe { bpf_seq_write(seq, (&raw const found).cast(), size_of::<Found>() as u32) };
}
