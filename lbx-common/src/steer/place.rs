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

/// Why a flow is not recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Both buckets are full of flows worth more.
    NoRoom,
    /// There is room, but its service is to leave it to others.
    Kept,
}

/// Ways free in a flow's first bucket with which it is taken without a look at the second. What lies in the second
/// costs every packet of its flow a cache line more, and looking there costs the first packet one. Of a table filled to
/// its capacity 19 % lie there, where the emptier of the two alone would have it 27 %, and 0.0035 % of the flows find
/// no room, where it would be 0.0014; with 2 in place of 3 it would be 0.03 %, more than the table promises.
const AMPLE: u32 = 3;

/// Chooses between the two buckets of a flow: the first if it has ample room, or else the one with more, the first if
/// equal; without any room an unconfirmed entry that has been idle for an epoch; a live flow never gives way. `kept`: so
/// many of the ways in the two are not for this flow's service, nor may it push out others for one.
#[inline(always)]
pub const fn place(
    one: &Bucket,
    two: &Bucket,
    now: u16,
    limits: &IdleLimits,
    kept: u32,
) -> Result<Place, Refused> {
    let a = survey(one, now, limits);
    if kept == 0 && a.room >= AMPLE {
        return Ok(Place { second: false, way: a.free, evicts: false });
    }
    let b = survey(two, now, limits);
    if kept != 0 && a.room + b.room <= kept {
        return Err(if a.room + b.room == 0 { Refused::NoRoom } else { Refused::Kept });
    }
    if b.room > a.room && a.room < AMPLE {
        return Ok(Place { second: true, way: b.free, evicts: false });
    }
    if a.room > 0 {
        return Ok(Place { second: false, way: a.free, evicts: false });
    }
    match (a.little, b.little) {
        (Some(way), _) => Ok(Place { second: false, way, evicts: true }),
        (None, Some(way)) => Ok(Place { second: true, way, evicts: true }),
        (None, None) => Err(Refused::NoRoom),
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
    fn the_first_bucket_is_taken_if_it_has_ample_room_and_else_the_emptier_one() {
        let with = |used: usize| {
            let mut bucket = Bucket::default();
            for way in &mut bucket.ways[..used] {
                *way = entry(0, IdleClass::Established, true);
            }
            bucket
        };
        for (one, two, second) in [
            (0, 0, false),
            (1, 0, false),
            (2, 0, true),
            (2, 1, true),
            (2, 2, false),
            (3, 4, false),
            (4, 3, true),
        ] {
            for kept in [0, 1] {
                let found = place(&with(one), &with(two), NOW, &LIMITS, kept);
                if kept == 1 && one + two == 7 {
                    assert_eq!(found, Err(Refused::Kept));
                } else {
                    assert_eq!(
                        found,
                        Ok(Place { second, way: 3, evicts: false }),
                        "{one} {two} used, {kept} kept"
                    );
                }
            }
        }
    }

    /// What the table promises of its stated capacity: fewer than one flow in 10,000 finds no room.
    #[test]
    fn nearly_every_flow_of_the_capacity_finds_room_and_most_in_the_first_bucket() {
        const FLOWS: u32 = 1 << 18;
        let mut buckets = vec![Bucket::default(); (FLOWS * crate::limits::SLOTS_PER_FLOW / 4) as usize];
        let mask = buckets.len() as u32 - 1;
        let (mut lost, mut second) = (0, 0);
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        for _ in 0..FLOWS {
            // Xorshift (Marsaglia 2003): hashes of flows.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let at = [crate::flow::bucket_one(state, mask), crate::flow::bucket_two(state, mask)];
            let [one, two] = at.map(|at| buckets[at as usize]);
            match place(&one, &two, NOW, &LIMITS, 0) {
                Ok(place) => {
                    second += u32::from(place.second);
                    let bucket = &mut buckets[at[usize::from(place.second)] as usize];
                    bucket.ways[place.way as usize] = entry(0, IdleClass::Established, true);
                }
                Err(_) => lost += 1,
            }
        }
        assert!(lost < FLOWS / 10_000, "{lost} of {FLOWS} found no room");
        assert!(second < FLOWS / 5, "{second} of {FLOWS} lie in their second bucket");
    }

    #[test]
    fn an_expired_flow_gives_way_across_the_wrap_of_the_epoch() {
        let live = full(300, IdleClass::Established, true);
        let mut bucket = live;
        bucket.ways[2] = entry(301, IdleClass::Established, true);
        assert_eq!(
            place(&bucket, &live, NOW, &LIMITS, 0),
            Ok(Place { second: false, way: 2, evicts: false })
        );
        assert_eq!(place(&live, &bucket, NOW, &LIMITS, 0), Ok(Place { second: true, way: 2, evicts: false }));
    }

    #[test]
    fn an_unconfirmed_flow_gives_way_after_an_epoch_and_a_live_one_never() {
        let live = full(4, IdleClass::Datagram, true);
        let fresh = full(0, IdleClass::New, false);
        let mut flood = live;
        flood.ways[1] = entry(1, IdleClass::New, false);
        assert_eq!(place(&live, &live, NOW, &LIMITS, 0), Err(Refused::NoRoom));
        assert_eq!(place(&fresh, &fresh, NOW, &LIMITS, 0), Err(Refused::NoRoom));
        assert_eq!(place(&live, &flood, NOW, &LIMITS, 0), Ok(Place { second: true, way: 1, evicts: true }));
        assert_eq!(place(&flood, &flood, NOW, &LIMITS, 0).map(|p| p.second), Ok(false));
    }
    #[test]
    fn what_is_kept_for_others_stays_free() {
        let empty = Bucket::default();
        let live = full(4, IdleClass::Datagram, true);
        let mut three = live;
        three.ways[3] = FlowEntry::default();
        let old = full(2, IdleClass::New, false);
        assert!(place(&empty, &empty, NOW, &LIMITS, 7).is_ok());
        assert_eq!(place(&empty, &empty, NOW, &LIMITS, 8), Err(Refused::Kept));
        assert!(place(&three, &three, NOW, &LIMITS, 1).is_ok());
        assert_eq!(place(&three, &three, NOW, &LIMITS, 2), Err(Refused::Kept));
        assert!(place(&old, &old, NOW, &LIMITS, 0).is_ok_and(|place| place.evicts));
        assert_eq!(place(&old, &old, NOW, &LIMITS, 2), Err(Refused::NoRoom), "nobody is pushed out");
    }
}
