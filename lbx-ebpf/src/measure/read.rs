//! Reading the rings of queues whose addresses are known.

use crate::kernel::{member, offsets, producer, ring};
use crate::maps::{RINGS, WATCHED};
use lbx_common::queue::{MAX_RINGS, Offsets, RINGS_A_RUN, Ring, WHOLE_EVERY, Watched};

/// Reads `count` queues (at most [`RINGS_A_RUN`]) from `first` on.
///
/// Most queues are empty most of the time, and each part of a queue lies in a line of memory of its own. So of an
/// empty queue only the producer's index is read in most rounds: while it stays, nothing was put in (or just as
/// many frames as the ring holds: then the next whole look says so). In round [`WHOLE_EVERY`] all are read whole.
#[inline(always)]
pub fn run(first: u64, count: u64, round: u64) {
    let at = offsets();
    // The device of the queue before, whose others follow.
    let mut sure = 0;
    for n in 0..RINGS_A_RUN {
        let index = (first as u32).wrapping_add(n);
        if n as u64 >= count || index >= MAX_RINGS {
            return;
        }
        let (Some(watched), Some(into)) = (WATCHED.get_ptr(index), RINGS.get_ptr_mut(index)) else { return };
        // SAFETY: a non-null value pointer of an array map; user space writes it between runs only.
        let watched = unsafe { *watched };
        // SAFETY: as above; nobody else runs this program, and user space reads and clears between runs.
        let before = unsafe { *into };
        let whole = round >= WHOLE_EVERY as u64 || (index as u64 + round).is_multiple_of(WHOLE_EVERY as u64);
        if !whole && before.is_empty() && producer(watched.file, &at) == before.producer {
            continue;
        }
        if watched.tun != sure && is_device(&watched, &at) {
            sure = watched.tun;
        }
        let still =
            watched.file != 0 && watched.tun == sure && holds(watched.tun, watched.queue, watched.file, &at);
        let found = if still { ring(watched.file, &at) } else { Ring::default() };
        // SAFETY: as above; nobody else runs this program, and user space reads between runs.
        unsafe { *into = found };
    }
}

/// Whether the addresses are still those of that queue of that device: memory of a queue that was closed may be
/// anything by now, and a queue that is detached keeps its frames but takes no more.
#[inline(always)]
pub fn is_still(watched: &Watched, at: &Offsets) -> bool {
    watched.file != 0 && is_device(watched, at) && holds(watched.tun, watched.queue, watched.file, at)
}

/// Whether the device is still the one with that interface index.
#[inline(always)]
fn is_device(watched: &Watched, at: &Offsets) -> bool {
    member::<u64>(watched.tun, at.tun_dev) == watched.dev
        && member::<u32>(watched.dev, at.dev_ifindex) == watched.ifindex
}

/// Whether a `struct tun_struct` has this `struct tun_file` as that queue.
#[inline(always)]
pub fn holds(tun: u64, queue: u32, file: u64, at: &Offsets) -> bool {
    member::<u64>(tun + 8 * queue as u64, at.tun_files) == file
}
