//! Arrays of the kernel, mapped into this process.
//!
//! The kernel lays the values of an array out one after the other, each rounded up to 8 bytes
//! (kernel/bpf/arraymap.c, `array->elem_size`), from the start of a page for `BPF_F_MMAPABLE`. Every access
//! goes through whole aligned 64-bit (or 32-bit) atomic words: the programs store into the same memory, and
//! one word is what both sides can exchange without tearing.

use super::error::{Error, Result};
use super::sys;
use bytemuck::Pod;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags};

/// One mapped array of `T`, shared with the kernel.
pub struct Array<T> {
    name: &'static str,
    base: NonNull<c_void>,
    bytes: NonZeroUsize,
    len: u32,
    stride: usize,
    writable: bool,
    element: PhantomData<T>,
}

// SAFETY: the mapping belongs to the value and moves with it; all access is by atomic words, so it may be
// shared between threads as it is shared with the kernel.
unsafe impl<T: Send> Send for Array<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Array<T> {}

impl<T> Drop for Array<T> {
    fn drop(&mut self) {
        // SAFETY: base and length are those of the mapping made in `new`, which nothing else unmaps, and no
        // reference into it outlives `self` (words are handed out bound to its borrow).
        let unmapped = unsafe { nix::sys::mman::munmap(self.base, self.bytes.get()) };
        debug_assert!(unmapped.is_ok(), "munmap of a mapping of our own");
    }
}

impl<T: Pod> Array<T> {
    /// Maps all of an array; its value size must be that of `T` (checked by [`super::shape`] before).
    pub fn new(name: &'static str, fd: &OwnedFd, writable: bool) -> Result<Self> {
        let info = sys::map_info(fd).map_err(Error::io(format!("reading the shape of map {name}")))?;
        if info.value_size as usize != size_of::<T>() {
            let (found, expected) = (info.value_size.into(), size_of::<T>() as u64);
            return Err(Error::Shape { name, what: "its value size", found, expected });
        }
        let (bytes, stride) = extent::<T>(info.max_entries);
        let prot = if writable { ProtFlags::PROT_READ | ProtFlags::PROT_WRITE } else { ProtFlags::PROT_READ };
        // SAFETY: the kernel picks the address, so no existing mapping is touched; the length does not exceed
        // the array's (stride × entries, rounded up to pages), so no access within it faults.
        let base = unsafe { nix::sys::mman::mmap(None, bytes, prot, MapFlags::MAP_SHARED, fd.as_fd(), 0) }
            .map_err(|e| Error::io(format!("mapping {name}"))(e.into()))?;
        Ok(Self { name, base, bytes, len: info.max_entries, stride, writable, element: PhantomData })
    }

    /// The same over memory of this process alone: what the pure parts are tested on.
    pub fn anonymous(name: &'static str, len: u32) -> Result<Self> {
        let (bytes, stride) = extent::<T>(len);
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: as in `new`; the memory is fresh, zeroed and ours.
        let base = unsafe { nix::sys::mman::mmap_anonymous(None, bytes, prot, MapFlags::MAP_PRIVATE) }
            .map_err(|e| Error::io(format!("mapping {name}"))(e.into()))?;
        Ok(Self { name, base, bytes, len, stride, writable: true, element: PhantomData })
    }

    /// Number of elements.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether it has none (no map of the kernel has).
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads an element, word by word.
    pub fn get(&self, index: u32) -> Result<T> {
        self.check(index, 0)?;
        let mut value = T::zeroed();
        let bytes = bytemuck::bytes_of_mut(&mut value);
        for (n, chunk) in bytes.chunks_mut(8).enumerate() {
            let word = self.word(index, n).load(Ordering::Relaxed);
            chunk.copy_from_slice(&word.to_ne_bytes()[..chunk.len()]);
        }
        Ok(value)
    }

