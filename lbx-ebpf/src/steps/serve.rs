//! A packet of a service: its flow, the target of the flow, and on to it.

use super::emit::{self, Load};
use super::env::Env;
use super::event::{self, NONE};
use super::flow::{self, Hit};
use super::open::{self, Opened, target};
use super::service::{self, Query};
use super::{Outcome, clock, detour, stats, times};
use crate::maps::scratch::Scratch;
use crate::packet::frame::Frame;
use crate::packet::parse::{View, protocol};
use crate::verdict::count;
use lbx_common::algo::tcp::{Direction, packet as tcp};
use lbx_common::flow::{ColdFlow, TargetWord};
use lbx_common::key::{FlowKey, scope};
use lbx_common::reason::Reason;
use lbx_common::service::{AddressEntry, Service, flags};
use lbx_common::steer::fate::{self, Fate};
use lbx_common::steer::slow::Slow;
use lbx_common::target::Target;

/// Finds the service and steers the packet, and times it if its flow is timed. `vlan`: the frame's, as the rules know
/// it. `opened`: what became of the packet's flow, if it was opened already.
#[inline(always)]
pub fn serve<F: Frame>(
    frame: F,
    env: &Env,
    entry: &AddressEntry,
    view: &View,
    vlan: u16,
    opened: Opened,
) -> Outcome {
    serve_with(frame, env, entry, view, vlan, opened, |word, _, hash| times::inbound(env, view, hash, word))
}

/// The same without the time, for what is rare; `bound` learns target, service and hash before the packet goes there.
#[inline(always)]
pub fn serve_with<F: Frame>(
    frame: F,
    env: &Env,
    entry: &AddressEntry,
    view: &View,
    vlan: u16,
    opened: Opened,
    bound: impl FnOnce(TargetWord, u32, u64),
) -> Outcome {
    let port = u16::from_be(view.dst_port());
    let query = Query::new(view.protocol, false, vlan, env.port.switch, port);
    let index = service::rule(entry, query).ok_or(Reason::NotAService)?;
    let service = service::service(index).ok_or(Reason::Internal)?;
    if service.flags & flags::ACTIVE == 0 {
        return Err(Reason::Suspended);
    }
    event::note(&view.src, &view.dst, view.ports, scope(view.protocol, vlan, env.port.switch));
    let outcome = if env.port.is_member(vlan) {
        flow(frame, env, view, vlan, index, opened, bound)
    } else {
        Err(Reason::VlanIngress)
    };
    if let Err(reason) = outcome {
        event::sample(env, reason, index, NONE, view.tcp_flags);
        ended(frame, env, service, index, vlan, reason);
    }
    outcome
}

/// A packet of a service comes to an end: it is answered (and this does not come back), or counted.
#[inline(always)]
fn ended<F: Frame>(frame: F, env: &Env, service: &Service, index: u32, vlan: u16, reason: Reason) {
    if matches!(reason, Reason::NoTarget) && service.flags & flags::REJECT != 0 && !env.observe {
        // Counts what becomes of it; comes back only if there is no such program.
        let mut note = Scratch::new(Slow::Reject, env.port_index, vlan);
        note.service = index as u16;
        note.reason = reason as u32;
        let _ = detour(frame, note);
    }
    if matches!(reason.kind(), lbx_common::reason::Kind::Drop) {
        stats::service(index, |s| s.drops += 1);
    }
}

/// The key of the view's flow.
#[inline(always)]
pub fn flow_key(env: &Env, view: &View, vlan: u16) -> FlowKey {
    FlowKey {
        src: view.src,
        dst: view.dst,
        ports: view.ports,
        scope: scope(view.protocol, vlan, env.port.switch),
    }
}

/// Finds or opens the flow and sends the packet after it.
#[inline(always)]
fn flow<F: Frame>(
    frame: F,
    env: &Env,
    view: &View,
    vlan: u16,
    service: u32,
    opened: Opened,
    bound: impl FnOnce(TargetWord, u32, u64),
) -> Outcome {
    let key = flow_key(env, view, vlan);
    let hash = key.hash(&env.control.secret);
    let now = clock::jiffies();
    let load = if opened.was_tried() {
        let word = open::checked(|| key, service, env.port_index, opened)?;
        let target = target(word.target()).ok_or(Reason::Internal)?;
        Load { word, target, service, vlan, fresh: true }
    } else if let Some((word, target, fresh)) = known(frame, env, view, &key, hash, now, service)? {
        Load { word, target, service, vlan, fresh }
    } else {
        let word = open::open(|| key, hash, service, env.port_index, view.protocol, view.tcp_flags)?;
        let target = target(word.target()).ok_or(Reason::Internal)?;
        Load { word, target, service, vlan, fresh: true }
    };
    bound(load.word, service, hash);
    emit::emit(frame, env, view, load)
}

/// What a recorded flow is bound to, and whether this is its first packet of the epoch; `None` if the flow is
/// not recorded or has to be selected anew. Does not come back if the target moved.
#[inline(always)]
fn known<F: Frame>(
    frame: F,
    env: &Env,
    view: &View,
    key: &FlowKey,
    hash: u64,
    now: u64,
    service: u32,
) -> Result<Option<(TargetWord, &'static Target, bool)>, Reason> {
    let Some(hit) = flow::find(env.control, hash) else { return Ok(None) };
    let opens = view.protocol == protocol::TCP && view.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
    let reopened = opens && hit.reopened(view.tcp_flags);
    let target = match target(hit.word.target()) {
        Some(target) if fate::is_same(target, hit.word) && !reopened => target,
        _ => return Ok(anew(&hit, hash, reopened)),
    };
    // SAFETY: an aligned word of the target; read once, it is all that decides.
    let state = unsafe { core::ptr::read_volatile(&raw const target.state) };
    match fate::known(state, target.elsewhere, now, opens) {
        Fate::Go => {}
        Fate::Follow => return Err(emit::follow(frame, env, hit.word)),
        Fate::GoExpired => {
            count(Reason::BlackholeExpired);
            let target = hit.word.target();
            event::sample(env, Reason::BlackholeExpired, service, target, view.tcp_flags);
        }
        Fate::Blackholed => {
            stats::target(hit.word.target(), |s| s.drops += 1);
            return Err(Reason::Blackholed);
        }
        Fate::Anew => return Ok(anew(&hit, hash, reopened)),
    }
    let epoch = clock::epoch(env.control, now);
    let fresh = hit.touch(epoch, view.protocol, view.tcp_flags, Direction::ToServer, || ColdFlow {
        key: *key,
        service: service as u16,
        port: env.port_index as u16,
        born: now as u32,
    });
    Ok(Some((hit.word, target, fresh)))
}

/// Lets go of a flow that is selected anew: `reopened`, because its connection ended and another began.
#[inline(always)]
fn anew<T>(hit: &Hit, hash: u64, reopened: bool) -> Option<T> {
    hit.forget(hash);
    count(if reopened { Reason::FlowClosed } else { Reason::FlowReselected });
    None
}
