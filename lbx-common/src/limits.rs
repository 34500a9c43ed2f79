//! Sizes that are part of the ABI. A change to any of them, or to a layout, is a new [`ABI_VERSION`].

/// Version of every layout in this crate. It names the pin directory and is checked at attach.
pub const ABI_VERSION: u32 = 1;
/// Services of one instance.
pub const MAX_SERVICES: u32 = 256;
/// Targets of one instance, over all services.
pub const MAX_TARGETS: u32 = 4096;
/// Places that the flows of moved targets go to: for each target one and its successor.
pub const MAX_ELSEWHERE: u32 = 2 * MAX_TARGETS;
/// Queues of one vNIC that can carry a weight of their own.
pub const MAX_QUEUES: u32 = 16;
/// Targets of one service: the bound of the deterministic last-resort scan.
pub const MAX_SERVICE_TARGETS: u32 = 256;
/// How often a slot that names a target without appetite is hashed again before all targets are tried.
pub const REHASHES: u32 = 4;
/// Ports of all switches together that lbx watches.
pub const MAX_PORTS: u32 = 1024;
/// Ports by the low bits of their interface index (a power of two): where tc looks first.
pub const NEAR_PORTS: u32 = 4096;
/// Address entries of one generation of the address table (a power of two).
pub const ADDRESS_SLOTS: u32 = 4096;
/// Rules that do not fit into the line of their address.
pub const MAX_MORE_RULES: u32 = 4096;
/// Rules of one address: the bound of the search.
pub const MAX_RULES_PER_ADDRESS: u32 = 64;
/// Ways back: one per (service, VIP, nat target).
pub const MAX_BACKS: u32 = 16384;
/// Slots of a service's Maglev table unless configured: the prime that katran and Maglev use.
pub const TABLE_SIZE: u32 = 65_537;
/// Default size of the pool all tables live in, in slots: 64 tables of [`TABLE_SIZE`].
pub const TABLE_POOL: u32 = 64 * TABLE_SIZE;
/// Entries of a bucket of the flow table: one cache line.
pub const WAYS: u32 = 4;
/// Slots of the flow table for each flow it is to hold. Half full, two candidate buckets of [`WAYS`] leave fewer than
/// one new flow in ten thousand without a slot (measured by the bench `flows`); full, one in ten.
pub const SLOTS_PER_FLOW: u32 = 2;
/// Flows unless configured.
pub const FLOWS_DEFAULT: u32 = 262_144;
/// Later fragments whose first fragment is remembered.
pub const MAX_FRAGMENTS: u32 = 16_384;
/// Client MACs (per VLAN and port) whose freshness in the bridge is remembered.
pub const MAX_MACS: u32 = 16_384;
/// Bytes of a name in the `names` map.
pub const NAME_LEN: usize = 64;

const _: () = assert!(ADDRESS_SLOTS.is_power_of_two() && MAX_QUEUES.is_power_of_two());
