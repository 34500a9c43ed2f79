//! The flow table: finding a flow, keeping it alive, letting go of it.

use super::live;
use crate::atomic;
use crate::maps::{FLOWS, FLOWS_COLD};
use core::ptr::{read_volatile, write_volatile};
use lbx_common::algo::tcp::{Direction, TcpBits, idle_class};
use lbx_common::control::Control;
use lbx_common::flow::{
    Bucket, ColdFlow, FlowEntry, IdleClass, IdleLimits, TargetWord, bucket_one, bucket_two, class_index,
    flags, idle, seal, with_class,
};
use lbx_common::limits::WAYS;

/// A recorded flow.
#[derive(Clone, Copy)]
pub struct Hit {
    /// Its entry.
    entry: *mut FlowEntry,
    /// Its index in `flows_cold`.
    cold: u32,
    /// What it is bound to.
    pub word: TargetWord,
    /// Its flags, as found.
    pub flags: u16,
}

/// Looks for the flow in a bucket. Written out by the compiler: way by way, each a constant offset.
#[inline(always)]
fn probe(index: u32, hash: u64) -> Option<Hit> {
    let bucket: *mut Bucket = FLOWS.get_ptr_mut(index)?;
    let mut way = 0;
    while way < WAYS as usize {
        // SAFETY: way < 4 lies within the bucket, a value of the map. Other CPUs write it at the same time:
        // each field is read once, and a pair of two writes does not match the seal.
        let (entry, word, sealed) = unsafe {
            let entry = &raw mut (*bucket).ways[way];
            (entry, read_volatile(&raw const (*entry).target), read_volatile(&raw const (*entry).seal))
        };
        if sealed == seal(hash, word) {
            // SAFETY: as above.
            let flags = unsafe { read_volatile(&raw const (*entry).flags) };
            return Some(Hit { entry, cold: index * WAYS + way as u32, word, flags });
        }
        way += 1;
    }
    None
}

/// Looks for a flow in its two buckets.
#[inline(always)]
pub fn find(control: &Control, hash: u64) -> Option<Hit> {
    let mask = control.bucket_mask;
    match probe(bucket_one(hash, mask), hash) {
        Some(hit) => Some(hit),
        None => probe(bucket_two(hash, mask), hash),
    }
}

impl Hit {
    /// Whether the packet begins a new connection on the entry of an old one.
    #[inline(always)]
    pub fn reopened(&self, tcp_flags: u8) -> bool {
        TcpBits::of(self.flags).reopens(tcp_flags, Direction::ToServer)
    }

    /// Whether the flow goes on: neither closed nor idle for too long.
    #[inline(always)]
    pub fn is_open(&self, epoch: u16, limits: &IdleLimits) -> bool {
        // SAFETY: `entry` lies within a value of the map; a stale epoch is as good as the new one.
        let last = unsafe { read_volatile(&raw const (*self.entry).epoch) };
        let class = class_index(self.flags);
        class != IdleClass::Closed as usize && idle(epoch, last) <= limits.epochs[class]
    }

    /// Notes a packet of the flow. Returns whether it is the first of its epoch. Stores only what changed: a
    /// busy flow writes its line once an epoch.
    #[inline(always)]
    pub fn touch(
        &self,
        epoch: u16,
        protocol: u8,
        tcp_flags: u8,
        from: Direction,
        cold: impl FnOnce() -> ColdFlow,
    ) -> bool {
        let bits = if protocol == crate::packet::parse::protocol::TCP {
            TcpBits::of(self.flags).step(tcp_flags, from)
        } else {
            TcpBits::of(self.flags)
        };
        let one_way = self.flags & flags::NAT == 0;
        let next = with_class(bits.put(self.flags), idle_class(protocol, bits, one_way)) | flags::CONFIRMED;
        // SAFETY: `entry` lies within a value of the map. Another CPU may store at the same time: then one of
        // the two updates is lost, and the next packet makes it again.
        let fresh = unsafe { read_volatile(&raw const (*self.entry).epoch) } != epoch;
        if fresh {
            // SAFETY: as above.
            unsafe { write_volatile(&raw mut (*self.entry).epoch, epoch) };
        }
        if next != self.flags {
            let ends = self.flags & flags::COUNTED != 0 && class_index(next) == IdleClass::Closed as usize;
            let next = if ends { next & !flags::COUNTED } else { next };
            // SAFETY: as above.
            unsafe { write_volatile(&raw mut (*self.entry).flags, next) };
            if ends {
                live::ended(self.word);
            }
            if self.flags & flags::CONFIRMED == 0
                && let Some(at) = FLOWS_COLD.get_ptr_mut(self.cold)
            {
                // SAFETY: a non-null value pointer of an array map; readers check the tuple against the seal.
                unsafe { *at = cold() };
            }
        }
        fresh
    }

    /// Leaves what answers to the flow's tuple alone from now on, until a SYN opens the flow anew.
    #[inline(always)]
    pub fn untranslate(&self) {
        // SAFETY: `entry` lies within a value of the map; of two stores at a time one is lost, and made again by the
        // next packet.
        unsafe { write_volatile(&raw mut (*self.entry).flags, self.flags & !flags::NAT) };
    }

    /// Frees the entry, unless somebody else has taken it meanwhile.
    #[inline(always)]
    pub fn forget(&self, hash: u64) {
        // SAFETY: the seal is the first word of an entry within a value of the map, aligned to 8.
        let freed =
            unsafe { atomic::compare_exchange(&raw mut (*self.entry).seal, seal(hash, self.word), 0) };
        if freed && self.flags & flags::COUNTED != 0 {
            live::ended(self.word);
        }
    }
}
