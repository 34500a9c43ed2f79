//! Frames at tc.

use super::cursor::Packet;
use super::frame::{Frame, Room};
use crate::maps::{PORT_NEAR, PORT_OF, TC_TAIL};
use crate::rewrite::nat::Change;
use crate::verdict::{self, Action};
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{
    bpf_csum_update, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_redirect, bpf_skb_adjust_room,
    bpf_skb_change_head, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_store_bytes,
    bpf_skb_vlan_pop, bpf_skb_vlan_push, bpf_tail_call,
};
use aya_ebpf::programs::TcContext;
use bytemuck::{AnyBitPattern, NoUninit};
use core::mem::MaybeUninit;
use core::ptr::read_volatile;
use lbx_common::algo::checksum;
use lbx_common::port::NearPort;
use lbx_common::reason::Reason;
use lbx_common::steer::slow::Slow;
use lbx_common::steer::vlan::Tag;

/// `BPF_F_RECOMPUTE_CSUM`: a checksum the device computed over the frame follows the change.
const RECOMPUTE: u64 = 1;

/// `BPF_F_INGRESS`: the frame arrives on the device instead of leaving by it.
const INGRESS: u64 = 1;

/// What `bpf_redirect` returns when the redirect stands.
const TC_ACT_REDIRECT: i64 = 7;

/// Modes and flags of `bpf_skb_adjust_room`: behind the Ethernet header; superframes keep the size of their segments;
/// what is put on or taken off, so that the kernel knows the headers inside and can complete checksums and cut segments.
mod room {
    pub const BEHIND_ETHER: u32 = 1;
    pub const FIXED_GSO: u64 = 1;
    pub const ENCAP_L3_V4: u64 = 1 << 1;
    pub const ENCAP_L3_V6: u64 = 1 << 2;
    pub const ENCAP_L4_UDP: u64 = 1 << 4;
    pub const ENCAP_L2_ETHER: u64 = 1 << 6;
    pub const DECAP_L3_V4: u64 = 1 << 7;
    pub const DECAP_L3_V6: u64 = 1 << 8;
    /// Where the length of the Ethernet header inside stands.
    pub const L2_SHIFT: u32 = 56;
}

/// A frame at tc.
#[derive(Clone, Copy)]
pub struct TcFrame(*mut __sk_buff);

impl TcFrame {
    /// From the context of the program.
    #[inline(always)]
    pub fn new(ctx: &TcContext) -> Self {
        Self(ctx.skb.skb)
    }
}

/// `BPF_F_PSEUDO_HDR`: the field is part of the pseudo header.
const PSEUDO_HDR: u64 = 0x10;
/// `BPF_F_MARK_MANGLED_0`: a checksum of 0 is none, and a computed 0 is written as `0xffff`.
const MARK_MANGLED_0: u64 = 0x20;

/// A sum of 32-bit words as the kernel keeps it.
#[inline(always)]
const fn fold_to_word(sum: u64) -> u32 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    ((sum & 0xffff_ffff) + (sum >> 32)) as u32
}

impl TcFrame {
    /// Makes the transport checksum right for the change.
    #[inline(always)]
    fn correct(self, change: &Change) -> Option<()> {
        // The helpers know whether the transport checksum is complete in the packet, only begun (to be
        // completed by a device) or verified by one beside the packet, and keep all three right.
        let udp = if change.udp { MARK_MANGLED_0 } else { 0 };
        let address_delta = fold_to_word(change.address_delta());
        if !change.v4 {
            // The address is part of the sum over the whole packet that a device may have given. The checksum
            // that covers it cancels it out there, but the helper below takes out the change of the checksum
            // alone, as is right for IPv4, whose header checksum cancels the address; and a later fragment or
            // an ICMPv6 message has none that the helper knows of. Refused, and not needed, where the device
            // gave no such sum.
            // SAFETY: the context is the kernel's.
            unsafe { bpf_csum_update(self.0, address_delta) };
        }
        if change.checksum_at != 0 {
            let flags = PSEUDO_HDR | udp;
            // SAFETY: the context is the kernel's, which checks the offset.
            let rc =
                unsafe { bpf_l4_csum_replace(self.0, change.checksum_at, 0, address_delta as u64, flags) };
            if rc != 0 {
                return None;
            }
            // SAFETY: as above.
            let rc = unsafe {
                bpf_l4_csum_replace(
                    self.0,
                    change.checksum_at,
                    change.old_port as u64,
                    change.new_port as u64,
                    2 | udp,
                )
            };
            if rc != 0 {
                return None;
            }
        }
        Some(())
    }

