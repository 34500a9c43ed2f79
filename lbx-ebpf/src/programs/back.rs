//! The way back of nat.

use super::enter::SlowPath;
use crate::maps::scratch::Scratch;
use crate::packet::frame::Frame;
use crate::packet::parse;
use crate::steps::env::Env;
use crate::steps::{self, Outcome};
use lbx_common::reason::Reason;

/// A frame from the address of a nat target.
pub struct Back;

impl SlowPath for Back {
    #[inline(always)]
    fn run<F: Frame>(frame: F, env: &Env, _note: &Scratch) -> Outcome {
        let packet = frame.packet();
        let ether = parse::ether(frame, packet).ok_or(Reason::NotTranslated)?;
        steps::back::translate(frame, packet, env, &ether)
    }
}
