//! Power of two choices: which of two candidates a new flow goes to.

use crate::flow::TargetWord;
use crate::target::{Target, flags};

/// Members that are asked for a second candidate when the flow's slots name only one target.
pub const ASKED: u32 = 8;

/// What a candidate has to do already.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Load {
    /// Frames in its queue; `None` if that is not known.
    pub depth: Option<u32>,
    /// Flows it has open.
    pub open: u32,
    /// Its weight.
    pub weight: u32,
}

/// Whether a word names the place that another names: the target, and the queue too where queues are chosen.
#[inline(always)]
pub const fn is_same_place(first: TargetWord, word: TargetWord, target: &Target) -> bool {
    word.target() == first.target() && (target.flags & flags::QUEUES == 0 || word.queue() == first.queue())
}

/// Whether the second candidate's queue is shorter: (frames + open flows) per weight. Both were drawn by weight, so
/// with equal queues the first keeps the flow and the shares are those of the weights. A depth counts only if both are
/// known. A weight of 0 (changed after the table was built) stands behind any other.
#[inline(always)]
pub const fn second_is_shorter(first: &Load, second: &Load) -> bool {
    let (frames_first, frames_second) = match (first.depth, second.depth) {
        (Some(first), Some(second)) => (first, second),
        _ => (0, 0),
    };
    if second.weight == 0 {
        return false;
    }
    if first.weight == 0 {
        return true;
    }
    // Two words of 32 bits: their product fits, and no division is needed.
    let length_first = first.open.saturating_add(frames_first) as u64;
    let length_second = second.open.saturating_add(frames_second) as u64;
    length_first * (second.weight as u64) > length_second * (first.weight as u64)
}

#[cfg(test)]
mod tests;
