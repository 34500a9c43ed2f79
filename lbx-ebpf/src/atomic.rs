//! Compare-and-swap, exchange and addition on words of maps.
//!
//! `core::sync::atomic` has neither on bpf; the intrinsics behind it compile. On the host, where this is only
//! checked, plain `AtomicU64` stands in.

/// Stores `new` if `*at` is `old`; whether it did.
///
/// # Safety
/// `at` points to an aligned word of a map value or scratch space that is valid for the whole program run.
#[inline(always)]
pub unsafe fn compare_exchange(at: *mut u64, old: u64, new: u64) -> bool {
    #[cfg(target_arch = "bpf")]
    {
        use core::intrinsics::{AtomicOrdering::SeqCst, atomic_cxchg};
        // SAFETY: the caller's promise is the intrinsic's.
        unsafe { atomic_cxchg::<u64, { SeqCst }, { SeqCst }>(at, old, new).1 }
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
        // SAFETY: the caller promises an aligned valid word; AtomicU64 has its layout.
        unsafe { AtomicU64::from_ptr(at) }.compare_exchange(old, new, SeqCst, SeqCst).is_ok()
    }
}

/// Adds to a word that other CPUs, and user space, add to.
///
/// # Safety
/// As for [`compare_exchange`].
#[inline(always)]
pub unsafe fn add(at: *mut u64, n: i64) {
    #[cfg(target_arch = "bpf")]
    {
        use core::intrinsics::{AtomicOrdering::Relaxed, atomic_xadd};
        // SAFETY: the caller's promise is the intrinsic's.
        unsafe { atomic_xadd::<u64, u64, { Relaxed }>(at, n as u64) };
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
        // SAFETY: the caller promises an aligned valid word; AtomicU64 has its layout.
        unsafe { AtomicU64::from_ptr(at) }.fetch_add(n as u64, Relaxed);
    }
}

/// Stores `new`, with everything stored before it visible first.
///
/// # Safety
/// As for [`compare_exchange`].
#[inline(always)]
pub unsafe fn exchange(at: *mut u64, new: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        use core::intrinsics::{AtomicOrdering::SeqCst, atomic_xchg};
        // SAFETY: the caller's promise is the intrinsic's.
        unsafe { atomic_xchg::<u64, { SeqCst }>(at, new) }
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
        // SAFETY: the caller promises an aligned valid word; AtomicU64 has its layout.
        unsafe { AtomicU64::from_ptr(at) }.swap(new, SeqCst)
    }
}
