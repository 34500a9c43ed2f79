//! Later fragments: after the first.

use super::enter::SlowPath;
use crate::maps::scratch::Scratch;
use crate::packet::frame::Frame;
use crate::packet::parse;
use crate::rewrite::nat::{self, Side};
use crate::slow::covers::{self, Way, way};
use crate::slow::fragment;
use crate::slow::locate::{Located, locate};
use crate::steps::emit::{self, Load};
use crate::steps::env::Env;
use crate::steps::open::target;
use crate::steps::{Outcome, back, clock, event, malformed, service, stats};
use crate::verdict::{Action, count};
use lbx_common::flow::TargetWord;
use lbx_common::key::scope;
use lbx_common::reason::{Kind, Reason};
use lbx_common::service::{AddressEntry, flags};
use lbx_common::steer::fate::{self, Fate};

/// Later fragments.
pub struct Later;

impl SlowPath for Later {
    #[inline(always)]
    fn run<F: Frame>(frame: F, env: &Env, note: &Scratch) -> Outcome {
        let ether = parse::ether(frame, frame.packet()).ok_or(Reason::NotAService)?;
        let located = locate(frame, &ether);
        match (way(frame, env, &ether), located) {
            (Way::In(entry), Ok(located)) => follow(frame, env, entry, located, note.vlan),
            (Way::In(entry), Err(reason)) => malformed(env, entry, note.vlan, reason),
            (Way::Out(_), Ok(located)) => outward(frame, env, located, note.vlan),
            (Way::Out(_), Err(_)) => Err(Reason::NotTranslated),
            (Way::None, _) => Err(Reason::NotAService),
        }
    }
}

/// A fragment from the address of a nat target: with the address its first one got.
#[inline(always)]
fn outward<F: Frame>(frame: F, env: &Env, located: &Located, vlan: u16) -> Outcome {
    let first = fragment::recall(env, located, vlan).ok_or(Reason::NotTranslated)?;
    if first.rewrite.is_unspecified() {
        return Err(Reason::NotTranslated);
    }
    if back::waits(frame, env, first.target.target()) {
        return Ok(Action::Pass);
    }
    if env.observe {
        return Err(Reason::Observed);
    }
    count(Reason::FragmentFollowed);
    nat::translate(frame, &located.view_addresses(), Side::Source, &first.rewrite, 0)
        .ok_or(Reason::Internal)?;
    Ok(Action::Pass)
}

/// A later fragment to a VIP: after the first.
#[inline(always)]
fn follow<F: Frame>(frame: F, env: &Env, entry: &AddressEntry, located: &Located, vlan: u16) -> Outcome {
    let Some(first) = fragment::recall(env, located, vlan) else {
        let ours = covers::protocol(entry, located.fragment_protocol(), vlan, env.port.switch);
        return Err(if ours { Reason::FragmentUnknown } else { Reason::NotAService });
    };
    if first.target == TargetWord::NONE {
        return Err(Reason::NotAService);
    }
    let index = first.index as u32;
    let service = service::service(index).ok_or(Reason::Internal)?;
    if service.flags & flags::ACTIVE == 0 {
        return Err(Reason::Suspended);
    }
    let outcome = after(frame, env, located, first.target, index, vlan);
    if let Err(reason) = outcome
        && matches!(reason.kind(), Kind::Drop)
    {
        stats::service(index, |s| s.drops += 1);
        event::note(&located.src, &located.dst, 0, scope(located.protocol, vlan, env.port.switch));
        event::sample(env, reason, index, event::NONE, 0);
    }
    outcome
}

/// To the target of the first fragment, if its state allows.
#[inline(always)]
fn after<F: Frame>(
    frame: F,
    env: &Env,
    located: &Located,
    word: TargetWord,
    service: u32,
    vlan: u16,
) -> Outcome {
    let target = target(word.target()).ok_or(Reason::Internal)?;
    if !fate::is_same(target, word) {
        return Err(Reason::StaleTarget);
    }
    // SAFETY: an aligned word of the target; read once, it is all that decides.
    let state = unsafe { core::ptr::read_volatile(&raw const target.state) };
    match fate::known(state, target.elsewhere, clock::jiffies(), false) {
        Fate::Go => {}
        Fate::Follow => {
            count(Reason::FragmentFollowed);
            return Err(emit::follow(frame, env, word));
        }
        Fate::GoExpired => count(Reason::BlackholeExpired),
        Fate::Blackholed => {
            stats::target(word.target(), |s| s.drops += 1);
            return Err(Reason::Blackholed);
        }
        // Whoever has the first fragment cannot be asked any more.
        Fate::Anew => return Err(Reason::StaleTarget),
    }
    count(Reason::FragmentFollowed);
    emit::emit(frame, env, &located.view_addresses(), Load { word, target, service, vlan, fresh: false })
}
