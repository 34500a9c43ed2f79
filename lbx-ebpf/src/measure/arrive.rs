//! Counting what XDP sends into watched queues: the depth right after each bulk, and drops one by one. A queue that
//! becomes more than a burst is told of at once, so that nobody has to look for it.

use crate::kernel::{member, offsets, ring};
use crate::maps::{ARRIVALS, DEEP, RUNS, WATCHED, WINDOW};
use crate::read::is_still;
use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use lbx_common::queue::{Arrivals, is_queue};

/// A bulk of frames for a device: `sent` were taken, `drops` were not, `err` is negative if none could be.
#[inline(always)]
pub fn run(dev: u64, sent: i32, drops: i32, err: i32) {
    // SAFETY: a copy of a value that changes only when a device comes or goes.
    let Some(run) = (unsafe { RUNS.get(dev) }).copied() else { return };
    let at = offsets();
    let Some(first) = WATCHED.get_ptr(run.first) else { return };
    // SAFETY: a non-null value pointer of an array map. User space may be changing it: what is read is checked
    // below.
    let first = unsafe { *first };
    // tun_xdp_xmit (drivers/net/tun.c): the queue is that of the CPU.
    let queues: u32 = member(first.tun, at.tun_queues);
    if queues == 0 || run.count == 0 {
        return;
    }
    // SAFETY: the helper takes nothing.
    let queue = unsafe { bpf_get_smp_processor_id() } % queues % run.count;
    let index = run.first.wrapping_add(queue);
    let (Some(watched), Some(arrivals)) = (WATCHED.get_ptr(index), ARRIVALS.get_ptr_mut(index)) else {
        return;
    };
    // SAFETY: as above.
    let watched = unsafe { *watched };
    if watched.dev != dev || !is_still(&watched, &at) {
        return;
    }
    let ring = ring(watched.file, &at);
    let depth = ring.depth();
    // SAFETY: a non-null value pointer of an array map, whose words are aligned: several CPUs may share a queue.
    unsafe { count(arrivals, sent, drops, err, depth) };
    if ring.is_valid() && is_queue(depth, ring.size) {
        // SAFETY: as above.
        unsafe { tell(arrivals, index) };
    }
}

/// Tells user space of a queue, once until it says that the queue is over. Two CPUs at the same moment may both tell.
///
/// # Safety
/// `at` is a value of the map.
#[inline(always)]
unsafe fn tell(at: *mut Arrivals, index: u32) {
    // SAFETY: an aligned word of the value that the caller vouches for; user space stores whole words there.
    unsafe {
        if (*at).told == 0 {
            (*at).told = 1;
            // Without room the next look finds it.
            let _ = DEEP.output_untyped::<u32>(index, 0);
        }
    }
}

/// # Safety
/// `at` is a value of the map.
#[inline(always)]
unsafe fn count(at: *mut Arrivals, sent: i32, drops: i32, err: i32, depth: u32) {
    // SAFETY: fields of the value that the caller vouches for. A peak that another CPU stores at the same moment may
    // win: both are depths of that moment.
    unsafe {
        if sent > 0 {
            add(&raw mut (*at).sent, sent as u64);
        }
        if drops > 0 {
            add(&raw mut (*at).drops, drops as u64);
            if err >= 0 {
                add(&raw mut (*at).cut, 1);
            }
        }
        let window = WINDOW.get_ptr(0).map_or(0, |window| *window as u32);
        if (*at).window != window {
            (*at).window = window;
            (*at).peak = depth;
        } else if depth > (*at).peak {
            (*at).peak = depth;
        }
    }
}

/// Adds to a word that other CPUs add to.
///
/// # Safety
/// `word` is an aligned word of a map value.
#[inline(always)]
unsafe fn add(word: *mut u64, n: u64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the caller's promise is the intrinsic's.
    unsafe {
        core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::Relaxed }>(word, n);
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller promises an aligned valid word; AtomicU64 has its layout.
    unsafe {
        core::sync::atomic::AtomicU64::from_ptr(word).fetch_add(n, core::sync::atomic::Ordering::Relaxed);
    }
}
