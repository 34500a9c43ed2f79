//! Where a new flow is recorded: which way of which of its two buckets, if any.

use crate::flow::{Bucket, FlowEntry, IdleLimits, expired, flags, idle};

/// Where to record. The numbers are ways.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// In the second bucket rather than in the first.
    pub second: bool,
    /// The way, below [`crate::limits::WAYS`].
    pub way: u32,
    /// An unconfirmed entry has to give way.
    pub evicts: bool,
}

/// What an entry is worth.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Worth {
    /// Free or idle for too long.
    Nothing,
    /// One packet, at least an epoch ago: a flood looks like this.
    Little,
    /// A live flow.
    Live,
}

#[inline(always)]
const fn worth(entry: &FlowEntry, now: u16, limits: &IdleLimits) -> Worth {
    if expired(entry, now, limits) {
        Worth::Nothing
    } else if entry.flags & flags::CONFIRMED == 0 && idle(now, entry.epoch) >= 1 {
        Worth::Little
    } else {
        Worth::Live
    }
}

/// Best way of one bucket: how many can be had for nothing, the last of them, and the last unconfirmed one.
#[derive(Clone, Copy)]
struct Survey {
    room: u32,
    free: u32,
    little: Option<u32>,
}

#[inline(always)]
const fn survey(bucket: &Bucket, now: u16, limits: &IdleLimits) -> Survey {
    let mut found = Survey { room: 0, free: 0, little: None };
    let mut way = 0;
    while way < bucket.ways.len() {
        match worth(&bucket.ways[way], now, limits) {
            Worth::Nothing => {
                found.room += 1;
                found.free = way as u32;
            }
            Worth::Little => found.little = Some(way as u32),
            Worth::Live => {}
        }
        way += 1;
    }
    found
}

/// Chooses between the two buckets of a flow: the one with more room, the first if equal; without any room an
/// unconfirmed entry that has been idle for an epoch; a live flow never gives way.
#[inline(always)]
pub const fn place(one: &Bucket, two: &Bucket, now: u16, limits: &IdleLimits) -> Option<Place> {
    let (a, b) = (survey(one, now, limits), survey(two, now, limits));
    if b.room > a.room {
        return Some(Place { second: true, way: b.free, evicts: false });
    }
    if a.room > 0 {
        return Some(Place { second: false, way: a.free, evicts: false });
    }
    match (a.little, b.little) {
        (Some(way), _) => Some(Place { second: false, way, evicts: true }),
        (None, Some(way)) => Some(Place { second: true, way, evicts: true }),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{IdleClass, TargetWord, seal, with_class};

    const LIMITS: IdleLimits = IdleLimits { epochs: [5, 300, 10, 30] };
    const NOW: u16 = 3; // entries of "before" have epochs below the wrap

    fn entry(age: u16, class: IdleClass, confirmed: bool) -> FlowEntry {
        let target = TargetWord::new(1, 0, 0);
        FlowEntry {
            seal: seal(77, target),
            target,
            epoch: NOW.wrapping_sub(age),
            flags: with_class(if confirmed { flags::CONFIRMED } else { 0 }, class),
        }
    }

    fn full(age: u16, class: IdleClass, confirmed: bool) -> Bucket {
        Bucket { ways: [entry(age, class, confirmed); 4] }
    }

    #[test]
    fn the_emptier_bucket_is_taken_and_the_first_if_equal() {
        let empty = Bucket::default();
        let mut one_used = empty;
        one_used.ways[0] = entry(0, IdleClass::Established, true);
        assert_eq!(place(&empty, &empty, NOW, &LIMITS), Some(Place { second: false, way: 3, evicts: false }));
        assert_eq!(
            place(&one_used, &empty, NOW, &LIMITS),
            Some(Place { second: true, way: 3, evicts: false })
        );
        assert_eq!(place(&one_used, &one_used, NOW, &LIMITS).map(|p| p.second), Some(false));
    }

    #[test]
    fn an_expired_flow_gives_way_across_the_wrap_of_the_epoch() {
        let live = full(300, IdleClass::Established, true);
        let mut bucket = live;
        bucket.ways[2] = entry(301, IdleClass::Established, true);
        assert_eq!(place(&bucket, &live, NOW, &LIMITS), Some(Place { second: false, way: 2, evicts: false }));
        assert_eq!(place(&live, &bucket, NOW, &LIMITS), Some(Place { second: true, way: 2, evicts: false }));
    }

    #[test]
    fn an_unconfirmed_flow_gives_way_after_an_epoch_and_a_live_one_never() {
        let live = full(4, IdleClass::Datagram, true);
        let fresh = full(0, IdleClass::New, false);
        let mut flood = live;
        flood.ways[1] = entry(1, IdleClass::New, false);
        assert_eq!(place(&live, &live, NOW, &LIMITS), None);
        assert_eq!(place(&fresh, &fresh, NOW, &LIMITS), None);
        assert_eq!(place(&live, &flood, NOW, &LIMITS), Some(Place { second: true, way: 1, evicts: true }));
        assert_eq!(place(&flood, &flood, NOW, &LIMITS).map(|p| p.second), Some(false));
    }
}
