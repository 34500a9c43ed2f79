//! ICMP errors about a flow.

use super::enter::SlowPath;
use crate::maps::scratch::Scratch;
use crate::packet::frame::Frame;
use crate::steps::env::Env;
use crate::verdict::Action;
use lbx_common::reason::Reason;

/// ICMP errors about a flow.
pub struct Icmp;

impl SlowPath for Icmp {
    #[inline(always)]
    fn run<F: Frame>(_frame: F, _env: &Env, _note: &Scratch) -> Result<Action, Reason> {
        Err(Reason::IcmpUnknownFlow)
    }
}
