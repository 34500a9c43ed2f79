//! Depth of a queue from counters alone: where the ring cannot be read.

/// Counters of a vNIC, all growing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Frames that lbx sent to it.
    pub sent: u64,
    /// Frames that the guest's side took out (`tx_packets` of the tap).
    pub taken: u64,
    /// Frames the tap says it dropped; of those redirected by XDP at most one in a bulk.
    pub drops: u64,
}

/// Depth as the difference of counters.
///
/// It knows neither frames that reach the vNIC without lbx (they make the difference too small) nor all those that
/// were dropped (they make it too large, for good). So the difference is taken from its smallest value of late:
/// "of late" goes back to the last time but one that the guest has taken a whole ring of frames, and at least a
/// second. A queue that is never empty in that time looks shorter than it is.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    // The smallest difference in the span before this one, and in this one.
    before: i64,
    lowest: i64,
    since: Totals,
    since_ms: u64,
}

/// A span is at least this long.
const SPAN_MS: u64 = 1000;

impl Counted {
    /// Starts to count, at 0 ms: the queue is taken to be empty.
    pub fn new(totals: Totals) -> Self {
        let now = difference(totals);
        Self { before: now, lowest: now, since: totals, since_ms: 0 }
    }

    /// The depth at a time in milliseconds, for a ring of `size` frames.
    pub fn depth(&mut self, totals: Totals, size: u32, now_ms: u64) -> u32 {
        let now = difference(totals);
        let renewed = totals.taken.saturating_sub(self.since.taken) >= size.max(1) as u64;
        if renewed && now_ms.saturating_sub(self.since_ms) >= SPAN_MS {
            self.before = self.lowest;
            self.lowest = now;
            (self.since, self.since_ms) = (totals, now_ms);
        }
        // What is beyond the ring cannot be in it: it was dropped.
        let floor = now - i64::from(size);
        self.lowest = self.lowest.min(now).max(floor);
        self.before = self.before.max(floor);
        (now - self.before.min(self.lowest)) as u32
    }
}

fn difference(totals: Totals) -> i64 {
    totals.sent.wrapping_sub(totals.taken).wrapping_sub(totals.drops) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(sent: u64, taken: u64, drops: u64) -> Totals {
        Totals { sent, taken, drops }
    }

    #[test]
    fn a_queue_fills_and_drains() {
        let mut counted = Counted::new(totals(500, 480, 20));
        assert_eq!(counted.depth(totals(600, 480, 20), 1000, 10), 100);
        assert_eq!(counted.depth(totals(900, 480, 20), 1000, 5000), 400, "a stopped guest, however long");
        assert_eq!(counted.depth(totals(900, 700, 20), 1000, 5010), 180);
        assert_eq!(counted.depth(totals(900, 880, 20), 1000, 5020), 0);
    }

    #[test]
    fn it_is_never_deeper_than_its_ring() {
        let mut counted = Counted::new(totals(0, 0, 0));
        // 1500 sent into a ring of 1000 that told of one drop only.
        assert_eq!(counted.depth(totals(1500, 0, 1), 1000, 10), 1000);
        assert_eq!(counted.depth(totals(1500, 1000, 1), 1000, 20), 0);
    }

    #[test]
    fn losses_that_nobody_counted_are_forgotten() {
        let mut counted = Counted::new(totals(0, 0, 0));
        // 40 frames were lost and not counted: they seem to wait.
        assert_eq!(counted.depth(totals(100, 60, 0), 1000, 10), 40);
        let mut last = 40;
        for round in 1..=30_u64 {
            last = counted.depth(totals(100 + 100 * round, 60 + 100 * round, 0), 1000, 10 + 100 * round);
        }
        assert_eq!(last, 0);
    }

    #[test]
    fn foreign_frames_do_not_make_it_negative() {
        let mut counted = Counted::new(totals(0, 0, 0));
        assert_eq!(counted.depth(totals(0, 5000, 0), 1000, 10), 0);
        assert_eq!(counted.depth(totals(70, 5000, 0), 1000, 20), 70);
    }
}
