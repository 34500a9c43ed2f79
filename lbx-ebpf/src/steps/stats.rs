//! Counters of services and targets.

use crate::maps::{SERVICE_STATS, TARGET_STATS};
use lbx_common::stats::{ServiceStats, TargetStats};

/// Changes this CPU's counters of a service.
#[inline(always)]
pub fn service(index: u32, change: impl FnOnce(&mut ServiceStats)) {
    if let Some(at) = SERVICE_STATS.get_ptr_mut(index) {
        // SAFETY: a non-null value pointer of a per-CPU array; only this CPU writes it.
        change(unsafe { &mut *at });
    }
}

/// Changes this CPU's counters of a target.
#[inline(always)]
pub fn target(index: u32, change: impl FnOnce(&mut TargetStats)) {
    if let Some(at) = TARGET_STATS.get_ptr_mut(index) {
        // SAFETY: as in `service`.
        change(unsafe { &mut *at });
    }
}
