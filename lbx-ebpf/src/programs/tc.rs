//! Steering at tc.

use crate::packet::tc::TcFrame;
use crate::steps::{hot, leave};
use crate::verdict;
use aya_ebpf::programs::TcContext;

/// Steers a frame.
#[inline(always)]
pub fn run(ctx: &TcContext) -> i32 {
    let code = hot::steer(TcFrame::new(ctx));
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(ctx, "tc: verdict {}", code);
    code
}

/// Steers or translates a frame on its way out.
#[inline(always)]
pub fn leave(ctx: &TcContext) -> i32 {
    let (outcome, observe) = leave::leave(TcFrame::new(ctx));
    verdict::tc(outcome, observe)
}
