//! Puts the packet back and goes on in the program under test.

use crate::cursor::Packet;
use crate::maps::{JUMP, JUMP_TC, WRAP};
use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::xdp_action::XDP_ABORTED;
use aya_ebpf::helpers::generated::bpf_tail_call;
use aya_ebpf::programs::{TcContext, XdpContext};
use lbx_common::measure::{Wrap, client, flags};

/// The bytes `[FROM, FROM + N)` of the template, in stores of 4: no field the programs load lies across two of
/// them, which would hold the load up until both are out of the store buffer.
#[inline(always)]
fn put<const FROM: usize, const N: usize>(packet: Packet, wrap: &Wrap) -> Option<()>
where
    [u8; N]: bytemuck::Pod,
{
    let mut bytes = [0; N];
    bytes.copy_from_slice(&wrap.template[FROM..FROM + N]);
    packet.write(FROM, bytes)
}

/// What a program can have changed, and the flow.
#[inline(always)]
fn restore(packet: Packet) -> Option<()> {
    let at = WRAP.get_ptr_mut(0)?;
    // SAFETY: a non-null value pointer of an array map; a test run has the map to itself.
    let wrap = unsafe { &mut *at };
    put::<0, 14>(packet, wrap)?;
    if wrap.flags & flags::WHOLE != 0 {
        put::<14, 40>(packet, wrap)?;
        if wrap.flags & flags::V6 != 0 {
            put::<54, 20>(packet, wrap)?;
        }
    }
    if wrap.flags & (flags::RANDOM | flags::SEQUENTIAL) != 0 {
        let (address, port) = client(wrap.next());
        if wrap.flags & flags::V6 != 0 {
            packet.write(34, address)?;
            packet.write(54, ports(port, wrap, 56))?;
        } else {
            packet.write(26, address)?;
            packet.write(34, ports(port, wrap, 36))?;
        }
    }
    Some(())
}

/// Both ports in one store: the programs load both at once.
#[inline(always)]
fn ports(source: u16, wrap: &Wrap, destination_at: usize) -> u32 {
    let destination = u16::from_ne_bytes([wrap.template[destination_at], wrap.template[destination_at + 1]]);
    source as u32 | (destination as u32) << 16
}

/// At XDP.
#[inline(always)]
pub fn xdp(ctx: &XdpContext) -> u32 {
    if restore(Packet::new(ctx.data(), ctx.data_end())).is_some() {
        let map = core::ptr::from_ref(&JUMP).cast_mut().cast();
        // SAFETY: a program array and the context this program was given.
        unsafe { bpf_tail_call(ctx.as_ptr(), map, 0) };
    }
    XDP_ABORTED
}

/// At tc.
#[inline(always)]
pub fn tc(ctx: &TcContext) -> i32 {
    if restore(Packet::new(ctx.data(), ctx.data_end())).is_some() {
        let map = core::ptr::from_ref(&JUMP_TC).cast_mut().cast();
        // SAFETY: as above.
        unsafe { bpf_tail_call(ctx.as_ptr(), map, 0) };
    }
    2
}
