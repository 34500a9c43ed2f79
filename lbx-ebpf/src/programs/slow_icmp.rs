//! ICMP errors: they follow the flow of the packet inside.

use super::enter::SlowPath;
use crate::maps::scratch::Scratch;
use crate::packet::frame::Frame;
use crate::packet::parse::{self, View, protocol};
use crate::rewrite::nat::{self, Side};
use crate::slow::covers::{Way, way};
use crate::slow::inside::{self, Inside};
use crate::slow::locate::{Located, locate};
use crate::steps::emit::{self, Load};
use crate::steps::env::Env;
use crate::steps::open::{self, target};
use crate::steps::service::{self, Query};
use crate::steps::{Outcome, back, clock, event, flow, stats};
use crate::verdict::{Action, count};
use lbx_common::addr::Ip;
use lbx_common::algo::tcp::packet;
use lbx_common::flow::TargetWord;
use lbx_common::key::{FlowKey, scope};
use lbx_common::reason::{Kind, Reason};
use lbx_common::reply::embedded::End;
use lbx_common::service::{AddressEntry, flags};
use lbx_common::steer::back::service_port;
use lbx_common::steer::fate::{self, Fate};
use lbx_common::target::Forward;

/// ICMP errors.
pub struct Icmp;

impl SlowPath for Icmp {
    #[inline(always)]
    fn run<F: Frame>(frame: F, env: &Env, note: &Scratch) -> Outcome {
        let ether = parse::ether(frame, frame.packet()).ok_or(Reason::NotAService)?;
        let way = way(frame, env, &ether);
        let none = if matches!(way, Way::Out(_)) { Reason::NotTranslated } else { Reason::NotAService };
        let outer = locate(frame, &ether).map_err(|_| none)?;
        if outer.fragment.is_some() || !outer.is_icmp() {
            return Err(none);
        }
        let inside = inside::inside(frame, outer).ok_or(none)?;
        match way {
            Way::In(entry) => inward(frame, env, entry, outer, inside, note.vlan),
            Way::Out(slot) => outward(frame, env, slot, outer, inside, note.vlan),
            Way::None => Err(none),
        }
    }
}

/// Two ports as they lie in a header.
#[inline(always)]
const fn ports(source: u16, destination: u16) -> u32 {
    let [a, b] = source.to_ne_bytes();
    let [c, d] = destination.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

/// An error to a VIP, about a packet that went from there to a client.
#[inline(always)]
fn inward<F: Frame>(
    frame: F,
    env: &Env,
    entry: &AddressEntry,
    outer: &Located,
    inside: &Inside,
    vlan: u16,
) -> Outcome {
    if inside.src != outer.dst {
        return Err(Reason::NotAService);
    }
    let query = Query::new(inside.protocol, false, vlan, env.port.switch, u16::from_be(inside.src_port));
    let index = service::rule(entry, query).ok_or(Reason::NotAService)?;
    let service = service::service(index).ok_or(Reason::Internal)?;
    if service.flags & flags::ACTIVE == 0 {
        return Err(Reason::Suspended);
    }
    let outcome = if env.port.is_member(vlan) {
        to_target(frame, env, outer, inside, index, vlan)
    } else {
        Err(Reason::VlanIngress)
    };
    if let Err(reason) = outcome
        && matches!(reason.kind(), Kind::Drop)
    {
        stats::service(index, |s| s.drops += 1);
        event::note(&outer.src, &outer.dst, 0, scope(outer.protocol, vlan, env.port.switch));
        event::sample(env, reason, index, event::NONE, 0);
    }
    outcome
}

/// To the target of the flow.
#[inline(always)]
fn to_target<F: Frame>(
    frame: F,
    env: &Env,
    outer: &Located,
    inside: &Inside,
    index: u32,
    vlan: u16,
) -> Outcome {
    let service = service::service(index).ok_or(Reason::Internal)?;
    let key = FlowKey {
        src: inside.dst,
        dst: inside.src,
        ports: ports(inside.dst_port, inside.src_port),
        scope: scope(inside.protocol, vlan, env.port.switch),
    };
    let hash = key.hash(&env.control.secret);
    let (word, moved) = match bound(env, hash)? {
        Some(bound) => bound,
        None if service.forward == Forward::Nat as u8 => return Err(Reason::IcmpUnknownFlow),
        // Where the flow's packets go without a record. RST: an error opens no flow.
        None => (open::open(|| key, hash, index, env.port_index, protocol::TCP, packet::RST)?, false),
    };
    let target = target(word.target()).ok_or(Reason::Internal)?;
    if target.forward == Forward::Nat as u8 && !env.observe {
        let address = if outer.v4 { Ip::v4(target.addr4) } else { target.addr6 };
        let port = if target.port == 0 { inside.src_port } else { target.port };
        inside.translate(frame, outer, End::Source, &address, port).ok_or(Reason::Internal)?;
    }
    count(Reason::IcmpFollowed);
    if moved {
        return Err(emit::follow(frame, env, word));
    }
    emit::emit(frame, env, &outer.view_addresses(), Load { word, target, service: index, vlan, fresh: false })
}

/// What a recorded flow is bound to, and whether that moved; `None` if it is not recorded, or to be selected anew.
#[inline(always)]
fn bound(env: &Env, hash: u64) -> Result<Option<(TargetWord, bool)>, Reason> {
    let Some(hit) = flow::find(env.control, hash) else { return Ok(None) };
    let Some(target) = target(hit.word.target()) else { return Ok(None) };
    if !fate::is_same(target, hit.word) {
        return Ok(None);
    }
    // SAFETY: an aligned word of the target; read once, it is all that decides.
    let state = unsafe { core::ptr::read_volatile(&raw const target.state) };
    match fate::known(state, target.elsewhere, clock::jiffies(), false) {
        Fate::Go => Ok(Some((hit.word, false))),
        Fate::Follow => Ok(Some((hit.word, true))),
        Fate::GoExpired => {
            count(Reason::BlackholeExpired);
            Ok(Some((hit.word, false)))
        }
        Fate::Blackholed => {
            stats::target(hit.word.target(), |s| s.drops += 1);
            Err(Reason::Blackholed)
        }
        Fate::Anew => Ok(None),
    }
}

/// An error from a nat target, about a packet that went from a client to it.
#[inline(always)]
fn outward<F: Frame>(frame: F, env: &Env, slot: u32, outer: &Located, inside: &Inside, vlan: u16) -> Outcome {
    if inside.dst != outer.src {
        return Err(Reason::NotTranslated);
    }
    // The answer that the target might have sent instead.
    let answer = View {
        dst: inside.src,
        ports: ports(inside.dst_port, inside.src_port),
        protocol: inside.protocol,
        ..outer.view_addresses()
    };
    let back = back::find(env, &answer, vlan, slot).ok_or(Reason::NotTranslated)?;
    if back::waits(frame, env, back.target as u32) {
        return Ok(Action::Pass);
    }
    stats::service(back.service as u32, |s| s.returns += 1);
    if env.observe {
        return Err(Reason::Observed);
    }
    let port = service_port(back, inside.dst_port);
    inside.translate(frame, outer, End::Destination, &back.vip, port).ok_or(Reason::Internal)?;
    nat::translate(frame, &outer.view_addresses(), Side::Source, &back.vip, 0).ok_or(Reason::Internal)?;
    count(Reason::IcmpFollowed);
    Ok(Action::Pass)
}
