//! Queues of vNICs: what the measuring program (`lbx-ebpf-measure`) and user space exchange, and the arithmetic of
//! a tap's ring.
//!
//! A tap keeps the frames for each of its queues in a ring of pointers (`struct ptr_ring`, include/linux/ptr_ring.h,
//! as `tx_ring` in `struct tun_file`, drivers/net/tun.c). No part of the datapath's ABI: the program lives as long as
//! the daemon that loaded it.

mod counted;

pub use counted::{Counted, Totals};

use bytemuck::{Pod, Zeroable};

/// Queues that are watched at most.
pub const MAX_RINGS: u32 = 4096;
/// Queues that one run of the reading program reads.
pub const RINGS_A_RUN: u32 = 64;

/// Of this many looks at an empty queue one is whole; the others see whether anything was put in.
pub const WHOLE_EVERY: u32 = 32;

/// Byte offsets of the members that are read, from the kernel's own type information.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug, Default)]
pub struct Offsets {
    /// `struct file`: `f_inode`.
    pub file_inode: u32,
    /// `struct file`: `private_data`.
    pub file_private: u32,
    /// `struct inode`: `i_rdev`.
    pub inode_rdev: u32,
    /// `struct task_struct`: `tgid`.
    pub task_tgid: u32,
    /// `struct tun_file`: `tun`.
    pub queue_tun: u32,
    /// `struct tun_file`: `queue_index`.
    pub queue_index: u32,
    /// `struct tun_file`: `tx_ring`.
    pub queue_ring: u32,
    /// `struct ptr_ring`: `producer`.
    pub ring_producer: u32,
    /// `struct ptr_ring`: `consumer_head`.
    pub ring_head: u32,
    /// `struct ptr_ring`: `size`.
    pub ring_size: u32,
    /// `struct ptr_ring`: `queue`.
    pub ring_slots: u32,
    /// `struct tun_struct`: `tfiles`, its queues by their numbers.
    pub tun_files: u32,
    /// `struct tun_struct`: `numqueues`.
    pub tun_queues: u32,
    /// `struct tun_struct`: `dev`.
    pub tun_dev: u32,
    /// `struct net_device`: `ifindex`.
    pub dev_ifindex: u32,
    /// `struct net_device`: `nd_net.net`.
    pub dev_net: u32,
    /// `struct net`: `ns.inum`.
    pub net_inum: u32,
}

/// Words of [`Offsets`], for the read-only global that carries them.
pub const OFFSETS: usize = size_of::<Offsets>() / 4;

/// Bits of [`Ring::flags`].
pub mod flags {
    /// The queue was there, and still that of the same device.
    pub const VALID: u32 = 1;
    /// The slot that the next frame goes into is taken: the ring refuses it.
    pub const NEXT_TAKEN: u32 = 2;
    /// The slot half a ring on is taken.
    pub const HALF_TAKEN: u32 = 4;
}

/// A ring as it was read; its indices may be a few frames apart. The consumer's index is read first: so a frame
/// that is put in and taken out meanwhile makes the ring look longer by one, never nearly full.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug, Default)]
pub struct Ring {
    /// Slot that is taken out next.
    pub head: u32,
    /// Slot that is filled next.
    pub producer: u32,
    /// Slots.
    pub size: u32,
    /// [`flags`].
    pub flags: u32,
}

impl Ring {
    /// Whether it says anything: a ring that was resized meanwhile has indices beyond its size.
    #[inline(always)]
    pub const fn is_valid(&self) -> bool {
        self.flags & flags::VALID != 0 && self.head < self.size && self.producer < self.size
    }

    /// Frames that wait.
    ///
    /// Equal indices are an empty ring or a full one. A full one has a frame in every slot. An empty one may have
    /// up to a batch of taken slots behind its head, because they are freed by the batch, and a batch is less than
    /// half a ring: so the slot half a ring on tells them apart, even if a frame arrives meanwhile.
    #[inline(always)]
    pub const fn depth(&self) -> u32 {
        if self.producer > self.head {
            self.producer - self.head
        } else if self.producer < self.head {
            self.producer + self.size - self.head
        } else if self.flags & flags::HALF_TAKEN != 0 {
            self.size
        } else {
            0
        }
    }

