//! The flow table as user space reads it: in place, without stopping anybody.

use super::clock::Rate;
use super::error::Result;
use super::maps::Maps;
use ipnet::IpNet;
use lbx_common::control::Control;
use lbx_common::flow::{
    ColdFlow, FlowEntry, IdleClass, TargetWord, bucket_one, bucket_two, class_index, expired, flags, idle,
};
use lbx_common::key::FlowKey;
use lbx_common::limits::WAYS;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// One recorded flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowRow {
    /// Bucket it is in.
    pub bucket: u32,
    /// Its place in the bucket.
    pub way: u32,
    /// Its hash.
    pub hash: u64,
    /// What it is bound to.
    pub target: TargetWord,
    /// [`flags`].
    pub flags: u16,
    /// Since its last packet (a multiple of an epoch, about a second).
    pub idle: Duration,
    /// Tuple and the rest; absent until the flow's second packet.
    pub tuple: Option<ColdFlow>,
    /// Since it was recorded; absent with the tuple.
    pub age: Option<Duration>,
}

impl FlowRow {
    /// Whether a second packet was seen.
    pub fn is_confirmed(&self) -> bool {
        self.flags & flags::CONFIRMED != 0
    }

    /// Which idle time it is subject to.
    pub fn class(&self) -> IdleClass {
        match class_index(self.flags) {
            0 => IdleClass::New,
            1 => IdleClass::Established,
            2 => IdleClass::Closed,
            _ => IdleClass::Datagram,
        }
    }
}

/// Flows of a target.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlowCount {
    /// All that are recorded.
    pub recorded: u64,
    /// Of these, those that are not closed: a closed connection is kept for a while for its last packets.
    pub open: u64,
}

impl std::ops::AddAssign for FlowCount {
    fn add_assign(&mut self, other: Self) {
        self.recorded += other.recorded;
        self.open += other.open;
    }
}

/// Which flows are wanted; everything absent is not asked for.
#[derive(Clone, Debug, Default)]
pub struct FlowFilter {
    /// Index of the service.
    pub service: Option<u16>,
    /// Index of the target.
    pub target: Option<u32>,
    /// Where the client is.
    pub client: Option<IpNet>,
    /// Its class.
    pub class: Option<IdleClass>,
    /// At least this old.
    pub older: Option<Duration>,
    /// At most this old.
    pub younger: Option<Duration>,
}

impl FlowFilter {
    /// Whether a flow is wanted. One without a tuple is not if the tuple or the age is asked for.
    pub fn matches(&self, row: &FlowRow) -> bool {
        let tuple = |wanted: &dyn Fn(&ColdFlow) -> bool| row.tuple.as_ref().is_some_and(wanted);
        let age = |wanted: &dyn Fn(Duration) -> bool| row.age.is_some_and(wanted);
        self.service.is_none_or(|s| tuple(&|t| t.service == s))
            && self.target.is_none_or(|t| row.target.target() == t)
            && self.client.is_none_or(|net| tuple(&|t| net.contains(&IpAddr::from(t.key.src))))
            && self.class.is_none_or(|class| row.class() == class)
            && self.older.is_none_or(|d| age(&|a| a >= d))
            && self.younger.is_none_or(|d| age(&|a| a <= d))
    }
}

/// Walks the table; each row is read when it is asked for, so the first is there at once and memory stays
/// what it is.
pub struct Flows<'a> {
    maps: &'a Maps,
    view: View,
    next: u64,
}

/// What reading a row needs, taken once.
#[derive(Clone, Copy)]
struct View {
    control: Control,
    jiffies: u64,
    epoch: u16,
    rate: Rate,
}

impl Flows<'_> {
    /// The slot that is looked at next: where another walk can go on.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// The next flow in a slot before `end`.
    pub fn next_before(&mut self, end: u64) -> Option<FlowRow> {
        let end = end.min(self.maps.flow_capacity());
        while self.next < end {
            let at = self.next;
            self.next += 1;
            let row = self.maps.row(&self.view, (at / u64::from(WAYS)) as u32, (at % u64::from(WAYS)) as u32);
            if row.is_some() {
                return row;
            }
        }
        None
    }
}

