//! Puts the packet back and goes on in the program under test.

use crate::cursor::Packet;
use crate::maps::{JUMP, JUMP_TC, WRAP};
use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_PASS};
use aya_ebpf::helpers::generated::{bpf_tail_call, bpf_xdp_adjust_head};
use aya_ebpf::programs::{TcContext, XdpContext};
use lbx_common::measure::{Wrap, client, flags};

/// The words `from..to` behind the Ethernet header, each in a store of its own: no field the programs load lies
/// across two of them, which would hold the load up until both are out of the store buffer.
#[inline(always)]
fn put(packet: Packet, wrap: &Wrap, from: usize, to: usize) -> Option<()> {
    let mut n = from;
    while n < to {
        packet.write(14 + 4 * n, wrap.words[n])?;
        n += 1;
    }
    Some(())
}

/// What is to be done to the packet.
#[inline(always)]
fn wrap() -> Option<&'static mut Wrap> {
    let at = WRAP.get_ptr_mut(0)?;
    // SAFETY: a non-null value pointer of an array map; a test run has the map to itself.
    Some(unsafe { &mut *at })
}

/// What a program can have changed, and the flow.
#[inline(always)]
fn restore(packet: Packet, wrap: &mut Wrap) -> Option<()> {
    packet.write(0, wrap.ethernet[0])?;
    packet.write(4, wrap.ethernet[1] as u16)?;
    packet.write(6, (wrap.ethernet[1] >> 16) as u16)?;
    packet.write(8, wrap.ethernet[2])?;
    packet.write(12, wrap.ethernet[3] as u16)?;
    let v6 = wrap.flags & flags::V6 != 0;
    if wrap.flags & flags::WHOLE != 0 {
        put(packet, wrap, 0, 10)?;
        if v6 {
            put(packet, wrap, 10, 15)?;
        }
    }
    if wrap.flags & (flags::RANDOM | flags::SEQUENTIAL) != 0 {
        let (address, port) = client(wrap.next());
        // Both ports in one store: the programs load both at once.
        if v6 {
            packet.write(34, address)?;
            packet.write(54, port as u32 | wrap.words[10] & 0xffff_0000)?;
        } else {
            packet.write(26, address)?;
            packet.write(34, port as u32 | wrap.words[5] & 0xffff_0000)?;
        }
    }
    Some(())
}

/// Bytes of the frame. In one step: the compiler would put part of what comes of it before the subtraction, and with
/// pointers to packets the verifier allows nothing but that.
#[inline(always)]
fn length(ctx: &XdpContext) -> u32 {
    let (start, mut end) = (ctx.data(), ctx.data_end());
    #[cfg(target_arch = "bpf")]
    // SAFETY: a subtraction of two registers.
    unsafe {
        core::arch::asm!("{end} -= {start}", end = inout(reg) end, start = in(reg) start,
            options(pure, nomem, nostack));
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        end -= start;
    }
    end as u32
}

/// At XDP.
#[inline(always)]
pub fn xdp(ctx: &XdpContext) -> u32 {
    let Some(wrap) = wrap() else { return XDP_ABORTED };
    let grown = length(ctx) - wrap.len;
    if grown != 0 {
        // SAFETY: the helper is given the context of this program.
        let _ = unsafe { bpf_xdp_adjust_head(ctx.ctx, grown as i32) };
    }
    if restore(Packet::new(ctx.data(), ctx.data_end()), wrap).is_some() {
        let map = core::ptr::from_ref(&JUMP).cast_mut().cast();
        // SAFETY: a program array and the context this program was given.
        unsafe { bpf_tail_call(ctx.as_ptr(), map, 0) };
    }
    XDP_ABORTED
}

/// At tc.
#[inline(always)]
pub fn tc(ctx: &TcContext) -> i32 {
    let Some(wrap) = wrap() else { return 2 };
    if restore(Packet::new(ctx.data(), ctx.data_end()), wrap).is_some() {
        let map = core::ptr::from_ref(&JUMP_TC).cast_mut().cast();
        // SAFETY: as above.
        unsafe { bpf_tail_call(ctx.as_ptr(), map, 0) };
    }
    2
}

/// Puts room for a header in front, as a balancer does that encapsulates.
#[inline(always)]
pub fn grow(ctx: &XdpContext, bytes: i32) -> u32 {
    // SAFETY: the helper is given the context of this program.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -bytes) } == 0 { XDP_PASS } else { XDP_ABORTED }
}
