//! Programs that read the queues of vNICs out of the kernel. Entry points only.
//!
//! An object of its own: they read kernel memory by offsets, which needs the kernel's type information and rights
//! that the datapath does without, and a host without them must still steer.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics))]
#![cfg_attr(
    target_arch = "bpf",
    expect(internal_features, reason = "atomic add: core::sync::atomic has none on bpf")
)]
#![expect(missing_docs, reason = "the macros of the entry points drop their documentation")]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the macros of the entry points pass the context by value"
)]

mod arrive;
mod find;
#[path = "../kernel.rs"]
mod kernel;
mod maps;
#[path = "../object.rs"]
mod object;
mod read;

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use core::ffi::c_void;

/// Tells of every queue of a tap that some process holds open.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn lbx_find_queues(ctx: *mut c_void) -> i32 {
    find::run(ctx);
    0
}

/// Reads the rings of a part of the watched queues, for `BPF_PROG_TEST_RUN` only.
#[raw_tracepoint]
pub fn lbx_read_rings(ctx: RawTracePointContext) -> i32 {
    read::run(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// Counts frames that XDP sends into watched queues, at the tracepoint `xdp_devmap_xmit`.
#[raw_tracepoint]
pub fn lbx_arrivals(ctx: RawTracePointContext) -> i32 {
    // to_dev, sent, drops, err (include/trace/events/xdp.h).
    arrive::run(ctx.arg(1), ctx.arg(2), ctx.arg(3), ctx.arg(4));
    0
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
