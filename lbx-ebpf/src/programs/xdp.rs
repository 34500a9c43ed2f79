//! Steering at XDP.

use crate::packet::xdp::XdpFrame;
use crate::steps;
use crate::verdict;
use aya_ebpf::programs::XdpContext;

/// Steers a frame.
#[inline(always)]
pub fn run(ctx: &XdpContext) -> u32 {
    let (outcome, observe) = steps::steer(XdpFrame::new(ctx));
    verdict::xdp(outcome, observe)
}
