//! Steering at XDP.

use crate::packet::xdp::XdpFrame;
use crate::steps::hot;
use aya_ebpf::programs::XdpContext;

/// Steers a frame.
#[inline(always)]
pub fn run(ctx: &XdpContext) -> u32 {
    let code = hot::steer(XdpFrame::new(ctx));
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(ctx, "xdp: verdict {}", code);
    code
}
