//! The one door to the packet's bytes.

use bytemuck::{AnyBitPattern, NoUninit};

/// The bytes that can be reached directly, as of when it was made: any helper that moves or resizes the
/// packet makes it stale, and the verifier refuses the program if a stale one is used.
#[derive(Clone, Copy)]
pub struct Packet {
    data: usize,
    end: usize,
}

impl Packet {
    /// From the bounds the context gives.
    #[inline(always)]
    pub(super) const fn new(data: usize, end: usize) -> Self {
        Self { data, end }
    }

    /// Bytes that can be reached directly.
    #[inline(always)]
    pub const fn reach(self) -> usize {
        self.end - self.data
    }

    /// Whether the first `bytes` can be reached.
    #[inline(always)]
    pub const fn holds(self, bytes: usize) -> bool {
        self.data + bytes <= self.end
    }

    /// Reads a value at an offset from the start of the frame, whatever its alignment there.
    ///
    /// Offsets should be constants on each path: the verifier follows `data + constant` best.
    #[inline(always)]
    pub fn read<T: AnyBitPattern>(self, offset: usize) -> Option<T> {
        let at = self.data + offset;
        if at + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: the bytes [at, at + size) lie between the packet's data and its end, as just checked (and
        // as the verifier checks again); any bit pattern is a T.
        Some(unsafe { core::ptr::read_unaligned(at as *const T) })
    }

    /// Writes a value at an offset from the start of the frame, whatever its alignment there.
    #[inline(always)]
    pub fn write<T: NoUninit>(self, offset: usize, value: T) -> Option<()> {
        let at = self.data + offset;
        if at + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: as in `read`; nobody else refers to the packet's bytes while the program runs.
        unsafe { core::ptr::write_unaligned(at as *mut T, value) };
        Some(())
    }
}
