//! IPv4 options, IPv6 extension headers and fragments.

use super::enter::SlowPath;
use crate::maps::scratch::Scratch;
use crate::packet::frame::Frame;
use crate::steps::env::Env;
use crate::verdict::Action;
use lbx_common::reason::Reason;

/// IPv4 options, IPv6 extension headers and fragments.
pub struct Headers;

impl SlowPath for Headers {
    #[inline(always)]
    fn run<F: Frame>(_frame: F, _env: &Env, _note: &Scratch) -> Result<Action, Reason> {
        Err(Reason::FragmentUnknown)
    }
}
