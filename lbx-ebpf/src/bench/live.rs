//! Both ends of a line: frames that the wrapper made go out here, and are counted where they arrive.

use crate::maps::{ARRIVED, SEND};
use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP};

/// Sends a frame as it is, behind the wrapper.
#[inline(always)]
pub fn send() -> u32 {
    SEND.redirect(0, 0).unwrap_or(XDP_ABORTED)
}

/// Counts a frame and lets go of it.
#[inline(always)]
pub fn arrive() -> u32 {
    if let Some(count) = ARRIVED.get_ptr_mut(0) {
        // SAFETY: a non-null value pointer, of this CPU's own counter.
        unsafe { *count += 1 };
    }
    XDP_DROP
}
