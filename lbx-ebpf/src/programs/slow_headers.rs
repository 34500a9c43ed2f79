//! IPv4 options, IPv6 extension headers and fragments.

use super::enter::SlowPath;
use crate::maps::scratch::Scratch;
use crate::packet::frame::Frame;
use crate::packet::parse;
use crate::slow::covers::{Way, way};
use crate::slow::fragment;
use crate::slow::locate::{Located, locate};
use crate::steps::env::Env;
use crate::steps::open::Opened;
use crate::steps::{Outcome, back, detour, malformed, serve};
use lbx_common::flow::TargetWord;
use lbx_common::reason::Reason;
use lbx_common::reply::embedded::{carries_v4, carries_v6};
use lbx_common::service::AddressEntry;
use lbx_common::steer::slow::Slow;

/// IPv4 options, IPv6 extension headers and fragments.
pub struct Headers;

impl SlowPath for Headers {
    #[inline(always)]
    fn run<F: Frame>(frame: F, env: &Env, note: &Scratch) -> Outcome {
        let ether = parse::ether(frame, frame.packet()).ok_or(Reason::NotAService)?;
        let located = locate(frame, &ether);
        if let Ok(located) = located
            && located.is_later()
        {
            let _ = detour(frame, Scratch::new(Slow::Later, env.port_index, note.vlan));
        }
        match (way(frame, env, &ether), located) {
            (Way::In(entry), Ok(located)) => inward(frame, env, entry, located, note.vlan),
            (Way::In(entry), Err(reason)) => malformed(env, entry, note.vlan, reason),
            (Way::Out(slot), Ok(located)) => outward(frame, env, slot, located, note.vlan),
            // It may be a direct connection of the VM's: not ours to drop.
            (Way::Out(_), Err(_)) => Err(Reason::NotTranslated),
            (Way::None, _) => Err(Reason::NotAService),
        }
    }
}

/// A packet to a VIP.
#[inline(always)]
fn inward<F: Frame>(frame: F, env: &Env, entry: &AddressEntry, located: &Located, vlan: u16) -> Outcome {
    if located.is_icmp() {
        if located.fragment.is_none() && is_error(frame, located) {
            let _ = detour(frame, Scratch::new(Slow::Icmp, env.port_index, vlan));
        }
        return Err(Reason::NotAService);
    }
    let transport = match located.transport(frame) {
        Ok(transport) => transport,
        Err(reason) => return malformed(env, entry, vlan, reason),
    };
    let outcome = serve::serve_with(
        frame,
        env,
        entry,
        &located.view(&transport),
        vlan,
        Opened::NOT,
        |word, service, _| {
            if located.fragment.is_some() {
                fragment::remember(vlan, env.port.switch, word, service, fragment::KEEP);
            }
        },
    );
    if located.fragment.is_some() && matches!(outcome, Err(Reason::NotAService | Reason::Suspended)) {
        // The rest of the datagram passes like its beginning.
        fragment::remember(vlan, env.port.switch, TargetWord::NONE, 0, fragment::KEEP);
    }
    outcome
}

/// Whether an ICMP message is an error.
#[inline(always)]
fn is_error<F: Frame>(frame: F, located: &Located) -> bool {
    match frame.load::<u8>(located.l4) {
        Some(kind) if located.v4 => carries_v4(kind),
        Some(kind) => carries_v6(kind),
        None => false,
    }
}

/// A packet from the address of a nat target.
#[inline(always)]
fn outward<F: Frame>(frame: F, env: &Env, slot: u32, located: &Located, vlan: u16) -> Outcome {
    if located.is_icmp() {
        if located.fragment.is_none() && is_error(frame, located) {
            let _ = detour(frame, Scratch::new(Slow::Icmp, env.port_index, vlan));
        }
        return Err(Reason::NotTranslated);
    }
    let transport = located.transport(frame).map_err(|_| Reason::NotTranslated)?;
    let view = located.view(&transport);
    let (index, back) = back::find_index(env, &view, vlan, slot).ok_or(Reason::NotTranslated)?;
    if located.fragment.is_some() {
        let target = TargetWord::new(back.target, 0, 0);
        fragment::remember(vlan, env.port.switch, target, back.service as u32, index);
    }
    back::give(frame, env, &view, back)
}
