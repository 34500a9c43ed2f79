//! The depth of a target's queue as first packets find it, for user space that explains their choice.

use crate::packet::frame::Frame;
use crate::packet::xdp::XdpFrame;
use crate::steps::pick;
use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_PASS};
use aya_ebpf::programs::XdpContext;

/// Reads a [`lbx_common::flow::TargetWord`] from the first 4 bytes of the packet and writes the answer of
/// [`pick::lbx_ring_depth`] (native byte order) into the first 8.
#[inline(always)]
pub fn run(ctx: &XdpContext) -> u32 {
    let packet = XdpFrame::new(ctx).packet();
    let Some(word) = packet.read::<u32>(0) else { return XDP_ABORTED };
    let depth = pick::lbx_ring_depth(word);
    match XdpFrame::new(ctx).packet().write(0, depth as u64) {
        Some(()) => XDP_PASS,
        None => XDP_ABORTED,
    }
}
