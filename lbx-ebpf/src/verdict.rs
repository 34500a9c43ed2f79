//! The edge: the only place that turns a cause into an XDP or tc action, and that counts it.

use crate::maps::REASON_COUNTS;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT};
use lbx_common::reason::{Kind, Reason};

/// What happens to a frame when nothing is wrong with it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It goes on as it is: of no service, or rewritten and left to the bridge.
    Pass,
    /// A redirect was set up.
    Redirected,
    /// The frame was turned into an answer and a redirect set up.
    Answered(Reason),
}

/// `TC_ACT_UNSPEC`, also `TCX_NEXT`: later programs and filters of the hook stay in force.
const TC_NEXT: i32 = -1;
/// `TC_ACT_SHOT`.
const TC_SHOT: i32 = 2;
/// `TC_ACT_REDIRECT`.
const TC_REDIRECT: i32 = 7;

/// What the hook is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Pass,
    Drop,
    Redirect,
}

/// Counts a cause or an event.
#[inline(always)]
pub fn count(reason: Reason) {
    if let Some(counter) = REASON_COUNTS.get_ptr_mut(reason as u32) {
        // SAFETY: a non-null value pointer of a per-CPU array; only this CPU writes it.
        unsafe { *counter += 1 };
    }
}

/// Counts and decides. While observing, nothing is dropped.
#[inline(always)]
fn fate(outcome: Result<Action, Reason>, observe: bool) -> Fate {
    match outcome {
        Ok(Action::Pass) => Fate::Pass,
        Ok(Action::Redirected) => Fate::Redirect,
        Ok(Action::Answered(reason)) => {
            count(reason);
            Fate::Redirect
        }
        Err(reason) => {
            count(reason);
            match reason.kind() {
                Kind::Drop if observe => Fate::Pass,
                // An answer or an event is never the cause of a verdict; if it were, passing would let a packet
                // of a service through.
                Kind::Drop | Kind::Answer | Kind::Event => Fate::Drop,
                Kind::Pass => Fate::Pass,
            }
        }
    }
}

/// The XDP action of an outcome.
#[inline(always)]
pub fn xdp(outcome: Result<Action, Reason>, observe: bool) -> u32 {
    match fate(outcome, observe) {
        Fate::Pass => XDP_PASS,
        Fate::Drop => XDP_DROP,
        Fate::Redirect => XDP_REDIRECT,
    }
}

/// The tc action of an outcome.
#[inline(always)]
pub fn tc(outcome: Result<Action, Reason>, observe: bool) -> i32 {
    match fate(outcome, observe) {
        Fate::Pass => TC_NEXT,
        Fate::Drop => TC_SHOT,
        Fate::Redirect => TC_REDIRECT,
    }
}
