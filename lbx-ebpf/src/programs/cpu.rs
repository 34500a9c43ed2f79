//! On the CPU that hits the right queue: the frame goes on into the tap.

use crate::maps::{QUEUE_PORTS, TX};
use crate::packet::frame::Frame;
use crate::packet::xdp::XdpFrame;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::programs::XdpContext;
use lbx_common::addr::Mac;

/// Redirects a frame to the port of the target whose MAC it carries.
#[inline(always)]
pub fn run(ctx: &XdpContext) -> u32 {
    let Some(mac) = XdpFrame::new(ctx).packet().read::<Mac>(0) else { return XDP_DROP };
    // SAFETY: a copy of a word that user space replaces as a whole.
    match unsafe { QUEUE_PORTS.get(mac) }.copied() {
        Some(port) => TX.redirect(port, 0).unwrap_or(XDP_DROP),
        // The bridge knows where it is.
        None => XDP_PASS,
    }
}
