//! Decisions and arithmetic of the datapath, as plain functions: the kernel program, the daemon and the tests
//! run the same code.

pub mod checksum;
#[cfg(any(feature = "std", test))]
pub mod maglev;
pub mod tcp;

/// Slot of a table of `len` slots that the low half of a flow's hash selects: `hash * len / 2^32`.
///
/// A multiplication instead of a remainder: it uses the *high* bits of the low half (for 65,537 slots about
/// 17 of them), every slot is hit by the same share of hashes within `len / 2^32`, and BPF has no cheap
/// division. 0 for an empty table, which the caller must not read.
#[inline(always)]
pub const fn slot(hash: u32, len: u32) -> u32 {
    ((hash as u64 * len as u64) >> 32) as u32
}