    /// Writes a value whose change the checksums in the packet already follow.
    #[inline(always)]
    fn store_raw<T: NoUninit>(self, offset: u32, value: &T) -> Option<()> {
        let from = core::ptr::from_ref(value).cast();
        // SAFETY: the context is the kernel's; the helper only reads the initialised bytes of `value`.
        let rc = unsafe { bpf_skb_store_bytes(self.0, offset, from, size_of::<T>() as u32, 0) };
        (rc == 0).then_some(())
    }
}

impl Frame for TcFrame {
    const SKB: bool = true;

    type Code = i32;

    #[inline(always)]
    fn verdict(outcome: Result<Action, Reason>, observe: bool) -> i32 {
        verdict::tc(outcome, observe)
    }

    #[inline(always)]
    fn forward(self, _port_index: u32, ifindex: u32) -> Option<i32> {
        // SAFETY: only notes where the frame goes.
        let code = unsafe { bpf_redirect(ifindex, 0) };
        (code == TC_ACT_REDIRECT).then_some(TC_ACT_REDIRECT as i32)
    }

    #[inline(always)]
    fn packet(self) -> Packet {
        // SAFETY: the context is the kernel's; the verifier turns these loads into those of the pointers.
        unsafe { Packet::new((*self.0).data as usize, (*self.0).data_end as usize) }
    }

    #[inline(always)]
    fn length(self) -> u32 {
        // SAFETY: the context is the kernel's.
        unsafe { (*self.0).len }
    }

    #[inline(always)]
    fn bytes(self) -> u64 {
        self.length() as u64
    }

    #[inline(always)]
    fn port_index(self) -> Option<u32> {
        // SAFETY: the context is the kernel's.
        let ifindex = unsafe { (*self.0).ifindex };
        // SAFETY: a non-null value pointer of an array map; an aligned word, read once.
        let near = PORT_NEAR.get_ptr(NearPort::place(ifindex)).map(|at| unsafe { read_volatile(at) });
        if let Some(near) = near
            && let Some(index) = near.port_of(ifindex)
        {
            return Some(index);
        }
        // SAFETY: a copy of a word that user space replaces as a whole.
        unsafe { PORT_OF.get(ifindex).copied() }
    }

    #[inline(always)]
    fn port_is_known(self) -> bool {
        false
    }

    #[inline(always)]
    fn leaving(self) -> bool {
        // At ingress the two are the same (`__netif_receive_skb_core`). At egress the second is where the frame
        // came from, 0 for the host itself; no bridge sends a frame back by the port it came from.
        // SAFETY: the context is the kernel's.
        unsafe { (*self.0).ifindex != (*self.0).ingress_ifindex }
    }

    #[inline(always)]
    fn tag_beside(self) -> Tag {
        // SAFETY: the context is the kernel's.
        unsafe { if (*self.0).vlan_present != 0 { Tag::new((*self.0).vlan_tci as u16) } else { Tag::NONE } }
    }

    #[inline(always)]
    fn segment_size(self) -> u32 {
        // SAFETY: the context is the kernel's.
        unsafe { (*self.0).gso_size }
    }

    #[inline(always)]
    fn pull(self, bytes: u32) -> bool {
        // SAFETY: the context is the kernel's, which checks the length.
        unsafe { bpf_skb_pull_data(self.0, bytes) == 0 }
    }

    #[inline(always)]
    fn load<T: AnyBitPattern>(self, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the context is the kernel's; `value` has room for the bytes asked for.
        let rc = unsafe {
            bpf_skb_load_bytes(self.0.cast(), offset, value.as_mut_ptr().cast(), size_of::<T>() as u32)
        };
        // SAFETY: the helper filled all bytes if it returned 0, and any bit pattern is a T.
        (rc == 0).then(|| unsafe { value.assume_init() })
    }

    #[inline(always)]
    fn store<T: NoUninit>(self, offset: u32, value: &T) -> Option<()> {
        let from = core::ptr::from_ref(value).cast();
        // SAFETY: the context is the kernel's; the helper only reads the initialised bytes of `value`.
        let rc = unsafe { bpf_skb_store_bytes(self.0, offset, from, size_of::<T>() as u32, RECOMPUTE) };
        (rc == 0).then_some(())
    }

    #[inline(always)]
    fn set_length(self, bytes: u32) -> Option<()> {
        // SAFETY: the context is the kernel's, which checks the room.
        let rc = unsafe { bpf_skb_change_tail(self.0, bytes, 0) };
        (rc == 0).then_some(())
    }

    #[inline(always)]
    fn prepend(self, bytes: u32) -> Option<()> {
        // SAFETY: the context is the kernel's, which finds the room.
        let rc = unsafe { bpf_skb_change_head(self.0, bytes, 0) };
        (rc == 0).then_some(())
    }

