//! The whole engine, for packets that are not plain.

use super::enter::SlowPath;
use crate::maps::scratch::Scratch;
use crate::packet::frame::Frame;
use crate::steps::env::Env;
use crate::steps::open::Opened;
use crate::steps::{self, Outcome};

/// A packet that the hot path left as it was.
pub struct Whole;

impl SlowPath for Whole {
    #[inline(always)]
    fn run<F: Frame>(frame: F, env: &Env, note: &Scratch) -> Outcome {
        steps::whole(frame, env, Opened { why: note.reason, word: note.target })
    }
}
