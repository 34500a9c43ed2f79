//! The steps of steering, in order: parse, service, flow, select, target state, rewrite, emit.

pub mod clock;
pub mod env;
pub mod rate;

use crate::packet::frame::Frame;
use crate::verdict::Action;
use lbx_common::reason::Reason;

/// Steers a frame; `true` if the port observes only.
#[inline(always)]
pub fn steer<F: Frame>(_frame: F) -> (Result<Action, Reason>, bool) {
    (Ok(Action::Pass), false)
}