    /// Whether it was seen to be empty.
    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        self.flags == flags::VALID && self.head == self.producer
    }

    /// Whether it refuses the next frame. It may with up to a batch (16) of slots to spare: they are freed together.
    #[inline(always)]
    pub const fn is_full(&self) -> bool {
        self.flags & flags::NEXT_TAKEN != 0
    }

    /// Frames taken out since an earlier look, unless it was a whole ring or more, or the ring was resized.
    #[inline(always)]
    pub const fn taken_since(&self, before: &Self) -> Option<u32> {
        if self.size != before.size {
            None
        } else if self.head >= before.head {
            Some(self.head - before.head)
        } else {
            Some(self.head + self.size - before.head)
        }
    }
}

/// The slot half a ring on from `slot`.
#[inline(always)]
pub const fn half_on(slot: u32, size: u32) -> u32 {
    let sum = slot + size / 2;
    if sum >= size { sum - size } else { sum }
}

/// Frames taken out of each queue of a vNIC between two looks, from what each ring's head moved (`None`: not
/// known) and what the device counted in all. A head that went around is off by multiples of its ring: what is
/// missing to the count is spread evenly.
pub fn spread(moved: &mut [Option<u32>], counted: u64) {
    let known: u64 = moved.iter().flatten().map(|n| *n as u64).sum();
    let missing = counted.saturating_sub(known);
    if missing == 0 || moved.is_empty() {
        return;
    }
    let unknown = moved.iter().filter(|one| one.is_none()).count();
    let each = (missing / if unknown > 0 { unknown } else { moved.len() } as u64) as u32;
    for one in moved.iter_mut().filter(|one| unknown == 0 || one.is_none()) {
        *one = Some(one.unwrap_or(0).saturating_add(each));
    }
}

/// A queue that the kernel is asked to read. User space writes it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug, Default)]
pub struct Watched {
    /// Address of its `struct tun_file`; 0: none.
    pub file: u64,
    /// Address of its `struct tun_struct`.
    pub tun: u64,
    /// Address of its `struct net_device`.
    pub dev: u64,
    /// Interface index, which proves that the addresses are still what they were.
    pub ifindex: u32,
    /// Number of the queue.
    pub queue: u32,
}

/// What came to a queue by XDP, as the tracepoint `xdp_devmap_xmit` says. The kernel counts up.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug, Default)]
pub struct Arrivals {
    /// Frames put into the ring.
    pub sent: u64,
    /// Frames that were dropped there.
    pub drops: u64,
    /// Bulks that were cut short because the ring was full: the device counts each as one drop.
    pub cut: u64,
    /// Deepest that the ring was after a bulk, in the window.
    pub peak: u32,
    /// Window (counted by user space) that the peak belongs to.
    pub window: u32,
    /// User space was told that the ring has a queue ([`is_queue`]); it stores 0 here once that is over.
    pub told: u32,
    /// 0.
    pub pad: u32,
}

/// A ring up to one part in this of its size holds a burst; beyond, a queue.
pub const BURST: u32 = 20;

/// Whether so many frames in a ring are a queue and no burst.
#[inline(always)]
pub const fn is_queue(depth: u32, size: u32) -> bool {
    depth as u64 * BURST as u64 > size as u64
}

/// Whether a queue is over: at half of what makes one, so that frames that come and go at the threshold do not make
/// one again and again.
#[inline(always)]
pub const fn is_over(depth: u32, size: u32) -> bool {
    !is_queue(depth.saturating_mul(2), size)
}

/// Where the queues of a device are in the tables.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug, Default)]
pub struct Run {
    /// Index of queue 0; the others follow.
    pub first: u32,
    /// Queues.
    pub count: u32,
}

/// A queue that the iterator found, in whatever network namespace.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug, Default)]
pub struct Found {
    /// Where it is.
    pub at: Watched,
    /// Network namespace of its device (inode number).
    pub netns: u32,
    /// Process that holds it open.
    pub pid: u32,
    /// By this descriptor.
    pub fd: u32,
    /// Queues of the device that are in use; the numbers from there on are detached.
    pub queues: u32,
    /// Its ring.
    pub ring: Ring,
}

