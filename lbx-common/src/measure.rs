//! What the measuring programs (`lbx-ebpf-bench`) and `lbx-bench` share. No part of the datapath's ABI.

use bytemuck::{Pod, Zeroable};

/// Words that are put back behind the Ethernet header: IPv6 and TCP without options.
pub const WORDS: usize = 15;

/// Flows of one CPU in a race for the same buckets.
pub const RACE_FLOWS: u32 = 32;
/// Place of the state of its generator, behind its flows.
pub const RACE_STATE: u32 = RACE_FLOWS;

/// Bits of [`Wrap::flags`].
pub mod flags {
    /// The packet is IPv6.
    pub const V6: u32 = 1;
    /// Put back all headers, not just the Ethernet header: for programs that translate.
    pub const WHOLE: u32 = 2;
    /// Choose a flow at random for every packet.
    pub const RANDOM: u32 = 4;
    /// Take one flow after another.
    pub const SEQUENTIAL: u32 = 8;
}

/// What is done to the packet before it goes to the program under test. User space writes it before a run.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug)]
pub struct Wrap {
    /// [`flags`].
    pub flags: u32,
    /// Number of flows (a power of two) minus one.
    pub mask: u32,
    /// State of the generator; not 0 for [`flags::RANDOM`].
    pub state: u32,
    /// Bytes of the frame: what a program has put in front is taken off again.
    pub len: u32,
    /// The Ethernet header, in memory order; its last two bytes are the low half of the last word.
    pub ethernet: [u32; 4],
    /// What follows it.
    pub words: [u32; WORDS],
    /// Padding.
    pub reserved_tail: u32,
}

impl Wrap {
    /// The next flow of a run (xorshift, Marsaglia 2003: of period 2^32 - 1).
    #[inline(always)]
    pub const fn next(&mut self) -> u32 {
        if self.flags & flags::RANDOM != 0 {
            let mut x = self.state;
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            self.state = x;
            x & self.mask
        } else {
            self.state = self.state.wrapping_add(1);
            self.state & self.mask
        }
    }
}

/// Client address (last word, as it lies in the packet) and port of the n-th flow, `n` below 2^24: 10.0.0.0/8, or
/// the last 32 bits of an IPv6 address.
#[inline(always)]
pub const fn client(n: u32) -> (u32, u16) {
    let address = (0x0a00_0000 | (n & 0x00ff_ffff)).to_be();
    let port = (1024 + (n.wrapping_mul(2_654_435_761) >> 18)) as u16;
    (address, port.to_be())
}

const _: () = assert!(size_of::<Wrap>() == 96);
