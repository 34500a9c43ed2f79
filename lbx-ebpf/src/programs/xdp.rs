//! Steering at XDP.

use crate::packet::xdp::XdpFrame;
use crate::steps::hot;
use crate::verdict;
use aya_ebpf::programs::XdpContext;

/// Steers a frame.
#[inline(always)]
pub fn run(ctx: &XdpContext) -> u32 {
    let (outcome, observe) = hot::steer(XdpFrame::new(ctx));
    #[cfg(feature = "log")]
    if let Err(reason) = outcome {
        aya_log_ebpf::debug!(ctx, "xdp: reason {}, observing {}", reason as u8, observe as u8);
    }
    verdict::xdp(outcome, observe)
}