    #[inline(always)]
    fn open_room(self, room: Room) -> Option<()> {
        let l3 = if room.v4 { room::ENCAP_L3_V4 } else { room::ENCAP_L3_V6 };
        let flags = room::FIXED_GSO
            | room::ENCAP_L4_UDP
            | room::ENCAP_L2_ETHER
            | l3
            | (room.ether as u64) << room::L2_SHIFT;
        // SAFETY: the context is the kernel's, which finds the room.
        let rc = unsafe { bpf_skb_adjust_room(self.0, room.bytes as i32, room::BEHIND_ETHER, flags) };
        (rc == 0).then_some(())
    }

    #[inline(always)]
    fn close_room(self, room: Room) -> Option<()> {
        let flags = room::FIXED_GSO | if room.v4 { room::DECAP_L3_V4 } else { room::DECAP_L3_V6 };
        // SAFETY: the context is the kernel's, which checks that an IP header is left.
        let rc = unsafe { bpf_skb_adjust_room(self.0, -(room.bytes as i32), room::BEHIND_ETHER, flags) };
        (rc == 0).then_some(())
    }

    #[inline(always)]
    fn pop_tag(self) -> Option<()> {
        // SAFETY: the context is the kernel's.
        let rc = unsafe { bpf_skb_vlan_pop(self.0) };
        (rc == 0).then_some(())
    }

    #[inline(always)]
    fn push_tag(self, vid: u16) -> Option<()> {
        // SAFETY: the context is the kernel's.
        let rc = unsafe { bpf_skb_vlan_push(self.0, 0x8100_u16.to_be(), vid) };
        (rc == 0).then_some(())
    }

    #[inline(always)]
    fn hand_over(self, _queue: u32, _queues: u32, _spread: u32) -> Option<Action> {
        // The tap itself chooses the queue of an skb.
        None
    }

    #[inline(always)]
    fn redirect(self, _port_index: u32, ifindex: u32) -> Result<Action, Reason> {
        // SAFETY: only notes where the frame goes.
        if unsafe { bpf_redirect(ifindex, 0) } == TC_ACT_REDIRECT {
            Ok(Action::Redirected)
        } else {
            Err(Reason::RedirectFailed)
        }
    }

    #[inline(always)]
    fn reflect(self, _port_index: u32) -> Result<Action, Reason> {
        // SAFETY: the context is the kernel's.
        let ifindex = unsafe { (*self.0).ifindex };
        // What goes back to the host arrives on the device it was sent by.
        let flags = if self.leaving() { INGRESS } else { 0 };
        // SAFETY: only notes where the frame goes.
        if unsafe { bpf_redirect(ifindex, flags) } == TC_ACT_REDIRECT {
            Ok(Action::Redirected)
        } else {
            Err(Reason::RedirectFailed)
        }
    }

    #[inline(always)]
    fn translate(self, change: &Change) -> Option<()> {
        self.correct(change)?;
        // Through helpers, which take any offset and need no pointer into the packet.
        if change.v4 {
            let (old, new) = (change.old.v4_word(), change.new.v4_word());
            // SAFETY: the context is the kernel's, which checks the offset.
            if unsafe { bpf_l3_csum_replace(self.0, change.l3 + 10, old as u64, new as u64, 4) } != 0 {
                return None;
            }
            self.store_raw(change.address_at, &new)?;
        } else {
            // A copy, so that the helper's pointer does not keep the whole change on the stack.
            let new = change.new.0;
            self.store_raw(change.address_at, &new)?;
        }
        if change.port_at != 0 {
            let new = change.new_port;
            self.store_raw(change.port_at, &new)?;
        }
        Some(())
    }

    #[inline(always)]
    fn translate_plain(self, change: &Change) -> Option<()> {
        self.correct(change)?;
        // The rest is written straight into the packet: the IPv4 header's own checksum covers its change, so that a
        // sum over the packet stays; for IPv6 it was corrected above, and the port is in the transport checksum.
        let packet = self.packet();
        if change.v4 {
            let at = change.l3 as usize + 10;
            let delta = checksum::delta32(change.old.v4_word(), change.new.v4_word());
            packet.write(at, checksum::apply(packet.read(at)?, delta))?;
            packet.write(change.address_at as usize, change.new.v4_word())?;
        } else {
            packet.write(change.address_at as usize, change.new.0)?;
        }
        if change.port_at != 0 {
            packet.write(change.port_at as usize, change.new_port)?;
        }
        Some(())
    }

    #[inline(always)]
    fn continue_at(self, slow: Slow) {
        let map = core::ptr::from_ref(&TC_TAIL).cast_mut().cast();
        // SAFETY: a program array and the context this program was given; a tail call leaves nothing behind
        // that would have to be dropped.
        unsafe { bpf_tail_call(self.0.cast(), map, slow as u32) };
    }
}
