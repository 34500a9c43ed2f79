//! How a rare path is entered: with the note of its caller, and out through the one verdict.

use crate::maps::scratch::Scratch;
use crate::packet::frame::Frame;
use crate::packet::tc::TcFrame;
use crate::packet::xdp::XdpFrame;
use crate::steps::env::Env;
use crate::steps::stats;
use crate::verdict::{self, Action};
use aya_ebpf::programs::{TcContext, XdpContext};
use lbx_common::reason::{Kind, Reason};
use lbx_common::steer::slow::Slow;

/// What a rare path does, for both kinds of frame.
pub trait SlowPath {
    /// Runs it. `Err` drops (or passes, by the reason's kind) and counts; `Ok(Action::Answered(reason))`
    /// counts the answer. While `env.observe`, it must leave the frame as it is.
    fn run<F: Frame>(frame: F, env: &Env, note: &Scratch) -> Result<Action, Reason>;
}

/// Reads the note and runs the path; `true` if observing.
#[inline(always)]
fn enter<P: SlowPath, F: Frame>(frame: F) -> (Result<Action, Reason>, bool) {
    let Some(note) = Scratch::read() else { return (Err(Reason::Internal), false) };
    let Some(env) = Env::open(note.port) else { return (Err(Reason::Internal), false) };
    let outcome = P::run(frame, &env, &note);
    // Of these two the caller knows the service and does not come back; the others count for themselves.
    if matches!(note.slow, Slow::Reject | Slow::TooBig)
        && let Err(reason) = outcome
        && matches!(reason.kind(), Kind::Drop)
    {
        stats::service(note.service as u32, |s| s.drops += 1);
    }
    // That it is no answer of ours was counted where it came in.
    let outcome = match outcome {
        Err(Reason::NotTranslated) if F::SKB && frame.leaving() => Ok(Action::Pass),
        other => other,
    };
    (outcome, env.observe)
}

/// Entry of a rare path at XDP.
#[inline(always)]
pub fn xdp<P: SlowPath>(ctx: &XdpContext) -> u32 {
    let (outcome, observe) = enter::<P, _>(XdpFrame::new(ctx));
    verdict::xdp(outcome, observe)
}

/// Entry of a rare path at tc.
#[inline(always)]
pub fn tc<P: SlowPath>(ctx: &TcContext) -> i32 {
    let (outcome, observe) = enter::<P, _>(TcFrame::new(ctx));
    verdict::tc(outcome, observe)
}
