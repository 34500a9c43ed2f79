//! A few of the packets that something happened to are shown to user space. Only rare paths come here.

use super::clock;
use super::env::Env;
use crate::maps::{EVENT, EVENT_RATES, EVENTS};
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_ringbuf_output};
use lbx_common::addr::Ip;
use lbx_common::event::{Event, RATE, UNKNOWN};
use lbx_common::reason::Reason;
use lbx_common::steer::rate;

/// `BPF_RB_NO_WAKEUP`: user space looks once a second, nothing has to be interrupted for it.
const NO_WAKEUP: u64 = 1;

/// No service or target is known.
pub const NONE: u32 = UNKNOWN as u32;

/// Notes what packet is in hand, for [`sample`]: there is no room for it on the stack until then. `ports` as they lie
/// in the packet; `scope` as in its key.
#[inline(always)]
pub fn note(src: &Ip, dst: &Ip, ports: u32, scope: u32) {
    let Some(at) = EVENT.get_ptr_mut(0) else { return };
    // SAFETY: a non-null value pointer of a per-CPU array; only this CPU writes it. Word by word, so that nothing is
    // put together elsewhere first.
    unsafe {
        let key = &raw mut (*at).key;
        let mut n = 0;
        while n < 4 {
            (&raw mut (*key).src.0[n]).write_volatile(src.0[n]);
            (&raw mut (*key).dst.0[n]).write_volatile(dst.0[n]);
            n += 1;
        }
        (&raw mut (*key).ports).write_volatile(ports);
        (&raw mut (*key).scope).write_volatile(scope);
    }
}

/// Shows the packet that was noted, unless there were enough of its reason just now. `service` and `target` are
/// indices or [`NONE`].
#[inline(always)]
pub fn sample(env: &Env, reason: Reason, service: u32, target: u32, tcp_flags: u8) {
    let about = (service & 0xffff) as u64
        | ((target & 0xffff) as u64) << 16
        | ((env.port_index & 0xffff) as u64) << 32
        | (reason as u64) << 48
        | (tcp_flags as u64) << 56;
    lbx_event(about);
}

/// Sends the event that was noted, if its reason may. A function of its own, verified once, and out of the way of
/// those that do not call it. `about`: the fields from `service` on.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lbx_event(about: u64) -> u32 {
    let reason = (about >> 48) as u8;
    let (Some(control), Some(bucket)) = (Env::control(), EVENT_RATES.get_ptr_mut(reason as u32)) else {
        return 0;
    };
    // SAFETY: a non-null value pointer of a per-CPU array; only this CPU writes it.
    let (next, granted) = rate::take(unsafe { *bucket }, clock::jiffies(), RATE, control.hz);
    // SAFETY: as above.
    unsafe { *bucket = next };
    let (true, Some(event)) = (granted, EVENT.get_ptr_mut(0)) else { return 0 };
    // SAFETY: as above; the map is a ring buffer, and the helper reads the bytes of the event.
    unsafe {
        (*event).time = bpf_ktime_get_ns();
        (*event).service = about as u16;
        (*event).target = (about >> 16) as u16;
        (*event).port = (about >> 32) as u16;
        (*event).reason = reason;
        (*event).tcp_flags = (about >> 56) as u8;
        let ring = core::ptr::from_ref(&EVENTS).cast_mut().cast();
        bpf_ringbuf_output(ring, event.cast(), size_of::<Event>() as u64, NO_WAKEUP);
    }
    1
}
