//! The way back of nat: what a target answers gets the VIP's address again.
//!
//! Only what belongs to a recorded flow is translated, so that direct connections to the VM keep working; a
//! target whose port serves nothing else may be declared exclusive, and then the flow need not be known.

use super::env::Env;
use super::open::target;
use super::service::{self, Query};
use super::{Outcome, UNTOUCHED, clock, detour, flow, icmp, port, stats, times};
use crate::maps::scratch::Scratch;
use crate::maps::{ADDRESSES, BACK_QUERY, BACKS, MORE_RULES};
use crate::packet::cursor::Packet;
use crate::packet::frame::Frame;
use crate::packet::parse::{self, Ether, View, ethertype, protocol};
use crate::rewrite::nat::{self, Side};
use crate::verdict::Action;
use lbx_common::addr::{Ip, Mac};
use lbx_common::algo::tcp::Direction;
use lbx_common::control::{Control, flags as control_flags};
use lbx_common::flow::{ColdFlow, flags};
use lbx_common::port::flags as port_flags;
use lbx_common::reason::Reason;
use lbx_common::service::{Back, INLINE_RULES, Rule, address_flags};
use lbx_common::steer::slow::Slow;
use lbx_common::steer::{back, fate, vlan};
use lbx_common::target::flags as target_flags;

/// What [`lbx_back`] wants to know, per CPU.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct BackQuery {
    /// Where the answer goes.
    client: Ip,
    /// What the rules are matched by.
    query: Query,
    /// Slot of the target's address.
    slot: u32,
    /// Client port in network order.
    client_port: u16,
    /// Source port in network order.
    source_port: u16,
    /// Switch.
    switch: u16,
    /// Port (index) the answer came in by.
    port_index: u16,
    /// Protocol.
    protocol: u8,
    /// TCP flags.
    tcp_flags: u8,
    reserved: [u8; 2],
    /// Written by [`lbx_back`]: hash of the flow, if it is timed.
    timed: u64,
}

/// A frame from the address of a nat target goes on in the program of the way back.
#[inline(always)]
pub fn answer<F: Frame>(
    frame: F,
    packet: Packet,
    control: &'static Control,
    ether: &Ether,
) -> (Outcome, bool) {
    let src = if ether.kind == ethertype::IPV4 {
        packet.read::<u32>(ether.l3 + 12).map(Ip::v4)
    } else {
        packet.read::<[u32; 4]>(ether.l3 + 8).map(Ip::v6)
    };
    let Some(src) = src else { return UNTOUCHED };
    if service::is_absent(&src) {
        return UNTOUCHED;
    }
    if !F::SKB {
        // At XDP the port is a constant and cheaper to ask than the address. Where it is not (generic, on the
        // bridge), nothing is translated: checksums may be partial there.
        if !frame.port_is_known() {
            return UNTOUCHED;
        }
        match port(frame, control) {
            Some(env) if env.port.flags & port_flags::NAT_TARGETS != 0 => {}
            _ => return UNTOUCHED,
        }
    }
    let Some(entry) = service::address(control, &src) else { return UNTOUCHED };
    // Asked here, after the address: a frame that is nobody's need not know of the bypass.
    if control.flags & control_flags::BYPASS != 0 {
        return UNTOUCHED;
    }
    if entry.flags & address_flags::NAT_TARGET == 0 {
        if F::SKB
            && times::may_answer(control, packet, ether)
            && let Some(env) = port(frame, control)
        {
            let vlan = vlan::of_frame(env.port, ether.tag);
            let _ = detour(frame, Scratch::new(Slow::Back, env.port_index, vlan));
        }
        return UNTOUCHED;
    }
    let Some(env) = port(frame, control) else { return UNTOUCHED };
    if env.port.flags & port_flags::NAT_TARGETS == 0 {
        return UNTOUCHED;
    }
    let vlan = vlan::of_frame(env.port, ether.tag);
    // Without the program the answer goes on as it is.
    let _ = detour(frame, Scratch::new(Slow::Back, env.port_index, vlan));
    (Err(Reason::NotTranslated), env.observe)
}

