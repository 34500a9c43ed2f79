//! What is known at this moment of a queue of a target: how many flows it has open, and where its ring is.

use crate::limits::{MAX_QUEUES, MAX_TARGETS};
use crate::target::weight_index;
use bytemuck::{Pod, Zeroable};

/// Entries of the `live` map: one per (target, queue), at [`weight_index`].
pub const LIVES: u32 = MAX_TARGETS * MAX_QUEUES;

/// One queue of one target.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug, Default)]
pub struct Live {
    /// Records of flows that carry [`crate::flow::flags::COUNTED`] and name the queue. The kernel adds and takes away;
    /// user space puts it right.
    pub held: i64,
    /// Open flows beyond those: recorded without the mark, less those that are marked and idle for too long. User space
    /// writes it.
    pub adjust: i64,
    /// Kernel address of the queue's ring; of queue 0 it is in the target itself. 0 if unknown.
    pub ring: u64,
    #[doc(hidden)]
    pub reserved: u64,
}

impl Live {
    /// Flows that are open.
    #[inline(always)]
    pub const fn open(&self) -> u32 {
        let open = self.held.wrapping_add(self.adjust);
        if open < 0 {
            0
        } else if open > u32::MAX as i64 {
            u32::MAX
        } else {
            open as u32
        }
    }
}

/// Where a queue of a target is in the map.
#[inline(always)]
pub const fn index(target: u32, queue: u8) -> u32 {
    weight_index(target, queue as u32)
}

/// What a walk over the flow table found of a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Walked {
    /// Records that carry the mark.
    pub marked: i64,
    /// Flows that are open: not closed, not idle for too long.
    pub open: i64,
}

impl Walked {
    /// What is to be added to [`Live::held`], which was `before` and `after` the walk. What it moved by meanwhile is no
    /// drift: the walk may have seen any part of it.
    pub const fn correction(&self, before: i64, after: i64) -> i64 {
        let (low, high) = if before < after { (before, after) } else { (after, before) };
        if self.marked < low {
            self.marked - low
        } else if self.marked > high {
            self.marked - high
        } else {
            0
        }
    }

    /// [`Live::adjust`].
    pub const fn adjust(&self) -> i64 {
        self.open - self.marked
    }
}

const _: () = assert!(size_of::<Live>() == 32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_flows_are_never_less_than_none() {
        let live = |held, adjust| Live { held, adjust, ..Live::default() }.open();
        assert_eq!((live(5, 0), live(5, -2), live(5, 7), live(5, -9)), (5, 3, 12, 0));
        assert_eq!((live(i64::MAX, 0), live(-1, 0)), (u32::MAX, 0));
    }

    #[test]
    fn only_what_nobody_did_meanwhile_is_drift() {
        let walked = Walked { marked: 10, open: 7 };
        assert_eq!(walked.correction(10, 10), 0);
        assert_eq!(walked.correction(8, 12), 0, "the walk was under way while four came");
        assert_eq!(walked.correction(12, 8), 0, "or went");
        assert_eq!((walked.correction(12, 15), walked.correction(5, 7)), (-2, 3));
        assert_eq!(walked.adjust(), -3, "three are idle");
    }
}
