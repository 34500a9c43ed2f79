//! ARP, neighbour solicitation and echo for a VIP.

use super::enter::SlowPath;
use crate::maps::scratch::Scratch;
use crate::packet::frame::Frame;
use crate::steps::env::Env;
use crate::verdict::Action;
use lbx_common::reason::Reason;

/// ARP, neighbour solicitation and echo for a VIP.
pub struct Answer;

impl SlowPath for Answer {
    #[inline(always)]
    fn run<F: Frame>(_frame: F, _env: &Env, _note: &Scratch) -> Result<Action, Reason> {
        Ok(Action::Pass)
    }
}
