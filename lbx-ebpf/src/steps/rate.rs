//! Token buckets, one per CPU and purpose.

use super::clock;
use crate::maps::RATES;
use lbx_common::control::Control;
use lbx_common::steer::rate;

/// Bucket of the answers the datapath gives.
const ANSWERS: u32 = 0;

/// Takes a token from a bucket; whether there was one.
#[inline(always)]
fn take(bucket: u32, per_second: u32, control: &Control) -> bool {
    let Some(at) = RATES.get_ptr_mut(bucket) else { return false };
    // SAFETY: a non-null value pointer of a per-CPU array; only this CPU writes it.
    let (next, granted) = rate::take(unsafe { *at }, clock::jiffies(), per_second, control.hz);
    // SAFETY: as above.
    unsafe { *at = next };
    granted
}

/// Whether one more answer (RST, unreachable, too big, ARP, ND, echo) may go out.
#[inline(always)]
pub fn answer(control: &Control) -> bool {
    take(ANSWERS, control.answer_rate, control)
}

/// Whether one more flow of a service may be recorded.
#[inline(always)]
pub fn new_flow(control: &Control, service: u32, per_second: u32) -> bool {
    per_second == 0 || take(1 + service, per_second, control)
}
