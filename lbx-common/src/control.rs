//! The control block: the few words that govern the whole datapath.

use crate::addr::Ip;
use crate::flow::IdleLimits;
use crate::key::Secret;
use crate::tunnel::TunnelWord;
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

/// Tells most addresses that are in no table from the few that are, without a look at the table (a Bloom filter of
/// one function, inverted, so that nothing set means nothing known): bit n is set if no address of the table has
/// [`Absent::bit`] n.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug, Default)]
pub struct Absent(pub [u64; 2]);

impl Absent {
    /// Which of the 128 bits stands for an address.
    #[inline(always)]
    pub const fn bit(addr: &Ip) -> u32 {
        addr.folded().wrapping_mul(0x9E37_79B1) >> 25
    }

    /// For a table of these addresses.
    pub fn of(addrs: impl IntoIterator<Item = Ip>) -> Self {
        let mut absent = [u64::MAX; 2];
        for bit in addrs.into_iter().map(|addr| Self::bit(&addr)) {
            absent[bit as usize / 64] &= !(1 << (bit % 64));
        }
        Self(absent)
    }

    /// What is absent from both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self([self.0[0] & other.0[0], self.0[1] & other.0[1]])
    }

    /// Whether an address of this bit may be in the table, by the word of it that has the bit.
    #[inline(always)]
    pub const fn may_hold(word: u64, bit: u32) -> bool {
        word >> (bit & 63) & 1 == 0
    }

    /// Whether an address is surely not in the table.
    pub const fn has(&self, addr: &Ip) -> bool {
        let bit = Self::bit(addr);
        !Self::may_hold(self.0[bit as usize / 64], bit)
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
    pub reserved: [u16; 3],
    /// What the flows whose response times are measured are told by ([`crate::response::is_sampled`]).
    pub sample_key: u32,
    /// How many of them: [`crate::response::below`]; 0 none.
    pub sampled_below: u32,
    #[doc(hidden)]
    pub reserved_line: [u32; 2],
    /// Keys of the flow hash.
    pub secret: Secret,
    /// What comes out of tunnels here.
    pub tunnel: TunnelWord,
    #[doc(hidden)]
    pub reserved_tail: u64,
}

const _: () = assert!(size_of::<Control>() == 192);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_of_the_table_is_absent_and_most_others_are() {
        let v4 = |n: u32| Ip::v4(n.to_be());
        let table: Vec<Ip> = (0..8).map(|n| v4(0xc000_0201 + n)).chain([Ip::v6([1, 2, 3, 4])]).collect();
        let absent = Absent::of(table.iter().copied());
        assert!(table.iter().all(|addr| !absent.has(addr)));
        let others = (0..10_000).filter(|n| absent.has(&v4(0x0a00_0000 + n))).count();
        assert!(others > 9_000, "{others} of 10000 told apart");
        assert!(!Absent::default().has(&v4(1)), "nothing set, nothing known");
        let less = absent.and(Absent::of([v4(0x0a00_0001)]));
        assert!(!less.has(&v4(0x0a00_0001)) && !less.has(&table[0]));
    }
}
