//! The tables that user space shares with these programs: all arrays are mapped by it.

use aya_ebpf::btf_maps::{Array, HashMap, RingBuf};
use aya_ebpf::macros::btf_map;
use lbx_common::queue::{Arrivals, MAX_RINGS, Ring, Run, Watched};

/// `BPF_F_MMAPABLE`.
const MMAPABLE: usize = 1 << 10;

/// The queues to read.
#[btf_map(name = "watched")]
pub static WATCHED: Array<Watched, { MAX_RINGS as usize }, MMAPABLE> = Array::new();

/// Their rings as they were read last.
#[btf_map(name = "rings")]
pub static RINGS: Array<Ring, { MAX_RINGS as usize }, MMAPABLE> = Array::new();

/// What came to them.
#[btf_map(name = "arrivals")]
pub static ARRIVALS: Array<Arrivals, { MAX_RINGS as usize }, MMAPABLE> = Array::new();

/// The window that peaks belong to.
#[btf_map(name = "window")]
pub static WINDOW: Array<u64, 1, MMAPABLE> = Array::new();

/// The queues of a device, by the address of its `struct net_device`.
#[btf_map(name = "runs")]
pub static RUNS: HashMap<u64, Run, { MAX_RINGS as usize }> = HashMap::new();

/// Places of queues that have just become more than a burst; size in bytes. If it is full somebody is on the way to
/// look at all of them anyway.
#[btf_map(name = "deep")]
pub static DEEP: RingBuf<(), { 16 * 1024 }> = RingBuf::new();
