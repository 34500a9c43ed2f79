//! The kernel's jiffies for user space, which can read them nowhere else.

use crate::packet::frame::Frame;
use crate::packet::xdp::XdpFrame;
use crate::steps::clock;
use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_PASS};
use aya_ebpf::programs::XdpContext;

/// Writes jiffies64 (native byte order) into the first 8 bytes of the packet.
#[inline(always)]
pub fn run(ctx: &XdpContext) -> u32 {
    match XdpFrame::new(ctx).packet().write(0, clock::jiffies()) {
        Some(()) => XDP_PASS,
        None => XDP_ABORTED,
    }
}
