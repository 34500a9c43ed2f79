//! Later fragments follow the first.

use super::locate::{Located, located_already};
use crate::maps::FRAGMENTS;
use crate::steps::env::Env;
use crate::steps::{back, clock};
use crate::verdict::count;
use lbx_common::addr::Ip;
use lbx_common::flow::{TargetWord, idle};
use lbx_common::fragment::{FragmentKey, FragmentValue};
use lbx_common::key::scope;
use lbx_common::reason::Reason;

/// Epochs after which the rest of a datagram is no longer expected (RFC 8200, section 4.5: 60 seconds). Later
/// the identification may be another datagram's.
const LIFETIME: u16 = 60;

/// No way back: the source address stays.
pub const KEEP: u32 = u32::MAX;

/// What the fragments of a datagram share; `None` for a packet that is no fragment.
#[inline(always)]
fn key(located: &Located, vlan: u16, switch: u16) -> Option<FragmentKey> {
    let fragment = located.fragment?;
    Some(FragmentKey {
        src: located.src,
        dst: located.dst,
        id: fragment.id,
        scope: scope(fragment.protocol, vlan, switch),
    })
}

/// Remembers where the first fragment that was located goes. `service`: its index. `way_back`: index of the
/// way back whose address its source becomes, or [`KEEP`].
#[inline(always)]
pub fn remember(vlan: u16, switch: u16, target: TargetWord, service: u32, way_back: u32) {
    lbx_remember((vlan as u32) << 16 | switch as u32, target.0, service, way_back);
}

/// A function of its own: key and value would not fit on the stack beside everything else.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lbx_remember(vlan_switch: u32, target: u32, service: u32, way_back: u32) -> u32 {
    let (Some(control), Some(located)) = (Env::control(), located_already()) else { return 1 };
    let Some(key) = key(located, (vlan_switch >> 16) as u16, vlan_switch as u16) else { return 1 };
    let mut value = FragmentValue {
        target: TargetWord(target),
        index: service as u16,
        epoch: clock::epoch(control, clock::jiffies()),
        rewrite: Ip::UNSPECIFIED,
    };
    if let Some(back) = back::at_index(way_back)
        && way_back != KEEP
    {
        value.rewrite = back.vip;
    }
    if FRAGMENTS.insert(key, value, 0).is_err() {
        // The rest of the datagram will be dropped, and counted then.
        count(Reason::Internal);
        return 1;
    }
    0
}

/// Where the first fragment of the datagram went.
#[inline(always)]
pub fn recall(env: &Env, located: &Located, vlan: u16) -> Option<FragmentValue> {
    // SAFETY: copied at once. An entry that is reused meanwhile mixes two datagrams' values, both of which name
    // a target whose state and generation are checked, or an address to restore; the datagram then fails its
    // checksum at the receiver.
    let value = unsafe { FRAGMENTS.get(key(located, vlan, env.port.switch)?) }.copied()?;
    let now = clock::epoch(env.control, clock::jiffies());
    (idle(now, value.epoch) <= LIFETIME).then_some(value)
}
