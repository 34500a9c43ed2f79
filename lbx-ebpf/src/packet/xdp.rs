//! Frames at XDP.

use super::cursor::Packet;
use super::frame::{Frame, Room};
use crate::maps::{CPUS, PORT_OF, TX, XDP_TAIL};
use crate::rewrite::nat::Change;
use crate::verdict::{self, Action};
use aya_ebpf::EbpfContext;
use aya_ebpf::Global;
use aya_ebpf::bindings::{xdp_action::XDP_REDIRECT, xdp_md};
use aya_ebpf::helpers::generated::{
    bpf_get_smp_processor_id, bpf_redirect_map, bpf_tail_call, bpf_xdp_adjust_head, bpf_xdp_adjust_tail,
    bpf_xdp_load_bytes, bpf_xdp_store_bytes,
};
use aya_ebpf::programs::XdpContext;
use bytemuck::{AnyBitPattern, NoUninit};
use core::mem::MaybeUninit;
use lbx_common::algo::checksum;
use lbx_common::reason::Reason;
use lbx_common::steer::queue;
use lbx_common::steer::slow::Slow;
use lbx_common::steer::vlan::Tag;

/// Index in `ports` of the port the program is attached to; `u32::MAX` looks it up by the ingress interface.
#[unsafe(no_mangle)]
static PORT_INDEX: Global<u32> = Global::new(u32::MAX);

/// CPUs that frames may be handed to, numbered from 0.
#[unsafe(no_mangle)]
static CPU_COUNT: Global<u32> = Global::new(0);

/// A frame at XDP.
#[derive(Clone, Copy)]
pub struct XdpFrame(*mut xdp_md);

impl XdpFrame {
    /// From the context of the program.
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> Self {
        Self(ctx.ctx)
    }

    #[inline(always)]
    fn context(self) -> XdpContext {
        XdpContext::new(self.0)
    }
}

impl Frame for XdpFrame {
    const SKB: bool = false;

    type Code = u32;

    #[inline(always)]
    fn verdict(outcome: Result<Action, Reason>, observe: bool) -> u32 {
        verdict::xdp(outcome, observe)
    }

    #[inline(always)]
    fn forward(self, port_index: u32, _ifindex: u32) -> Option<u32> {
        let map = core::ptr::from_ref(&TX).cast_mut().cast();
        // SAFETY: a device map; the helper only notes where the frame goes. 0 comes back where the slot is empty.
        let code = unsafe { bpf_redirect_map(map, port_index as u64, 0) };
        (code == XDP_REDIRECT as i64).then_some(XDP_REDIRECT)
    }

    #[inline(always)]
    fn packet(self) -> Packet {
        let ctx = self.context();
        Packet::new(ctx.data(), ctx.data_end())
    }

    #[inline(always)]
    fn length(self) -> u32 {
        // Not attached with fragments enabled: all bytes are linear.
        self.packet().reach() as u32
    }

    #[inline(always)]
    fn bytes(self) -> u64 {
        self.packet().reach() as u64
    }

    #[inline(always)]
    fn port_index(self) -> Option<u32> {
        let index = PORT_INDEX.load();
        if index != u32::MAX {
            return Some(index);
        }
        let ifindex = self.context().ingress_ifindex() as u32;
        // SAFETY: a copy of a word that user space replaces as a whole.
        unsafe { PORT_OF.get(ifindex) }.copied()
    }

    #[inline(always)]
    fn port_is_known(self) -> bool {
        PORT_INDEX.load() != u32::MAX
    }

    #[inline(always)]
    fn leaving(self) -> bool {
        false
    }

    #[inline(always)]
    fn tag_beside(self) -> Tag {
        Tag::NONE
    }

    #[inline(always)]
    fn segment_size(self) -> u32 {
        0
    }

    #[inline(always)]
    fn pull(self, bytes: u32) -> bool {
        self.length() >= bytes
    }

    #[inline(always)]
    fn load<T: AnyBitPattern>(self, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the context is the kernel's; `value` has room for the bytes asked for.
        let rc =
            unsafe { bpf_xdp_load_bytes(self.0, offset, value.as_mut_ptr().cast(), size_of::<T>() as u32) };
        // SAFETY: the helper filled all bytes if it returned 0, and any bit pattern is a T.
        (rc == 0).then(|| unsafe { value.assume_init() })
    }

