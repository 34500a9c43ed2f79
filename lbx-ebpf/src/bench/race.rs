//! Two CPUs over the same few buckets of the flow table: each opens and closes flows of its own list.

use crate::cursor::Packet;
use crate::maps::{JUMP, RACE, RACERS};
use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::xdp_action::XDP_ABORTED;
use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_tail_call};
use aya_ebpf::programs::XdpContext;
use lbx_common::measure::{RACE_FLOWS, RACE_STATE};

/// TCP flags: the connection begins, or the client ends it.
const SYN: u8 = 0x02;
const FIN_ACK: u8 = 0x11;

/// Makes the packet one of this CPU's flows, at random its first or its last.
#[inline(always)]
fn choose(packet: Packet) -> Option<()> {
    // SAFETY: the helper takes nothing.
    let cpu = unsafe { bpf_get_smp_processor_id() } % RACERS;
    let first = cpu * (RACE_FLOWS + 1);
    let state = RACE.get_ptr_mut(first + RACE_STATE)?;
    // SAFETY: a non-null value pointer of an array map; only this CPU has this element.
    let mut x = unsafe { *state };
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    // SAFETY: as above.
    unsafe { *state = x };
    let flow = RACE.get_ptr(first + (x >> 32) as u32 % RACE_FLOWS)?;
    // SAFETY: a non-null value pointer of an array map, which user space has filled.
    let flow = unsafe { *flow };
    packet.write(0, [2_u8, 0, 0, 0, 0, 1])?;
    packet.write(26, flow as u32)?;
    packet.write(34, (flow >> 32) as u16)?;
    packet.write(47, if x & 1 == 0 { SYN } else { FIN_ACK })
}

/// At XDP.
#[inline(always)]
pub fn xdp(ctx: &XdpContext) -> u32 {
    if choose(Packet::new(ctx.data(), ctx.data_end())).is_some() {
        let map = core::ptr::from_ref(&JUMP).cast_mut().cast();
        // SAFETY: a program array and the context this program was given.
        unsafe { bpf_tail_call(ctx.as_ptr(), map, 0) };
    }
    XDP_ABORTED
}
