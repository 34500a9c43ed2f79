//! Two connections of one client that a nat target could not tell apart.
//!
//! A client may use one port towards two VIPs. Where both lead to the same port of the same target, it sees one
//! connection, and its answers belong to either: the second is not opened.

use super::env::Env;
use super::open::target;
use super::service::{self, Query};
use super::{back, clock, flow};
use crate::maps::OPENING;
use lbx_common::addr::Ip;
use lbx_common::flow::{TargetWord, flags};
use lbx_common::key::FlowKey;
use lbx_common::steer::back::{MAX_BACK_RULES, forward_key, service_port};
use lbx_common::steer::fate;

/// Whether a flow that was just bound to a target would be the same to it as another that is recorded and not over.
/// Its record is withdrawn then.
#[inline(always)]
pub fn withdrawn(key: &FlowKey, word: TargetWord) -> bool {
    if let Some(at) = OPENING.get_ptr_mut(0) {
        // SAFETY: a non-null value pointer of a per-CPU array; only this CPU writes it.
        unsafe { *at = *key };
    }
    lbx_conflict(word.0) != 0
}

/// A function of its own, verified once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lbx_conflict(word: u32) -> u32 {
    let (Some(control), Some(at)) = (Env::control(), OPENING.get_ptr(0)) else { return 0 };
    // SAFETY: a non-null value pointer of a per-CPU array, written by `withdrawn` on this CPU just before.
    let key: &FlowKey = unsafe { &*at };
    let Some(chosen) = target(TargetWord(word).target()) else { return 0 };
    let addr = if key.src.is_v4() { Ip::v4(chosen.addr4) } else { chosen.addr6 };
    let Some((slot, _)) = service::address_at(control, &addr) else { return 0 };
    let [client_port, vip_port] = two_ports(key.ports);
    let port = if chosen.port == 0 { vip_port } else { chosen.port };
    let query = Query::new(key.protocol(), true, key.vlan(), key.switch(), u16::from_be(port));
    let epoch = clock::epoch(control, clock::jiffies());
    let mut n = 0;
    while n < MAX_BACK_RULES {
        let Some(rule) = back::nth_rule(slot, n) else { break };
        if query.matches(&rule)
            && let Some(back) = back::at_index(rule.index as u32)
            && (back.vip != key.dst || service_port(back, port) != vip_port)
        {
            let other = forward_key(back, key.src, client_port, port, key.protocol(), key.switch());
            if let Some(hit) = flow::find(control, other.hash(&control.secret))
                && hit.flags & flags::NAT != 0
                && hit.word.target() == back.target as u32
                && hit.is_open(epoch, &control.idle)
                && let Some(target) = target(hit.word.target())
                && fate::is_same(target, hit.word)
            {
                let own = key.hash(&control.secret);
                if let Some(hit) = flow::find(control, own) {
                    hit.forget(own);
                }
                return 1;
            }
        }
        n += 1;
    }
    0
}

/// The two ports of a key, each in network order.
#[inline(always)]
const fn two_ports(ports: u32) -> [u16; 2] {
    let [a, b, c, d] = ports.to_ne_bytes();
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]
}
