//! What a frame of a rare path is about.

use crate::packet::frame::Frame;
use crate::packet::parse::{Ether, ethertype};
use crate::steps::env::Env;
use crate::steps::service;
use lbx_common::addr::Ip;
use lbx_common::port::flags;
use lbx_common::service::{AddressEntry, Rule, address_flags, rule_flags};

/// Which way a frame goes.
#[derive(Clone, Copy)]
pub enum Way {
    /// To a VIP, addressed to the switch.
    In(&'static AddressEntry),
    /// From the address of a nat target, in this slot of `addresses`.
    Out(u32),
    /// Neither: not ours.
    None,
}

/// Finds out anew what the caller of the tail call knew. `None` also where the tables changed in between.
#[inline(always)]
pub fn way<F: Frame>(frame: F, env: &Env, ether: &Ether) -> Way {
    let l3 = ether.l3 as u32;
    let (src, dst) = match ether.kind {
        ethertype::IPV4 => match frame.load::<[u32; 2]>(l3 + 12) {
            Some([src, dst]) => (Ip::v4(src), Ip::v4(dst)),
            None => return Way::None,
        },
        ethertype::IPV6 => match (frame.load::<[u32; 4]>(l3 + 8), frame.load::<[u32; 4]>(l3 + 24)) {
            (Some(src), Some(dst)) => (Ip::v6(src), Ip::v6(dst)),
            _ => return Way::None,
        },
        _ => return Way::None,
    };
    if let Some(entry) = service::address(env.control, &dst)
        && entry.flags & address_flags::VIP != 0
    {
        return if service::addressed(env.port, &ether.dst) { Way::In(entry) } else { Way::None };
    }
    if env.port.flags & (flags::NAT_TARGETS | flags::BACK_AT_EGRESS) != 0
        && let Some((slot, entry)) = service::address_at(env.control, &src)
        && entry.flags & address_flags::NAT_TARGET != 0
    {
        return Way::Out(slot);
    }
    Way::None
}

/// Whether some service of the address has this protocol on the VLAN and switch, whatever its port: a later
/// fragment does not say its port. Where rules did not fit beside the address, one of them might.
#[inline(always)]
pub fn protocol(entry: &AddressEntry, protocol: u8, vlan: u16, switch: u16) -> bool {
    let on = |rule: &Rule| {
        rule.protocol == protocol
            && rule.flags & rule_flags::BACK == 0
            && rule.vlan == vlan
            && rule.switch == switch
    };
    entry.more_count != 0 || on(&entry.rules[0]) || on(&entry.rules[1]) || on(&entry.rules[2])
}
