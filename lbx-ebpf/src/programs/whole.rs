//! The whole engine, for packets that are not plain.

use super::enter::SlowPath;
use crate::maps::scratch::Scratch;
use crate::packet::frame::Frame;
use crate::steps::env::Env;
use crate::steps::{self, Outcome};
use lbx_common::flow::TargetWord;

/// A packet that the hot path left as it was.
pub struct Whole;

impl SlowPath for Whole {
    #[inline(always)]
    fn run<F: Frame>(frame: F, env: &Env, note: &Scratch) -> Outcome {
        let opened = (note.target != TargetWord::NONE).then_some(note.target);
        steps::whole(frame, env, opened)
    }
}
