//! The control block: the few words that govern the whole datapath.

use crate::flow::IdleLimits;
use crate::key::Secret;
use bytemuck::{Pod, Zeroable};

/// Bits of [`Control::flags`].
pub mod flags {
    /// Every packet passes as it came; flows are kept. The operator's one-step way out.
    pub const BYPASS: u32 = 1;
    /// Every verdict is computed and counted, every packet passes.
    pub const OBSERVE: u32 = 2;
}

/// Which generation of the address table is in force, and its seed: one aligned word, one store flips it.
/// Bits 0-31 the (odd) seed, bits 32-63 the index of the generation's first slot.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug, Default)]
pub struct AddressSelect(pub u64);

impl AddressSelect {
    /// Packs seed and base.
    pub const fn new(seed: u32, base: u32) -> Self {
        Self(seed as u64 | ((base as u64) << 32))
    }
    /// The seed of the slot function.
    #[inline(always)]
    pub const fn seed(self) -> u32 {
        self.0 as u32
    }
    /// Index of the generation's first slot.
    #[inline(always)]
    pub const fn base(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// The single element of the `control` map, mapped into user space.
#[repr(C, align(64))]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug)]
pub struct Control {
    /// [`flags`]: bypass and observe.
    pub flags: u32,
    /// [`crate::limits::ABI_VERSION`] of whoever made the maps.
    pub abi: u32,
    /// The address table in force.
    pub addresses: AddressSelect,
    /// Number of buckets of the flow table minus one.
    pub bucket_mask: u32,
    /// An epoch is `jiffies64 >> epoch_shift`, about a second.
    pub epoch_shift: u32,
    /// Jiffies per second, as measured at load.
    pub hz: u32,
    /// Answers (RST, unreachable, too big, ARP, ND, echo) per second and CPU.
    pub answer_rate: u32,
    /// Idle times.
    pub idle: IdleLimits,
    /// Epochs after which a client's MAC is shown to the bridge again.
    pub learn_epochs: u16,
    #[doc(hidden)]
    pub reserved: [u16; 11],
    /// Keys of the flow hash.
    pub secret: Secret,
    #[doc(hidden)]
    pub reserved_tail: [u64; 2],
}

const _: () = assert!(size_of::<Control>() == 192);
