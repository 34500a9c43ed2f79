//! The one door to kernel memory: reads that fail instead of faulting, at offsets that user space found.

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use bytemuck::Pod;
use core::mem::MaybeUninit;
use lbx_common::queue::{OFFSETS, Offsets, Ring, flags, half_on};

/// [`Offsets`], word by word.
#[unsafe(no_mangle)]
static OFFSETS_OF_MEMBERS: Global<[u32; OFFSETS]> = Global::new([0; OFFSETS]);

/// Where the members are.
#[inline(always)]
pub fn offsets() -> Offsets {
    bytemuck::cast(OFFSETS_OF_MEMBERS.load())
}

/// What is at an address; zeros if there is nothing.
#[inline(always)]
pub fn read<T: Pod>(address: u64) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes exactly the bytes of `value`, all of them: after a fault zeros. Whatever the
    // address is, the helper reads from it without faulting.
    unsafe {
        bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const _);
        value.assume_init()
    }
}

/// A member of the structure at an address.
#[inline(always)]
pub fn member<T: Pod>(address: u64, offset: u32) -> T {
    read(address + offset as u64)
}

/// The slot that the `struct tun_file` at an address puts its next frame into.
#[inline(always)]
pub fn producer(file: u64, at: &Offsets) -> u32 {
    member(file + at.queue_ring as u64, at.ring_producer)
}

/// The ring of the `struct tun_file` at an address. The head first, see [`Ring`].
#[inline(always)]
pub fn ring(file: u64, at: &Offsets) -> Ring {
    let ring = file + at.queue_ring as u64;
    let head: u32 = member(ring, at.ring_head);
    let producer: u32 = member(ring, at.ring_producer);
    let (size, slots) = if at.ring_slots == at.ring_size + 8 {
        let [size, slots]: [u64; 2] = member(ring, at.ring_size);
        (size as u32, slots)
    } else {
        (member(ring, at.ring_size), member(ring, at.ring_slots))
    };
    let taken = |slot: u32| read::<u64>(slots + 8 * slot as u64) != 0;
    let between = if producer >= head { producer - head } else { producer + size - head };
    let mut flags = flags::VALID;
    if between == 0 {
        // Of a ring that is full every slot is taken, that which comes next too.
        if taken(half_on(producer, size)) {
            flags |= flags::HALF_TAKEN | flags::NEXT_TAKEN;
        }
    } else if between + BATCH >= size && taken(producer) {
        flags |= flags::NEXT_TAKEN;
    }
    Ring { head, producer, size, flags }
}

/// Slots that are freed together (`__ptr_ring_set_size`: two cache lines of pointers).
const BATCH: u32 = 16;
