//! Time in jiffies: reading it costs nothing, unlike the clocks in nanoseconds.

use aya_ebpf::helpers::generated::bpf_jiffies64;
use lbx_common::control::Control;

/// jiffies64.
#[inline(always)]
pub fn jiffies() -> u64 {
    // SAFETY: the helper takes nothing and reads one word of the kernel.
    unsafe { bpf_jiffies64() }
}

/// The epoch at a time: about a second, wraps.
#[inline(always)]
pub fn epoch(control: &Control, jiffies: u64) -> u16 {
    (jiffies >> (control.epoch_shift & 63)) as u16
}
