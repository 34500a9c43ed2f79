//! Larger than the target's MTU: the sender is told.

use super::enter::SlowPath;
use crate::maps::scratch::Scratch;
use crate::packet::frame::Frame;
use crate::steps::env::Env;
use crate::verdict::Action;
use lbx_common::reason::Reason;

/// Larger than the target's MTU: the sender is told.
pub struct TooBig;

impl SlowPath for TooBig {
    #[inline(always)]
    fn run<F: Frame>(_frame: F, _env: &Env, _note: &Scratch) -> Result<Action, Reason> {
        Err(Reason::TooBig)
    }
}