const _: () = assert!(size_of::<Offsets>() == 68 && size_of::<Ring>() == 16 && size_of::<Watched>() == 32);
const _: () = assert!(size_of::<Arrivals>() == 40 && size_of::<Found>() == 64);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The kernel's ring, as include/linux/ptr_ring.h describes it.
    struct Model {
        slots: Vec<bool>,
        producer: usize,
        head: usize,
        tail: usize,
        batch: usize,
        waiting: u32,
    }

    impl Model {
        fn new(size: usize) -> Self {
            // __ptr_ring_set_size: two cache lines of pointers, unless that is more than half the ring.
            let batch = if 16 > size / 2 { 1 } else { 16 };
            Self { slots: vec![false; size], producer: 0, head: 0, tail: 0, batch, waiting: 0 }
        }

        fn produce(&mut self) -> bool {
            if self.slots[self.producer] {
                return false;
            }
            self.slots[self.producer] = true;
            self.producer = (self.producer + 1) % self.slots.len();
            self.waiting += 1;
            true
        }

        fn consume(&mut self) -> bool {
            if self.waiting == 0 {
                return false;
            }
            self.waiting -= 1;
            self.head += 1;
            if self.head - self.tail >= self.batch || self.head >= self.slots.len() {
                self.slots[self.tail..self.head].fill(false);
                self.tail = self.head;
            }
            if self.head >= self.slots.len() {
                (self.head, self.tail) = (0, 0);
            }
            true
        }

        fn read(&self) -> Ring {
            let size = self.slots.len() as u32;
            let (head, producer) = (self.head as u32, self.producer as u32);
            let mut bits = flags::VALID;
            if self.slots[self.producer] {
                bits |= flags::NEXT_TAKEN;
            }
            if self.slots[half_on(producer, size) as usize] {
                bits |= flags::HALF_TAKEN;
            }
            Ring { head, producer, size, flags: bits }
        }
    }

    proptest! {
        #[test]
        fn the_depth_is_what_waits(
            size in prop::sample::select(vec![1_usize, 2, 3, 31, 32, 33, 64, 1000]),
            steps in prop::collection::vec((any::<bool>(), 1_usize..1100), 1..60),
        ) {
            let mut model = Model::new(size);
            for (fill, times) in steps {
                for _ in 0..times {
                    let before = model.read();
                    let moved = if fill { model.produce() } else { model.consume() };
                    let ring = model.read();
                    prop_assert!(ring.is_valid());
                    prop_assert_eq!(ring.depth(), model.waiting);
                    if fill {
                        prop_assert_eq!(before.is_full(), !moved);
                    } else if size > 1 {
                        prop_assert_eq!(ring.taken_since(&before), Some(u32::from(moved)));
                    }
                    if !moved {
                        break;
                    }
                }
            }
        }
    }

    #[test]
    fn a_full_ring_may_have_a_batch_to_spare() {
        let mut model = Model::new(1000);
        while model.produce() {}
        assert_eq!((model.read().depth(), model.read().is_full()), (1000, true));
        for _ in 0..15 {
            assert!(model.consume());
        }
        assert_eq!((model.read().depth(), model.read().is_full()), (985, true), "15 of 16 are not freed yet");
        assert!(model.consume());
        assert_eq!((model.read().depth(), model.read().is_full()), (984, false));
    }

    #[test]
    fn a_frame_that_comes_while_an_empty_ring_is_read_does_not_fill_it() {
        // Indices read before it came, slots after.
        let ring = Ring { head: 5, producer: 5, size: 1000, flags: flags::VALID | flags::NEXT_TAKEN };
        assert_eq!(ring.depth(), 0);
    }

    #[test]
    fn a_queue_begins_beyond_a_burst_and_ends_at_half_of_it() {
        assert!(!is_queue(50, 1000) && is_queue(51, 1000));
        assert!(is_over(25, 1000) && !is_over(26, 1000));
        for size in [0, 1, 19, 20, 1000, u32::MAX] {
            for depth in [0, 1, size / 40, size / 20, size / 20 + 1, size, u32::MAX] {
                assert!(!(is_queue(depth, size) && is_over(depth, size)), "{depth} of {size}");
            }
        }
    }

    #[test]
    fn a_ring_resized_meanwhile_says_nothing() {
        let ring = Ring { head: 700, producer: 20, size: 500, flags: flags::VALID };
        assert!(!ring.is_valid());
        let before = Ring { size: 1000, ..ring };
        assert_eq!(ring.taken_since(&before), None);
        assert!(!Ring::default().is_valid());
    }

    #[test]
    fn what_the_heads_missed_is_spread() {
        let after = |mut moved: Vec<Option<u32>>, counted| {
            spread(&mut moved, counted);
            moved
        };
        assert_eq!(after(vec![Some(3), Some(4)], 7), [Some(3), Some(4)]);
        assert_eq!(after(vec![Some(3), Some(4)], 2007), [Some(1003), Some(1004)]);
        assert_eq!(after(vec![Some(3), None], 10), [Some(3), Some(7)]);
        assert_eq!(after(vec![Some(3)], 0), [Some(3)], "frames of the next look");
        assert_eq!(after(Vec::new(), 5), []);
    }
}
