//! A frame to a VM on another host's network: into the tunnel there.

use super::enter::SlowPath;
use crate::maps::ELSEWHERE;
use crate::maps::scratch::Scratch;
use crate::packet::frame::{Frame, Room};
use crate::packet::parse::ethertype;
use crate::steps::env::Env;
use crate::steps::{Outcome, emit};
use crate::verdict::count;
use lbx_common::addr::Mac;
use lbx_common::elsewhere::Elsewhere;
use lbx_common::reason::Reason;
use lbx_common::tunnel::{self, ETHER, OUTER_V4, OUTER_V6, Outer};

/// A frame without a tag, addressed to the VM.
pub struct Encap;

impl SlowPath for Encap {
    #[inline(always)]
    fn run<F: Frame>(frame: F, _env: &Env, note: &Scratch) -> Outcome {
        let at = ELSEWHERE.get_ptr(note.mtu >> 16).ok_or(Reason::Internal)?;
        // SAFETY: a non-null value pointer of an array map; user space does not write to an entry that is named.
        let place: &'static Elsewhere = unsafe { &*at };
        let exit = emit::port(place.port_index as u32).ok_or(Reason::Internal)?;
        let packet = frame.packet();
        let macs: [u32; 3] = packet.read(0).ok_or(Reason::Internal)?;
        let kind: u16 = packet.read(12).ok_or(Reason::Internal)?;
        let class = tunnel::class_of(kind == ethertype::IPV4, packet.read(14).ok_or(Reason::Internal)?);
        let inside = ETHER as u32 + if place.vlan == 0 { 0 } else { 4 };
        let outer = Outer {
            src: place.src,
            dst: place.dst,
            class,
            len: frame.length() - ETHER as u32 + inside,
            spread: note.mtu as u16,
            port: place.udp_port,
            vni: place.vni,
        };
        let inner = if place.dst.is_v4() {
            let room = Room { bytes: OUTER_V4 as u32 + inside, ether: inside, v4: true };
            frame.open_room(room).ok_or(Reason::TunnelRoom)?;
            frame.store(ETHER as u32, &outer.v4()).ok_or(Reason::Internal)?;
            ether(frame, &place.hop, &exit.mac, ethertype::IPV4).ok_or(Reason::Internal)?;
            (ETHER + OUTER_V4) as u32
        } else {
            let room = Room { bytes: OUTER_V6 as u32 + inside, ether: inside, v4: false };
            frame.open_room(room).ok_or(Reason::TunnelRoom)?;
            frame.store(ETHER as u32, &outer.v6()).ok_or(Reason::Internal)?;
            ether(frame, &place.hop, &exit.mac, ethertype::IPV6).ok_or(Reason::Internal)?;
            (ETHER + OUTER_V6) as u32
        };
        frame.store(inner, &macs).ok_or(Reason::Internal)?;
        if place.vlan == 0 {
            frame.store(inner + 12, &kind).ok_or(Reason::Internal)?;
        } else {
            frame.store(inner + 12, &[ethertype::VLAN, place.vlan.to_be(), kind]).ok_or(Reason::Internal)?;
        }
        count(Reason::TunnelSent);
        frame.redirect(place.port_index as u32, place.ifindex)
    }
}

/// Writes the Ethernet header of the frame that leaves.
#[inline(always)]
fn ether<F: Frame>(frame: F, dst: &Mac, src: &Mac, kind: u16) -> Option<()> {
    let packet = frame.packet();
    packet.write(0, *dst)?;
    packet.write(6, *src)?;
    packet.write(12, kind)
}