impl Iterator for Flows<'_> {
    type Item = FlowRow;

    fn next(&mut self) -> Option<FlowRow> {
        self.next_before(u64::MAX)
    }
}

impl Maps {
    fn view(&self) -> Result<View> {
        let (control, rate) = (self.control()?, self.rate()?);
        let jiffies = self.clock()?.jiffies_now()?;
        Ok(View { control, jiffies, epoch: rate.epoch(jiffies), rate })
    }

    /// All recorded flows that have not expired, in no particular order. A flow that is written at this
    /// moment may be missed; none is shown with the target of another.
    pub fn flows(&self) -> Result<Flows<'_>> {
        self.flows_from(0)
    }

    /// The same from a slot on.
    pub fn flows_from(&self, slot: u64) -> Result<Flows<'_>> {
        Ok(Flows { maps: self, view: self.view()?, next: slot })
    }

    /// The record of a flow, if there is one.
    pub fn flow(&self, key: &FlowKey) -> Result<Option<FlowRow>> {
        let view = self.view()?;
        let hash = key.hash(&view.control.secret);
        let mask = view.control.bucket_mask;
        let places = [bucket_one(hash, mask), bucket_two(hash, mask)];
        let mut rows = places.into_iter().flat_map(|bucket| (0..WAYS).map(move |way| (bucket, way)));
        Ok(rows.find_map(|(bucket, way)| self.row(&view, bucket, way).filter(|row| row.hash == hash)))
    }

    /// Reads one entry; nothing if it is free, expired or being written.
    fn row(&self, view: &View, bucket: u32, way: u32) -> Option<FlowRow> {
        let entry = self.entry(bucket, way)?;
        let mask = view.control.bucket_mask;
        let hash = entry.seal ^ u64::from(entry.target.0);
        let torn = bucket != bucket_one(hash, mask) && bucket != bucket_two(hash, mask);
        if torn || expired(&entry, view.epoch, &view.control.idle) {
            return None;
        }
        let confirmed = entry.flags & flags::CONFIRMED != 0;
        // The tuple is written by itself: it counts only if it is the one of this hash.
        let cold = confirmed.then(|| self.cold.get(bucket * WAYS + way).ok()).flatten();
        let tuple = cold.filter(|cold| cold.key.hash(&view.control.secret) == hash);
        Some(FlowRow {
            bucket,
            way,
            hash,
            target: entry.target,
            flags: entry.flags,
            idle: view.rate.epoch_duration(idle(view.epoch, entry.epoch)),
            tuple,
            age: tuple.map(|t| view.rate.duration((view.jiffies as u32).wrapping_sub(t.born).into())),
        })
    }

    /// The words of an entry: the seal before and after the rest, so that both belong together.
    pub(super) fn entry(&self, bucket: u32, way: u32) -> Option<FlowEntry> {
        let at = way as usize * 2;
        let seal = self.flows.load64(bucket, at).ok()?;
        let rest = self.flows.load64(bucket, at + 1).ok()?;
        let again = self.flows.load64(bucket, at).ok()?;
        (seal != 0 && seal == again).then(|| bytemuck::cast([seal, rest]))
    }

    /// How many live flows each target word (index and generation; the queue is left out) is named by, in one
    /// pass over the table: an index is not given to another target while a flow names it.
    pub fn flows_by_target(&self) -> Result<HashMap<TargetWord, FlowCount>> {
        let mut counts: HashMap<TargetWord, FlowCount> = HashMap::new();
        for row in self.flows()? {
            let word = TargetWord::new(row.target.target() as u16, 0, row.target.generation());
            let open = u64::from(row.class() != IdleClass::Closed);
            *counts.entry(word).or_default() += FlowCount { recorded: 1, open };
        }
        Ok(counts)
    }

    /// Open flows of the first `most` targets, by index: a count that looks at no more than it needs.
    pub fn open_flows(&self, most: u32) -> Result<Vec<u64>> {
        let view = self.view()?;
        let mut open = vec![0; most as usize];
        for bucket in 0..self.flows.len() {
            for way in 0..WAYS {
                let Some(entry) = self.entry(bucket, way) else { continue };
                if class_index(entry.flags) == IdleClass::Closed as usize
                    || expired(&entry, view.epoch, &view.control.idle)
                {
                    continue;
                }
                if let Some(sum) = open.get_mut(entry.target.target() as usize) {
                    *sum += 1;
                }
            }
        }
        Ok(open)
    }

    /// Frees the flows of a target. Answers how many.
    pub fn clear_flows_of(&self, target: u32) -> Result<u64> {
        self.free_where(|entry, _| entry.target.target() == target)
    }

    /// Frees the flows of datagrams of a target: the next packet of each is a first one. Answers how many.
    pub fn clear_datagrams_of(&self, target: u32) -> Result<u64> {
        let is = |entry: &FlowEntry| class_index(entry.flags) == IdleClass::Datagram as usize;
        self.free_where(|entry, _| entry.target.target() == target && is(entry))
    }

    /// Frees expired flows. The programs take them over as they need room; this keeps one from being around
    /// until its epoch has wrapped and looks fresh again, so it is to run every hour or so.
    pub fn free_expired(&self) -> Result<u64> {
        self.free_where(|entry, view| expired(entry, view.epoch, &view.control.idle))
    }

    fn free_where(&self, gone: impl Fn(&FlowEntry, &View) -> bool) -> Result<u64> {
        let view = self.view()?;
        let mut freed = 0;
        for bucket in 0..self.flows.len() {
            for way in 0..WAYS {
                let Some(entry) = self.entry(bucket, way).filter(|entry| gone(entry, &view)) else {
                    continue;
                };
                // Only if it is still the same flow: a program may have given the place to another.
                let seal = self.flows.word64(bucket, way as usize * 2)?;
                let freed_it =
                    seal.compare_exchange(entry.seal, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok();
                freed += u64::from(freed_it);
                if freed_it && entry.flags & flags::COUNTED != 0 {
                    self.uncount(entry.target)?;
                }
            }
        }
        Ok(freed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lbx_common::flow::with_class;

    fn row(service: u16, client: [u8; 4], age: u64) -> FlowRow {
        let key = FlowKey { src: IpAddr::from(client).into(), ..FlowKey::default() };
        FlowRow {
            bucket: 0,
            way: 0,
            hash: 1,
            target: TargetWord::new(7, 0, 1),
            flags: with_class(flags::CONFIRMED, IdleClass::Established),
            idle: Duration::ZERO,
            tuple: Some(ColdFlow { key, service, ..ColdFlow::default() }),
            age: Some(Duration::from_secs(age)),
        }
    }

    #[test]
    fn a_filter_wants_all_that_it_names() {
        let flow = row(3, [203, 0, 113, 7], 60);
        let secs = Duration::from_secs;
        let net = |text: &str| Some(text.parse().unwrap());
        let all = FlowFilter::default();
        let cases = [
            (all.clone(), true),
            (FlowFilter { service: Some(3), ..all.clone() }, true),
            (FlowFilter { service: Some(4), ..all.clone() }, false),
            (FlowFilter { target: Some(7), ..all.clone() }, true),
            (FlowFilter { target: Some(8), ..all.clone() }, false),
            (FlowFilter { client: net("203.0.113.0/24"), ..all.clone() }, true),
            (FlowFilter { client: net("198.51.100.0/24"), ..all.clone() }, false),
            (FlowFilter { class: Some(IdleClass::Established), ..all.clone() }, true),
            (FlowFilter { class: Some(IdleClass::Datagram), ..all.clone() }, false),
            (FlowFilter { older: Some(secs(60)), younger: Some(secs(60)), ..all.clone() }, true),
            (FlowFilter { older: Some(secs(61)), ..all.clone() }, false),
            (FlowFilter { younger: Some(secs(59)), ..all.clone() }, false),
        ];
        for (filter, wanted) in cases {
            assert_eq!(filter.matches(&flow), wanted, "{filter:?}");
        }
        let new = FlowRow { tuple: None, age: None, flags: 0, ..flow };
        assert!(all.matches(&new) && !new.is_confirmed());
        assert!(!FlowFilter { service: Some(3), ..all.clone() }.matches(&new));
        assert!(!FlowFilter { younger: Some(secs(1)), ..all }.matches(&new));
    }
}
