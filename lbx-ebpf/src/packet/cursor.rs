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
    pub const fn new(data: usize, end: usize) -> Self {
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
        // as the verifier checks again).
        Some(unsafe { load(at) })
    }

    /// Writes a value at an offset from the start of the frame, whatever its alignment there.
    #[inline(always)]
    pub fn write<T: NoUninit>(self, offset: usize, value: T) -> Option<()> {
        let at = self.data + offset;
        if at + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: as in `read`; nobody else refers to the packet's bytes while the program runs.
        unsafe { store(at, value) };
        Some(())
    }
}

/// `N` bytes of the packet whose bounds were checked together; what is read of them lies at constant offsets. Stale
/// with the [`Packet`] it is of.
#[derive(Clone, Copy)]
pub struct Span<const N: usize>(usize);

impl Packet {
    /// `N` bytes from an offset from the start of the frame.
    #[inline(always)]
    pub fn span<const N: usize>(self, offset: usize) -> Option<Span<N>> {
        let at = self.data + offset;
        if at + N > self.end { None } else { Some(Span(at)) }
    }
}

/// One load from a span, at a constant offset that is checked when the program is built. On the host, where it never
/// runs, the same by a pointer.
macro_rules! loads {
    ($(#[$doc:meta])* $name:ident, $type:ty, $text:literal) => {
        $(#[$doc])*
        #[inline(always)]
        pub fn $name<const AT: usize>(self) -> $type {
            const { assert!(AT + size_of::<$type>() <= N) };
            #[cfg(target_arch = "bpf")]
            {
                let value: u64;
                // SAFETY: a load of bytes whose bounds were checked; it fills the register with zeros.
                unsafe {
                    core::arch::asm!(concat!("{v} = *(", $text, " *)({at} + {off})"), v = out(reg) value,
                        at = in(reg) self.0, off = const AT, options(pure, readonly, nostack));
                    // Else the compiler clears the upper bits again, wherever the value is used.
                    core::hint::assert_unchecked(value >> <$type>::BITS == 0);
                }
                value as $type
            }
            #[cfg(not(target_arch = "bpf"))]
            // SAFETY: as above.
            unsafe {
                ((self.0 + AT) as *const $type).read_unaligned()
            }
        }
    };
}

/// One store to a span, as `loads` loads.
macro_rules! stores {
    ($(#[$doc:meta])* $name:ident, $type:ty, $text:literal) => {
        $(#[$doc])*
        #[inline(always)]
        pub fn $name<const AT: usize>(self, value: $type) {
            const { assert!(AT + size_of::<$type>() <= N) };
            #[cfg(target_arch = "bpf")]
            // SAFETY: a store to bytes whose bounds were checked; nobody else refers to them while the program runs.
            unsafe {
                core::arch::asm!(concat!("*(", $text, " *)({at} + {off}) = {v}"), v = in(reg) value as u64,
                    at = in(reg) self.0, off = const AT, options(nostack));
            }
            #[cfg(not(target_arch = "bpf"))]
            // SAFETY: as above.
            unsafe {
                ((self.0 + AT) as *mut $type).write_unaligned(value);
            }
        }
    };
}

impl<const N: usize> Span<N> {
    loads!(
        /// One byte.
        u8, u8, "u8"
    );
    loads!(
        /// Two bytes as they lie in the packet.
        u16, u16, "u16"
    );
    loads!(
        /// Four bytes as they lie in the packet.
        u32, u32, "u32"
    );
    stores!(
        /// Two bytes as they shall lie in the packet.
        set_u16, u16, "u16"
    );
    stores!(
        /// Four bytes as they shall lie in the packet.
        set_u32, u32, "u32"
    );
}

/// Loads a value in the largest pieces that divide its size. The kernel wants efficient unaligned access for
/// packet pointers, but the compiler, which must not assume it, would load byte by byte.
///
/// # Safety
/// `at` is the address of `size_of::<T>()` readable bytes.
#[inline(always)]
unsafe fn load<T: AnyBitPattern>(at: usize) -> T {
    let mut value = T::zeroed();
    let to = &raw mut value;
    let size = size_of::<T>();
    let mut done = 0;
    // SAFETY: the pieces lie within the bytes the caller vouches for and within `value`; any bit pattern is a T.
    unsafe {
        while done + 4 <= size {
            to.byte_add(done).cast::<u32>().write_unaligned(load_word(at + done));
            done += 4;
        }
        if done + 2 <= size {
            to.byte_add(done).cast::<u16>().write_unaligned(load_half(at + done));
            done += 2;
        }
        if done < size {
            to.byte_add(done).cast::<u8>().write((at as *const u8).add(done).read());
        }
    }
    value
}

/// Stores a value in the largest pieces that divide its size, as [`load`] loads.
///
/// # Safety
/// `at` is the address of `size_of::<T>()` writable bytes.
#[inline(always)]
unsafe fn store<T: NoUninit>(at: usize, value: T) {
    let from = &raw const value;
    let size = size_of::<T>();
    let mut done = 0;
    // SAFETY: as in `load`; all bytes of a NoUninit type are initialised.
    unsafe {
        while done + 4 <= size {
            store_word(at + done, from.byte_add(done).cast::<u32>().read_unaligned());
            done += 4;
        }
        if done + 2 <= size {
            store_half(at + done, from.byte_add(done).cast::<u16>().read_unaligned());
            done += 2;
        }
        if done < size {
            (at as *mut u8).add(done).write(from.byte_add(done).cast::<u8>().read());
        }
    }
}

/// One load of 4 bytes. Safety: as for [`load`].
#[inline(always)]
unsafe fn load_word(at: usize) -> u32 {
    #[cfg(target_arch = "bpf")]
    {
        let value: u64;
        // SAFETY: one load from where the caller says it may; it fills the register with zeros.
        unsafe {
            core::arch::asm!("{v} = *(u32 *)({at} + 0)", v = out(reg) value, at = in(reg) at,
                options(pure, readonly, nostack));
            // Else the compiler clears the upper half of the register again, wherever the word is used.
            core::hint::assert_unchecked(value >> 32 == 0);
        }
        value as u32
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's promise.
    unsafe {
        (at as *const u32).read_unaligned()
    }
}

/// One load of 2 bytes. Safety: as for [`load`].
#[inline(always)]
unsafe fn load_half(at: usize) -> u16 {
    #[cfg(target_arch = "bpf")]
    {
        let value: u64;
        // SAFETY: one load from where the caller says it may; it fills the register with zeros.
        unsafe {
            core::arch::asm!("{v} = *(u16 *)({at} + 0)", v = out(reg) value, at = in(reg) at,
                options(pure, readonly, nostack));
            core::hint::assert_unchecked(value >> 16 == 0);
        }
        value as u16
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's promise.
    unsafe {
        (at as *const u16).read_unaligned()
    }
}

/// One store of 4 bytes. Safety: as for [`store`].
#[inline(always)]
unsafe fn store_word(at: usize, value: u32) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: one store to where the caller says it may.
    unsafe {
        core::arch::asm!("*(u32 *)({at} + 0) = {v}", v = in(reg) value as u64, at = in(reg) at,
            options(nostack));
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's promise.
    unsafe {
        (at as *mut u32).write_unaligned(value);
    }
}

/// One store of 2 bytes. Safety: as for [`store`].
#[inline(always)]
unsafe fn store_half(at: usize, value: u16) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: one store to where the caller says it may.
    unsafe {
        core::arch::asm!("*(u16 *)({at} + 0) = {v}", v = in(reg) value as u64, at = in(reg) at,
            options(nostack));
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's promise.
    unsafe {
        (at as *mut u16).write_unaligned(value);
    }
}
