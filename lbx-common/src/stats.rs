//! Per-CPU counters. User space sums over the CPUs.

use bytemuck::{Pod, Zeroable};

/// Packets to one target.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug, Default)]
pub struct TargetStats {
    /// Packets steered to it.
    pub packets: u64,
    /// Bytes of these, from the Ethernet header on.
    pub bytes: u64,
    /// New flows bound to it, recorded or not.
    pub flows: u64,
    /// Packets dropped because of its state.
    pub drops: u64,
}

/// What happened to a service's packets besides being steered to a target; packets and bytes of a service are
/// the sums over its targets.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug, Default)]
pub struct ServiceStats {
    /// New flows recorded.
    pub flows_recorded: u64,
    /// Packets of new flows served from the table without a record.
    pub flows_unrecorded: u64,
    /// Packets dropped, whatever the reason.
    pub drops: u64,
    /// Packets answered with a RST, unreachable or too big.
    pub rejects: u64,
    /// Answers of nat targets translated back.
    pub returns: u64,
    /// Packets that would have been steered while observing.
    pub observed: u64,
    #[doc(hidden)]
    pub reserved: [u64; 2],
}

const _: () = assert!(size_of::<TargetStats>() == 32 && size_of::<ServiceStats>() == 64);
