//! No target left: RST or unreachable.

use super::enter::SlowPath;
use crate::maps::scratch::Scratch;
use crate::packet::frame::Frame;
use crate::steps::env::Env;
use crate::verdict::Action;
use lbx_common::reason::Reason;

/// No target left: RST or unreachable.
pub struct Reject;

impl SlowPath for Reject {
    #[inline(always)]
    fn run<F: Frame>(_frame: F, _env: &Env, _note: &Scratch) -> Result<Action, Reason> {
        Err(Reason::NoTarget)
    }
}
