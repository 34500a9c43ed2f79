//! Sampled events: single packets that something happened to, for people to look at. Counters count all of them,
//! events show a few.

use crate::addr::Ip;
use crate::key::FlowKey;
use bytemuck::{Pod, Zeroable};

/// Most events a second of one reason on one CPU.
pub const RATE: u32 = 10;

/// No service, target or port is known.
pub const UNKNOWN: u16 = u16::MAX;

/// One event, as it lies in the ring buffer `events`. One cache line.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug, Default)]
pub struct Event {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time: u64,
    /// Source, destination and ports of the packet; unspecified and 0 as far as they are not known.
    pub key: FlowKey,
    /// Index of the service, or [`UNKNOWN`].
    pub service: u16,
    /// Index of the target, or [`UNKNOWN`].
    pub target: u16,
    /// Index of the port it came in by.
    pub port: u16,
    /// [`crate::reason::Reason`] as a number.
    pub reason: u8,
    /// TCP flags.
    pub tcp_flags: u8,
    #[doc(hidden)]
    pub reserved: [u64; 1],
}

const _: () = assert!(size_of::<Event>() == 64);

impl Event {
    /// Of a packet of which only the destination is known.
    #[inline(always)]
    pub const fn to(dst: Ip) -> FlowKey {
        FlowKey { src: Ip::UNSPECIFIED, dst, ports: 0, scope: 0 }
    }
}
