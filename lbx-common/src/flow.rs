//! The flow table: buckets of four sealed entries, one cache line a bucket.
//!
//! An entry's seal is `hash ^ target`: a reader that sees the seal of one write and the target of another
//! computes a hash that is not its own, and misses. Epoch and flags lie outside the seal, so that ageing an
//! entry never touches it.

use crate::key::FlowKey;
use crate::limits::WAYS;
use bytemuck::{Pod, Zeroable};

/// What a flow is bound to: target index (bits 0-15), queue (16-23), generation of the target (24-31).
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Pod, Zeroable, Debug, Default)]
pub struct TargetWord(pub u32);

impl TargetWord {
    /// A table slot that names nobody.
    pub const NONE: Self = Self(u32::MAX);

    /// Packs target index, queue and generation.
    #[inline(always)]
    pub const fn new(target: u16, queue: u8, generation: u8) -> Self {
        Self(target as u32 | ((queue as u32) << 16) | ((generation as u32) << 24))
    }
    /// Index into the `targets` map.
    #[inline(always)]
    pub const fn target(self) -> u32 {
        self.0 & 0xffff
    }
    /// Queue of the vNIC.
    #[inline(always)]
    pub const fn queue(self) -> u8 {
        (self.0 >> 16) as u8
    }
    /// Generation the target had; another generation is another target at the same index.
    #[inline(always)]
    pub const fn generation(self) -> u8 {
        (self.0 >> 24) as u8
    }
}

/// Bits of [`FlowEntry::flags`]. The low byte belongs to the TCP state machine (`algo::tcp`).
pub mod flags {
    /// Mask of the TCP state bits.
    pub const TCP_MASK: u16 = 0x00ff;
    /// A second packet was seen: the cold half is written, the entry outranks unconfirmed ones.
    pub const CONFIRMED: u16 = 0x0100;
    /// The flow is translated: its return is translated back.
    pub const NAT: u16 = 0x0200;
    /// Two bits of idle class, see [`super::IdleClass`].
    pub const CLASS_SHIFT: u16 = 10;
    /// Mask of the idle class.
    pub const CLASS_MASK: u16 = 0x0c00;
    /// The flow is counted among the open ones of its target ([`crate::live::Live::held`]).
    pub const COUNTED: u16 = 0x8000;
}

/// Which idle time a flow is subject to (two bits in the flags).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum IdleClass {
    /// Not confirmed: one packet seen, or a handshake that did not finish.
    New = 0,
    /// An established TCP connection.
    Established = 1,
    /// A TCP connection that was closed by both sides or reset.
    Closed = 2,
    /// UDP and everything else without a state.
    Datagram = 3,
}

/// Idle times in epochs, as they stand in the control block.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug, Default)]
pub struct IdleLimits {
    /// By [`IdleClass`] as index.
    pub epochs: [u16; 4],
}

/// One flow. 16 bytes.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug, Default)]
pub struct FlowEntry {
    /// `hash ^ target word`; 0 while the entry is free or being written.
    pub seal: u64,
    /// What the flow is bound to.
    pub target: TargetWord,
    /// Epoch of the last packet (wraps).
    pub epoch: u16,
    /// [`flags`].
    pub flags: u16,
}

/// One cache line of flows.
#[repr(C, align(64))]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug, Default)]
pub struct Bucket {
    /// The ways.
    pub ways: [FlowEntry; WAYS as usize],
}

/// The cold half of a flow, at `bucket * 4 + way`: written when the flow is confirmed, for inspection and
/// for everything that needs the tuple. 48 bytes.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug, Default)]
pub struct ColdFlow {
    /// The tuple.
    pub key: FlowKey,
    /// Service index.
    pub service: u16,
    /// Port (index into `ports`) the flow came in by.
    pub port: u16,
    /// Low word of jiffies when the flow was recorded.
    pub born: u32,
}

const _: () =
    assert!(size_of::<FlowEntry>() == 16 && size_of::<Bucket>() == 64 && align_of::<Bucket>() == 64);
const _: () = assert!(size_of::<ColdFlow>() == 48);

/// Seals a target word with the hash of its flow.
#[inline(always)]
pub const fn seal(hash: u64, target: TargetWord) -> u64 {
    hash ^ target.0 as u64
}

/// What buckets are picked by. The hash is linear in each word of the key: under a few secrets in a thousand the flows
/// of clients in a row crowd in a part of the table, and hundreds of times as many as by chance find both buckets full.
#[inline(always)]
const fn scattered(hash: u64) -> u64 {
    (hash ^ (hash >> 32)).wrapping_mul(0x9FB2_1C65_1E98_DF25)
}

/// First candidate bucket; `mask` is the number of buckets minus one (at most 2^22 - 1).
#[inline(always)]
pub const fn bucket_one(hash: u64, mask: u32) -> u32 {
    (scattered(hash) >> 42) as u32 & mask
}

/// Second candidate bucket, never the first one (for more than one bucket).
#[inline(always)]
pub const fn bucket_two(hash: u64, mask: u32) -> u32 {
    let bits = scattered(hash);
    ((bits >> 42) as u32 ^ ((bits >> 20) as u32 | 1)) & mask
}

/// Epochs since the entry was last used, in wrapping arithmetic.
#[inline(always)]
pub const fn idle(now: u16, entry_epoch: u16) -> u16 {
    now.wrapping_sub(entry_epoch)
}

/// The idle class kept in the flags.
#[inline(always)]
pub const fn class_index(flags: u16) -> usize {
    ((flags & flags::CLASS_MASK) >> flags::CLASS_SHIFT) as usize
}

/// Flags with another idle class.
#[inline(always)]
pub const fn with_class(flags: u16, class: IdleClass) -> u16 {
    (flags & !flags::CLASS_MASK) | ((class as u16) << flags::CLASS_SHIFT)
}

/// Whether an entry may be taken for a new flow: free, or idle for longer than its class allows.
#[inline(always)]
pub const fn expired(entry: &FlowEntry, now: u16, limits: &IdleLimits) -> bool {
    entry.seal == 0 || idle(now, entry.epoch) > limits.epochs[class_index(entry.flags)]
}