/// Translates a frame from the address of a nat target if it belongs to a recorded flow. Whatever is wrong with
/// it, it may be a direct connection: it is not ours to drop.
#[inline(always)]
pub fn translate<F: Frame>(frame: F, packet: Packet, env: &Env, ether: &Ether) -> Outcome {
    let network = if ether.kind == ethertype::IPV4 {
        parse::ipv4(frame, packet, ether.l3)
    } else {
        parse::ipv6(frame, packet, ether.l3)
    };
    let Ok(network) = network else { return Err(Reason::NotTranslated) };
    let vlan = vlan::of_frame(env.port, ether.tag);
    if network.rare {
        let _ = detour(frame, Scratch::new(Slow::Headers, env.port_index, vlan));
        return Err(Reason::NotTranslated);
    }
    if network.protocol == protocol::ICMP || network.protocol == protocol::ICMPV6 {
        let Some(kind) = packet.read::<u8>(network.l4) else { return Err(Reason::NotTranslated) };
        if network.v4 && icmp::is_error(kind) || !network.v4 && icmp::is_error_v6(kind) {
            let _ = detour(frame, Scratch::new(Slow::Icmp, env.port_index, vlan));
        }
        return Err(Reason::NotTranslated);
    }
    let Ok(transport) = parse::transport(packet, ether.l3, &network) else {
        return Err(Reason::NotTranslated);
    };
    let (slot, entry) = service::address_at(env.control, &network.src).ok_or(Reason::NotTranslated)?;
    let view = View::new(ether, &network, &transport);
    if entry.flags & address_flags::NAT_TARGET == 0 {
        times::from_vip(env, &view, vlan);
        return Ok(Action::Pass);
    }
    restore(frame, env, &view, vlan, slot)
}

/// Gives the packet the VIP's address if it belongs to a flow. `slot`: of the source in `addresses`.
#[inline(always)]
pub fn restore<F: Frame>(frame: F, env: &Env, view: &View, vlan: u16, slot: u32) -> Outcome {
    let back = find(env, view, vlan, slot).ok_or(Reason::NotTranslated)?;
    if let Some(at) = BACK_QUERY.get_ptr(0) {
        // SAFETY: a non-null value pointer of a per-CPU array, written by `find` and its callee on this CPU.
        let hash = unsafe { (*at).timed };
        if hash != 0 {
            times::from_target(view, hash);
        }
    }
    give(frame, env, view, back)
}

/// Whether the answer is translated only where it leaves.
#[inline(always)]
pub fn waits<F: Frame>(frame: F, env: &Env, to: u32) -> bool {
    if !F::SKB || frame.leaving() {
        return false;
    }
    let (Some(target), Some(dst)) = (target(to), frame.packet().read::<Mac>(0)) else { return false };
    back::waits(env.port.flags, target.deliver, dst == env.port.switch_mac)
}

/// Gives the packet the VIP's address.
#[inline(always)]
pub fn give<F: Frame>(frame: F, env: &Env, view: &View, back: &Back) -> Outcome {
    if waits(frame, env, back.target as u32) {
        return Ok(Action::Pass);
    }
    stats::service(back.service as u32, |s| s.returns += 1);
    if env.observe {
        return Err(Reason::Observed);
    }
    let port = back::service_port(back, view.src_port());
    nat::translate(frame, view, Side::Source, &back.vip, port).ok_or(Reason::Internal)?;
    Ok(Action::Pass)
}

/// The way back an answer takes, if it is one.
#[inline(always)]
pub fn find(env: &Env, view: &View, vlan: u16, slot: u32) -> Option<&'static Back> {
    find_index(env, view, vlan, slot).map(|(_, back)| back)
}

