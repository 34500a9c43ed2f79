//! Larger than the target's MTU: the sender is told.

use super::enter::SlowPath;
use crate::maps::scratch::Scratch;
use crate::packet::frame::Frame;
use crate::packet::parse;
use crate::slow::locate::locate;
use crate::slow::quote;
use crate::steps::env::Env;
use crate::steps::{Outcome, stats};
use lbx_common::reason::Reason;
use lbx_common::reply::error::Report;

/// "Don't fragment" in the high byte of flags and fragment offset (RFC 791).
const DONT_FRAGMENT: u8 = 0x40;

/// Larger than the target's MTU.
pub struct TooBig;

impl SlowPath for TooBig {
    #[inline(always)]
    fn run<F: Frame>(frame: F, env: &Env, note: &Scratch) -> Outcome {
        let ether = parse::ether(frame, frame.packet()).ok_or(Reason::TooBig)?;
        let located = locate(frame, &ether).map_err(|_| Reason::TooBig)?;
        let flags: u8 = frame.load(located.l3 + 6).ok_or(Reason::TooBig)?;
        if env.observe || located.v4 && flags & DONT_FRAGMENT == 0 {
            return Err(Reason::TooBig);
        }
        let report = Report::TooBig(note.mtu);
        let outcome = quote::report(frame, env, located, report, Reason::TooBigAnswered, Reason::TooBig);
        if outcome.is_ok() {
            stats::service(note.service as u32, |s| s.rejects += 1);
        }
        outcome
    }
}
