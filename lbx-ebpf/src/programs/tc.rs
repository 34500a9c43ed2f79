//! Steering at tc.

use crate::packet::tc::TcFrame;
use crate::steps::hot;
use crate::verdict;
use aya_ebpf::programs::TcContext;

/// Steers a frame.
#[inline(always)]
pub fn run(ctx: &TcContext) -> i32 {
    let (outcome, observe) = hot::steer(TcFrame::new(ctx));
    #[cfg(feature = "log")]
    if let Err(reason) = outcome {
        aya_log_ebpf::debug!(ctx, "tc: reason {}, observing {}", reason as u8, observe as u8);
    }
    verdict::tc(outcome, observe)
}
