//! To the target: checked, rewritten, sent.

use super::env::Env;
use super::{Outcome, clock, detour, stats};
use crate::maps::scratch::Scratch;
use crate::maps::{MACS, PORTS};
use crate::packet::frame::Frame;
use crate::packet::parse::View;
use crate::rewrite::nat::{self, Side};
use crate::verdict::{Action, count};
use lbx_common::addr::{Ip, Mac};
use lbx_common::flow::{TargetWord, idle};
use lbx_common::fragment::MacKey;
use lbx_common::port::{Port, flags as port_flags};
use lbx_common::reason::Reason;
use lbx_common::steer::slow::Slow;
use lbx_common::steer::{fate, vlan};
use lbx_common::target::{Deliver, Forward, Target, flags as target_flags};

/// Where a packet goes and on whose behalf.
#[derive(Clone, Copy)]
pub struct Load {
    /// The target.
    pub word: TargetWord,
    /// Its entry.
    pub target: &'static Target,
    /// Index of the service.
    pub service: u32,
    /// VLAN of the frame, as the rules know it.
    pub vlan: u16,
    /// The flow's first packet, or its first in this epoch: the moment to look after the client's MAC.
    pub fresh: bool,
}

/// The port at an index.
#[inline(always)]
pub fn port(index: u32) -> Option<&'static Port> {
    let at = PORTS.get_ptr(index)?;
    // SAFETY: a non-null value pointer of an array map; user space stores single aligned words of it.
    Some(unsafe { &*at })
}

/// Sends a packet to a target.
#[inline(always)]
pub fn emit<F: Frame>(frame: F, env: &Env, view: &View, load: Load) -> Outcome {
    let target = load.target;
    if fate::returns(target, env.port_index) {
        return Err(Reason::WouldLoop);
    }
    let outward = target.deliver == Deliver::Uplink as u8;
    let exit = if outward || env.port.flags & port_flags::VLAN_FILTERING != 0 {
        let exit = port(target.port_index as u32).ok_or(Reason::Internal)?;
        if !exit.is_member(load.vlan) {
            return Err(Reason::VlanNotMember);
        }
        Some(exit)
    } else {
        None
    };
    prepare(frame, env, view, &load, target.mtu, None)?;
    let packet = frame.packet();
    packet.write(0, target.mac).ok_or(Reason::Internal)?;
    if outward && let Some(exit) = exit {
        packet.write(6, exit.mac).ok_or(Reason::Internal)?;
    }
    // What XDP sees on the switch device has left the bridge already: only a redirect gets it to a port.
    let above_bridge = !F::SKB && env.port.flags & port_flags::SWITCH != 0;
    if target.deliver == Deliver::Bridge as u8 && !above_bridge {
        return Ok(Action::Pass);
    }
    if load.fresh && !outward && env.port.flags & port_flags::LEARNING != 0 {
        let source: Mac = packet.read(6).ok_or(Reason::Internal)?;
        if is_news(env, source, load.vlan) {
            return Err(Reason::Learned);
        }
    }
    retag(frame, view, target.vlan).ok_or(Reason::Internal)?;
    if !F::SKB && target.flags & target_flags::QUEUES != 0 {
        let spread = (view.src.0[3] ^ view.ports).wrapping_mul(0x9E37_79B1) >> 16;
        if let Some(action) = frame.hand_over(load.word.queue() as u32, target.queues as u32, spread) {
            return Ok(action);
        }
    }
    frame.redirect(target.port_index as u32, target.ifindex)
}

/// Sees to it that the packet fits (`mtu`: bytes of the largest IP packet, 0 no limit), counts it, and gives it the
/// target's address. `event` is counted of what really goes.
#[inline(always)]
pub fn prepare<F: Frame>(
    frame: F,
    env: &Env,
    view: &View,
    load: &Load,
    mtu: u16,
    event: Option<Reason>,
) -> Result<(), Reason> {
    let target = load.target;
    if mtu != 0 && largest_packet(frame, view) > mtu as u32 {
        if !env.observe {
            let mut note = Scratch::new(Slow::TooBig, env.port_index, load.vlan);
            note.service = load.service as u16;
            note.target = load.word;
            note.mtu = mtu as u32;
            note.reason = Reason::TooBig as u32;
            let _ = detour(frame, note);
        }
        return Err(Reason::TooBig);
    }
    let bytes = frame.length();
    let nat = target.forward == Forward::Nat as u8;
    let address = if view.v4 { Ip::v4(target.addr4) } else { target.addr6 };
    if nat && (view.v4 && target.addr4 == 0 || !view.v4 && address.is_unspecified()) {
        return Err(Reason::NatNoAddress);
    }
    stats::target(load.word.target(), |s| {
        s.packets += 1;
        s.bytes += bytes as u64;
    });
    if env.observe {
        stats::service(load.service, |s| s.observed += 1);
        return Err(Reason::Observed);
    }
    if let Some(event) = event {
        count(event);
    }
    if nat {
        let port = if target.port == 0 { view.dst_port() } else { target.port };
        nat::translate(frame, view, Side::Destination, &address, port).ok_or(Reason::Internal)?;
    }
    Ok(())
}

/// Sends a packet after a target that moved, in a program of its own, which finds out the rest; comes back, with a
/// reason, only if there is none.
#[inline(always)]
pub fn follow<F: Frame>(frame: F, env: &Env, word: TargetWord) -> Reason {
    let mut note = Scratch::new(Slow::Moved, env.port_index, 0);
    note.target = word;
    let _ = detour(frame, note);
    Reason::Internal
}

/// Bytes of the largest IP packet that will leave: of a superframe, one segment with its headers.
#[inline(always)]
fn largest_packet<F: Frame>(frame: F, view: &View) -> u32 {
    let segment = frame.segment_size();
    if F::SKB && segment != 0 { view.l4 - view.l3 + view.l4_header + segment } else { view.ip_len }
}

/// Makes the frame carry the tag the target's port wants.
#[inline(always)]
pub fn retag<F: Frame>(frame: F, view: &View, wanted: u16) -> Option<()> {
    let change = vlan::retag(view.tag, wanted);
    if change.pop {
        frame.pop_tag()?;
    }
    if change.push {
        frame.push_tag(wanted)?;
    }
    Some(())
}

/// Whether the bridge has to see this client's MAC (again): its entry ages, and a redirected frame does not
/// refresh it.
#[inline(always)]
fn is_news(env: &Env, mac: Mac, vlan: u16) -> bool {
    let key = MacKey { mac, vlan, ifindex: env.port.ifindex };
    let epoch = clock::epoch(env.control, clock::jiffies());
    // SAFETY: a copy of a word; an entry that is reused meanwhile costs one frame by the bridge, or one less.
    let seen = unsafe { MACS.get(key) }.copied();
    if let Some(seen) = seen
        && idle(epoch, seen) < env.control.learn_epochs
    {
        return false;
    }
    if MACS.insert(key, epoch, 0).is_err() {
        count(Reason::Internal);
    }
    true
}
