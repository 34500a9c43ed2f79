//! A packet of a flow whose target moved: after it, to the VM's new host or its new vNIC.

use super::enter::SlowPath;
use crate::maps::ELSEWHERE;
use crate::maps::scratch::Scratch;
use crate::packet::frame::Frame;
use crate::packet::parse::{self, View};
use crate::slow::fragment;
use crate::slow::locate::{Located, locate};
use crate::steps::emit::{self, Load, retag};
use crate::steps::env::Env;
use crate::steps::open::target;
use crate::steps::serve::flow_key;
use crate::steps::{Outcome, clock, detour, flow, stats};
use lbx_common::addr::Mac;
use lbx_common::algo::tcp::Direction;
use lbx_common::elsewhere::Elsewhere;
use lbx_common::flow::{ColdFlow, TargetWord};
use lbx_common::reason::{Kind, Reason};
use lbx_common::steer::slow::Slow;
use lbx_common::steer::{fate, vlan};
use lbx_common::target::Target;
use lbx_common::tunnel;

/// A packet of a flow whose target moved.
pub struct Moved;

impl SlowPath for Moved {
    #[inline(always)]
    fn run<F: Frame>(frame: F, env: &Env, note: &Scratch) -> Outcome {
        let target = target(note.target.target()).ok_or(Reason::Internal)?;
        let outcome = after(frame, env, note.target, target);
        if let Err(reason) = outcome
            && matches!(reason.kind(), Kind::Drop)
        {
            stats::service(target.service as u32, |s| s.drops += 1);
        }
        outcome
    }
}

/// Finds out anew what the caller knew, and sends the packet on.
#[inline(always)]
fn after<F: Frame>(frame: F, env: &Env, word: TargetWord, target: &'static Target) -> Outcome {
    // SAFETY: an aligned half word of the target; read once, so that all is about one entry.
    let elsewhere = unsafe { core::ptr::read_volatile(&raw const target.elsewhere) };
    if !fate::is_same(target, word) || elsewhere == 0 {
        return Err(Reason::StaleTarget);
    }
    let at = ELSEWHERE.get_ptr(elsewhere as u32).ok_or(Reason::Internal)?;
    // SAFETY: a non-null value pointer of an array map; user space does not write to an entry that is named.
    let place: &'static Elsewhere = unsafe { &*at };
    let ether = parse::ether(frame, frame.packet()).ok_or(Reason::Internal)?;
    let located = locate(frame, &ether)?;
    let vlan = vlan::of_frame(env.port, ether.tag);
    if located.fragment.is_some() && !located.is_later() {
        // Its others come this way too.
        fragment::remember(vlan, env.port.switch, word, target.service as u32, fragment::KEEP);
    }
    let view = view(frame, located)?;
    if view.has_l4 {
        touch(env, word, target, &view, vlan);
    }
    follow(frame, env, word, target, &view, vlan, place)?;
    if place.is_tunnel() {
        return Err(into_tunnel(frame, env, &view, elsewhere, place));
    }
    retag(frame, &view, place.vlan).ok_or(Reason::Internal)?;
    frame.redirect(place.port_index as u32, place.ifindex)
}

/// Goes on in the program that wraps the frame up; comes back, with a reason, only if there is none.
#[inline(always)]
fn into_tunnel<F: Frame>(frame: F, env: &Env, view: &View, elsewhere: u16, place: &Elsewhere) -> Reason {
    // Inside, the frame has its tag at most among its own bytes; it is put there with the headers.
    if view.tag.is_some() && frame.pop_tag().is_none() {
        return Reason::Internal;
    }
    let mut note = Scratch::new(Slow::Encap, env.port_index, place.vlan);
    note.mtu = (elsewhere as u32) << 16 | tunnel::spread(&view.src, &view.dst, view.ports) as u32;
    let _ = detour(frame, note);
    Reason::Internal
}

/// The flow goes on: its record ages from here, and sees it end. Here and not where it was found: there is little
/// stack left there.
#[inline(always)]
fn touch(env: &Env, word: TargetWord, target: &Target, view: &View, vlan: u16) {
    let key = flow_key(env, view, vlan);
    if let Some(hit) = flow::find(env.control, key.hash(&env.control.secret))
        && hit.word == word
    {
        let now = clock::jiffies();
        let epoch = clock::epoch(env.control, now);
        hit.touch(epoch, view.protocol, view.tcp_flags, Direction::ToServer, || ColdFlow {
            key,
            service: target.service,
            port: env.port_index as u16,
            born: now as u32,
        });
    }
}

/// What may change of the packet: of a later fragment and an ICMP error the addresses, of any other the ports too.
#[inline(always)]
fn view<F: Frame>(frame: F, located: &Located) -> Result<View, Reason> {
    if located.is_later() || located.is_icmp() {
        return Ok(located.view_addresses());
    }
    Ok(located.view(&located.transport(frame)?))
}

/// Checked and rewritten, as to any target ([`emit::emit`]), except that a frame may leave by the uplink it came in by.
/// The hop limit stays, nothing is routed: a tunnel takes the place of a segment.
#[inline(always)]
fn follow<F: Frame>(
    frame: F,
    env: &Env,
    word: TargetWord,
    target: &'static Target,
    view: &View,
    vlan: u16,
    place: &'static Elsewhere,
) -> Result<(), Reason> {
    let exit = emit::port(place.port_index as u32).ok_or(Reason::Internal)?;
    let source: Mac = frame.packet().read(6).ok_or(Reason::Internal)?;
    if place.loops(env.port_index, &source, &exit.mac) {
        return Err(Reason::WouldLoop);
    }
    // Through a tunnel it is on the other host's segment that the VLAN counts.
    if !place.is_tunnel() && !exit.is_member(vlan) {
        return Err(Reason::VlanNotMember);
    }
    let load = Load { word, target, service: target.service as u32, vlan, fresh: false };
    emit::prepare(frame, env, view, &load, place.mtu, Some(Reason::MovedFollowed))?;
    let packet = frame.packet();
    packet.write(0, place.mac).ok_or(Reason::Internal)?;
    if place.is_outward() && !place.is_tunnel() {
        packet.write(6, exit.mac).ok_or(Reason::Internal)?;
    }
    Ok(())
}