    /// Writes an element, the words that differ only, the first one last: state words and table bounds come
    /// first in their structures, so that what they announce is there when they are.
    pub fn set(&self, index: u32, value: &T) -> Result<()> {
        self.check_write(index, 0)?;
        let bytes = bytemuck::bytes_of(value);
        for (n, chunk) in bytes.chunks(8).enumerate().rev() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let word = u64::from_ne_bytes(word);
            let place = self.word(index, n);
            if place.load(Ordering::Relaxed) != word {
                place.store(word, Ordering::Release);
            }
        }
        Ok(())
    }

    /// The `n`-th 64-bit word of an element, for a store that flips it at once.
    pub fn word64(&self, index: u32, n: usize) -> Result<&AtomicU64> {
        self.check_write(index, n * 8)?;
        Ok(self.word(index, n))
    }

    /// The `n`-th 32-bit word of an element.
    pub fn word32(&self, index: u32, n: usize) -> Result<&AtomicU32> {
        self.check_write(index, n * 4)?;
        // SAFETY: index and word are inside the mapping (checked), which is page-aligned, the stride a
        // multiple of 8: the address is aligned, and lives as long as `self`. Mixed with 64-bit atomic access
        // to the same place by `get`, which only ever runs on memory that is shared with the kernel anyway.
        Ok(unsafe { AtomicU32::from_ptr(self.at(index, n * 4).cast()) })
    }

    /// For readers: the `n`-th 64-bit word without the right to store.
    pub fn load64(&self, index: u32, n: usize) -> Result<u64> {
        self.check(index, n * 8)?;
        Ok(self.word(index, n).load(Ordering::Acquire))
    }

    fn at(&self, index: u32, offset: usize) -> *mut c_void {
        debug_assert!(index < self.len && offset < self.stride);
        // SAFETY: index < len and offset < stride (callers check), so the address is inside the mapping.
        unsafe { self.base.as_ptr().byte_add(index as usize * self.stride + offset) }
    }

    fn word(&self, index: u32, n: usize) -> &AtomicU64 {
        // SAFETY: the callers checked the index; `n * 8` is below the stride, which is a multiple of 8, and
        // the mapping is page-aligned: an aligned word that lives as long as `self`. A store into a mapping
        // without PROT_WRITE cannot happen: writers call `check_write` first.
        unsafe { AtomicU64::from_ptr(self.at(index, n * 8).cast()) }
    }

    fn check(&self, index: u32, offset: usize) -> Result<()> {
        if index < self.len && offset < self.stride {
            return Ok(());
        }
        Err(Error::Range { map: self.name, index: index.into(), len: self.len.into() })
    }

    fn check_write(&self, index: u32, offset: usize) -> Result<()> {
        if !self.writable {
            return Err(Error::ReadOnly);
        }
        self.check(index, offset)
    }
}

/// Bytes of the mapping and distance of its elements.
fn extent<T>(len: u32) -> (NonZeroUsize, usize) {
    let stride = size_of::<T>().next_multiple_of(8).max(8);
    let bytes = (len.max(1) as usize * stride).next_multiple_of(4096);
    (NonZeroUsize::new(bytes).unwrap_or(NonZeroUsize::MIN), stride)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_laid_out_at_the_kernels_stride() {
        let array: Array<[u32; 3]> = Array::anonymous("test", 10).unwrap();
        assert_eq!(array.stride, 16);
        for i in 0..10 {
            array.set(i, &[i, i + 1, i + 2]).unwrap();
        }
        for i in 0..10 {
            assert_eq!(array.get(i).unwrap(), [i, i + 1, i + 2]);
        }
        assert!(array.get(10).is_err());
        assert!(array.set(10, &[0; 3]).is_err());
        assert!(array.word64(0, 2).is_err(), "beyond the element");
    }

    #[test]
    fn a_word_is_seen_in_the_element() {
        let array: Array<[u64; 2]> = Array::anonymous("test", 4).unwrap();
        array.word64(3, 1).unwrap().store(7, Ordering::Release);
        array.word32(3, 1).unwrap().store(1, Ordering::Release);
        assert_eq!(array.get(3).unwrap(), [1 << 32, 7]);
        assert_eq!(array.load64(3, 1).unwrap(), 7);
    }
}
