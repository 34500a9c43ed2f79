//! The kernel half of lbx. Entry points only.
//!
//! On any target but `bpf` this builds as an empty program, so that `cargo check`, clippy and docs cover
//! the datapath on a machine without the eBPF toolchain.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics, asm_experimental_arch))]
#![cfg_attr(
    target_arch = "bpf",
    expect(internal_features, reason = "compare-and-swap: core::sync::atomic has none on bpf")
)]
#![expect(missing_docs, reason = "the macros of the entry points drop their documentation")]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the macros of the entry points pass the context by value"
)]

mod atomic;
#[expect(dead_code, reason = "of the door to kernel memory, the queues' programs need the rest")]
mod kernel;
mod maps;
mod object;
mod packet;
mod programs;
mod rewrite;
mod slow;
mod steps;
mod verdict;

use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use programs::{
    back, clock, cpu, depth, enter, slow_answer, slow_decap, slow_encap, slow_headers, slow_icmp, slow_later,
    slow_moved, slow_reject, slow_too_big, tc, whole, xdp as native,
};

/// Frames from outside, before the kernel makes them skbs.
#[xdp]
#[inline(always)]
pub fn lbx_xdp(ctx: XdpContext) -> u32 {
    native::run(&ctx)
}

/// Frames of local VMs, and of uplinks where XDP would be wrong.
#[classifier]
#[inline(always)]
pub fn lbx_tc(ctx: TcContext) -> i32 {
    tc::run(&ctx)
}

/// Frames the host itself sends, at egress of the switch device, and answers of nat targets, at egress of the
/// other ports.
#[classifier]
#[inline(always)]
pub fn lbx_tc_egress(ctx: TcContext) -> i32 {
    tc::leave(&ctx)
}

/// Writes the kernel's time into the packet, for `BPF_PROG_TEST_RUN` only.
#[xdp]
pub fn lbx_clock(ctx: XdpContext) -> u32 {
    clock::run(&ctx)
}

/// Reads the depth of a target's queue, for `BPF_PROG_TEST_RUN` only. Loaded where the kernel lets its memory be read.
#[xdp]
pub fn lbx_depth(ctx: XdpContext) -> u32 {
    depth::run(&ctx)
}

/// Frames whose queue is chosen, on the CPU that hits it, behind `cpus`.
#[xdp(map = "cpumap")]
pub fn lbx_cpu(ctx: XdpContext) -> u32 {
    cpu::run(&ctx)
}

/// ARP, neighbour solicitation and echo, behind `xdp_tail`.
#[xdp]
pub fn lbx_xdp_answer(ctx: XdpContext) -> u32 {
    enter::xdp::<slow_answer::Answer>(&ctx)
}

/// ARP, neighbour solicitation and echo, behind `tc_tail`.
#[classifier]
pub fn lbx_tc_answer(ctx: TcContext) -> i32 {
    enter::tc::<slow_answer::Answer>(&ctx)
}

/// Options, extension headers, fragments, behind `xdp_tail`.
#[xdp]
pub fn lbx_xdp_headers(ctx: XdpContext) -> u32 {
    enter::xdp::<slow_headers::Headers>(&ctx)
}

/// Options, extension headers, fragments, behind `tc_tail`.
#[classifier]
pub fn lbx_tc_headers(ctx: TcContext) -> i32 {
    enter::tc::<slow_headers::Headers>(&ctx)
}

/// ICMP errors, behind `xdp_tail`.
#[xdp]
pub fn lbx_xdp_icmp(ctx: XdpContext) -> u32 {
    enter::xdp::<slow_icmp::Icmp>(&ctx)
}

/// ICMP errors, behind `tc_tail`.
#[classifier]
pub fn lbx_tc_icmp(ctx: TcContext) -> i32 {
    enter::tc::<slow_icmp::Icmp>(&ctx)
}

/// No target left, behind `xdp_tail`.
#[xdp]
pub fn lbx_xdp_reject(ctx: XdpContext) -> u32 {
    enter::xdp::<slow_reject::Reject>(&ctx)
}

/// No target left, behind `tc_tail`.
#[classifier]
pub fn lbx_tc_reject(ctx: TcContext) -> i32 {
    enter::tc::<slow_reject::Reject>(&ctx)
}

/// Larger than the target's MTU, behind `xdp_tail`.
#[xdp]
pub fn lbx_xdp_too_big(ctx: XdpContext) -> u32 {
    enter::xdp::<slow_too_big::TooBig>(&ctx)
}

/// Larger than the target's MTU, behind `tc_tail`.
#[classifier]
pub fn lbx_tc_too_big(ctx: TcContext) -> i32 {
    enter::tc::<slow_too_big::TooBig>(&ctx)
}

/// Answers of nat targets, behind `xdp_tail`.
#[xdp]
pub fn lbx_xdp_back(ctx: XdpContext) -> u32 {
    enter::xdp::<back::Back>(&ctx)
}

/// Answers of nat targets, behind `tc_tail`.
#[classifier]
pub fn lbx_tc_back(ctx: TcContext) -> i32 {
    enter::tc::<back::Back>(&ctx)
}

/// Later fragments, behind `xdp_tail`.
#[xdp]
pub fn lbx_xdp_later(ctx: XdpContext) -> u32 {
    enter::xdp::<slow_later::Later>(&ctx)
}

/// Later fragments, behind `tc_tail`.
#[classifier]
pub fn lbx_tc_later(ctx: TcContext) -> i32 {
    enter::tc::<slow_later::Later>(&ctx)
}

/// Flows of moved targets, behind `xdp_tail`.
#[xdp]
pub fn lbx_xdp_moved(ctx: XdpContext) -> u32 {
    enter::xdp::<slow_moved::Moved>(&ctx)
}

/// Flows of moved targets, behind `tc_tail`.
#[classifier]
pub fn lbx_tc_moved(ctx: TcContext) -> i32 {
    enter::tc::<slow_moved::Moved>(&ctx)
}

/// Frames into the tunnel to another host, behind `xdp_tail`.
#[xdp]
pub fn lbx_xdp_encap(ctx: XdpContext) -> u32 {
    enter::xdp::<slow_encap::Encap>(&ctx)
}

/// Frames into the tunnel to another host, behind `tc_tail`.
#[classifier]
pub fn lbx_tc_encap(ctx: TcContext) -> i32 {
    enter::tc::<slow_encap::Encap>(&ctx)
}

/// Frames out of the tunnels of other hosts, behind `xdp_tail`.
#[xdp]
pub fn lbx_xdp_decap(ctx: XdpContext) -> u32 {
    enter::xdp::<slow_decap::Decap>(&ctx)
}

/// Frames out of the tunnels of other hosts, behind `tc_tail`.
#[classifier]
pub fn lbx_tc_decap(ctx: TcContext) -> i32 {
    enter::tc::<slow_decap::Decap>(&ctx)
}

/// Whatever is not plain, behind `xdp_tail`.
#[xdp]
#[inline(always)] // a call costs stack
pub fn lbx_xdp_whole(ctx: XdpContext) -> u32 {
    enter::xdp::<whole::Whole>(&ctx)
}

/// Whatever is not plain, behind `tc_tail`.
#[classifier]
#[inline(always)] // a call costs stack
pub fn lbx_tc_whole(ctx: TcContext) -> i32 {
    enter::tc::<whole::Whole>(&ctx)
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