/// The same, with its index.
#[inline(always)]
pub fn find_index(env: &Env, view: &View, vlan: u16, slot: u32) -> Option<(u32, &'static Back)> {
    let source_port = view.src_port();
    let query = Query::new(view.protocol, true, vlan, env.port.switch, u16::from_be(source_port));
    let at = BACK_QUERY.get_ptr_mut(0)?;
    // SAFETY: a non-null value pointer of a per-CPU array; only this CPU writes it, and it is read by the call
    // below alone.
    unsafe {
        *at = BackQuery {
            client: view.dst,
            query,
            slot,
            client_port: view.dst_port(),
            source_port,
            switch: env.port.switch,
            port_index: env.port_index as u16,
            protocol: view.protocol,
            tcp_flags: view.tcp_flags,
            reserved: [0; 2],
            timed: 0,
        };
    }
    let index = lbx_back(0);
    if index == NO_BACK {
        return None;
    }
    at_index(index).map(|back| (index, back))
}

/// The way back at an index.
#[inline(always)]
pub fn at_index(index: u32) -> Option<&'static Back> {
    let at = BACKS.get_ptr(index)?;
    // SAFETY: a non-null value pointer of an array map; user space writes an entry before a rule names it.
    Some(unsafe { &*at })
}

/// Not an answer.
const NO_BACK: u32 = u32::MAX;

/// Goes through the ways back of the target's address; index of the one whose flow is recorded, or else of the
/// first whose target is exclusive. A function of its own, verified once. The argument is there for the
/// verifier's sake.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lbx_back(zero: u32) -> u32 {
    let Some(query) = BACK_QUERY.get_ptr(zero) else { return NO_BACK };
    // SAFETY: a non-null value pointer of a per-CPU array, written by `find` on this CPU just before.
    let query: &BackQuery = unsafe { &*query };
    let Some(control) = Env::control() else { return NO_BACK };
    let mut otherwise = NO_BACK;
    let mut n = 0;
    while n < back::MAX_BACK_RULES {
        let Some(rule) = nth_rule(query.slot, n) else { break };
        if query.query.matches(&rule)
            && let Some(back) = at_index(rule.index as u32)
        {
            let index = rule.index as u32;
            let key = back::forward_key(
                back,
                query.client,
                query.client_port,
                query.source_port,
                query.protocol,
                query.switch,
            );
            let hash = key.hash(&control.secret);
            if let Some(hit) = flow::find(control, hash)
                && hit.flags & flags::NAT != 0
                && hit.word.target() == back.target as u32
                && let Some(target) = target(hit.word.target())
                && fate::is_same(target, hit.word)
            {
                if target.flags & target_flags::EXCLUSIVE == 0
                    && query.protocol == protocol::TCP
                    && back::is_anothers(hit.flags, query.tcp_flags)
                {
                    hit.untranslate();
                    return NO_BACK;
                }
                if times::is_timed(control, key.src.0[3], key.ports)
                    && let Some(at) = BACK_QUERY.get_ptr_mut(0)
                {
                    // SAFETY: as `query`; the reference to it is not used for this field.
                    unsafe { (&raw mut (*at).timed).write(hash) };
                }
                let now = clock::jiffies();
                let epoch = clock::epoch(control, now);
                hit.touch(epoch, query.protocol, query.tcp_flags, Direction::ToClient, || ColdFlow {
                    key,
                    service: back.service,
                    port: query.port_index,
                    born: now as u32,
                });
                return index;
            }
            if otherwise == NO_BACK
                && let Some(target) = target(back.target as u32)
                && target.flags & target_flags::EXCLUSIVE != 0
            {
                otherwise = index;
            }
        }
        n += 1;
    }
    otherwise
}

/// A rule of an address: inline, then the others.
#[inline(always)]
pub fn nth_rule(slot: u32, n: u32) -> Option<Rule> {
    let entry = ADDRESSES.get_ptr(slot)?;
    // SAFETY: a non-null value pointer of an array map; the generation in force is not written to.
    let entry = unsafe { &*entry };
    if n < INLINE_RULES as u32 {
        return Some(entry.rules[(n & 3) as usize % INLINE_RULES]);
    }
    let more = n - INLINE_RULES as u32;
    if more >= entry.more_count as u32 {
        return None;
    }
    let at = MORE_RULES.get_ptr(entry.more_first as u32 + more)?;
    // SAFETY: a non-null value pointer of an array map, read as a copy.
    Some(unsafe { *at })
}