    #[inline(always)]
    fn store<T: NoUninit>(self, offset: u32, value: &T) -> Option<()> {
        let from = core::ptr::from_ref(value).cast_mut().cast();
        // SAFETY: the context is the kernel's; the helper only reads the initialised bytes of `value`.
        let rc = unsafe { bpf_xdp_store_bytes(self.0, offset, from, size_of::<T>() as u32) };
        (rc == 0).then_some(())
    }

    #[inline(always)]
    fn set_length(self, bytes: u32) -> Option<()> {
        let delta = bytes as i32 - self.length() as i32;
        // SAFETY: the context is the kernel's, which checks the room.
        let rc = unsafe { bpf_xdp_adjust_tail(self.0, delta) };
        (rc == 0).then_some(())
    }

    #[inline(always)]
    fn prepend(self, bytes: u32) -> Option<()> {
        // SAFETY: the context is the kernel's, which checks the room.
        let rc = unsafe { bpf_xdp_adjust_head(self.0, -(bytes as i32)) };
        (rc == 0).then_some(())
    }

    #[inline(always)]
    fn open_room(self, room: Room) -> Option<()> {
        self.prepend(room.bytes)
    }

    #[inline(always)]
    fn close_room(self, room: Room) -> Option<()> {
        // SAFETY: the context is the kernel's, which checks that an Ethernet header is left.
        let rc = unsafe { bpf_xdp_adjust_head(self.0, room.bytes as i32) };
        (rc == 0).then_some(())
    }

    #[inline(always)]
    fn pop_tag(self) -> Option<()> {
        let packet = self.packet();
        let macs: [u32; 3] = packet.read(0)?;
        packet.write(4, macs)?;
        // SAFETY: the context is the kernel's, which checks the room.
        let rc = unsafe { bpf_xdp_adjust_head(self.0, 4) };
        (rc == 0).then_some(())
    }

    #[inline(always)]
    fn push_tag(self, vid: u16) -> Option<()> {
        // SAFETY: the context is the kernel's, which checks the room.
        if unsafe { bpf_xdp_adjust_head(self.0, -4) } != 0 {
            return None;
        }
        let packet = self.packet();
        let macs: [u32; 3] = packet.read(4)?;
        packet.write(0, macs)?;
        packet.write(12, [0x8100_u16.to_be(), vid.to_be()])
    }

    #[inline(always)]
    fn hand_over(self, queue: u32, queues: u32, spread: u32) -> Option<Action> {
        // SAFETY: the helper takes nothing.
        let here = unsafe { bpf_get_smp_processor_id() };
        let cpu = queue::cpu(queue, queues, CPU_COUNT.load(), here, spread)?;
        CPUS.redirect(cpu, 0).ok().map(|_| Action::Redirected)
    }

    #[inline(always)]
    fn redirect(self, port_index: u32, _ifindex: u32) -> Result<Action, Reason> {
        // 0 (XDP_ABORTED) comes back where the slot is empty.
        TX.redirect(port_index, 0).map(|_| Action::Redirected).map_err(|_| Reason::RedirectFailed)
    }

    #[inline(always)]
    fn translate(self, change: &Change) -> Option<()> {
        let packet = self.packet();
        if change.v4 {
            let at = change.l3 as usize + 10;
            let delta = checksum::delta32(change.old.v4_word(), change.new.v4_word());
            packet.write(at, checksum::apply(packet.read(at)?, delta))?;
            packet.write(change.address_at as usize, change.new.v4_word())?;
        } else {
            packet.write(change.address_at as usize, change.new.0)?;
        }
        if change.port_at == 0 {
            return Some(());
        }
        let delta = change.address_delta() + checksum::delta16(change.old_port, change.new_port);
        let at = change.checksum_at as usize;
        let old: u16 = packet.read(at)?;
        let new = if change.udp { checksum::apply_udp(old, delta) } else { checksum::apply(old, delta) };
        packet.write(at, new)?;
        packet.write(change.port_at as usize, change.new_port)
    }

    #[inline(always)]
    fn translate_plain(self, change: &Change) -> Option<()> {
        self.translate(change)
    }

    #[inline(always)]
    fn reflect(self, port_index: u32) -> Result<Action, Reason> {
        // Not XDP_TX: on a veth that delivers nothing unless its peer runs an XDP program too.
        self.redirect(port_index, 0)
    }

    #[inline(always)]
    fn continue_at(self, slow: Slow) {
        let map = core::ptr::from_ref(&XDP_TAIL).cast_mut().cast();
        // SAFETY: a program array and the context this program was given; a tail call leaves nothing behind
        // that would have to be dropped.
        unsafe { bpf_tail_call(self.context().as_ptr(), map, slow as u32) };
    }
}
