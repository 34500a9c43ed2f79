//! Frames on their way out: what the host itself sends, and answers of nat targets behind the bridge.
//!
//! Where the bridge delivers the packets of a nat service, its filters and the host's conntrack see them with the
//! target's address. They have to see the answers with that address too, or they would take them for a
//! connection they do not know. So these are translated when the bridge is done with them.

use super::env::Env;
use super::{Outcome, UNTOUCHED, detour, port, reach, service};
use crate::maps::scratch::Scratch;
use crate::packet::frame::Frame;
use crate::packet::parse::{self, ethertype};
use lbx_common::addr::Ip;
use lbx_common::control::flags;
use lbx_common::port::flags as port_flags;
use lbx_common::service::address_flags;
use lbx_common::steer::slow::Slow;
use lbx_common::steer::vlan;

/// What the frame may be about.
enum About {
    /// Nothing of ours.
    Nothing,
    /// From the address of a nat target.
    Answer,
    /// To a VIP, or a question that may be for one: steered where the host sends it.
    Vip,
}

/// Steers what the host sends by the switch device, and translates what leaves by another port; `true` if only
/// observing.
#[inline(always)]
pub fn leave<F: Frame>(frame: F) -> (Outcome, bool) {
    let Some(control) = Env::control() else { return UNTOUCHED };
    if control.flags & flags::BYPASS != 0 {
        return UNTOUCHED;
    }
    let packet = reach(frame);
    let Some(ether) = parse::ether(frame, packet) else { return UNTOUCHED };
    let ends = match ether.kind {
        ethertype::IPV4 => packet.read::<[u32; 2]>(ether.l3 + 12).map(|[s, d]| (Ip::v4(s), Ip::v4(d))),
        ethertype::IPV6 => packet.read::<[[u32; 4]; 2]>(ether.l3 + 8).map(|[s, d]| (Ip::v6(s), Ip::v6(d))),
        _ => None,
    };
    let about = match ends {
        None if ether.kind == ethertype::ARP => About::Vip,
        None => About::Nothing,
        // Multicast: a neighbour solicitation, perhaps.
        Some((_, dst)) if ether.kind == ethertype::IPV6 && dst.0[0] == 0xff02_0000_u32.to_be() => About::Vip,
        Some((src, dst)) => {
            let has = |addr: &Ip, flag| service::address(control, addr).is_some_and(|e| e.flags & flag != 0);
            if has(&dst, address_flags::VIP) {
                About::Vip
            } else if has(&src, address_flags::NAT_TARGET) {
                About::Answer
            } else {
                About::Nothing
            }
        }
    };
    if matches!(about, About::Nothing) {
        return UNTOUCHED;
    }
    let Some(env) = port(frame, control) else { return UNTOUCHED };
    match about {
        About::Vip if env.port.flags & port_flags::SWITCH != 0 => {
            let _ = detour(frame, Scratch::new(Slow::Whole, env.port_index, 0));
            UNTOUCHED
        }
        About::Answer if env.port.flags & port_flags::BACK_AT_EGRESS != 0 => {
            let vlan = vlan::of_frame(env.port, ether.tag);
            // Without the program the answer goes on as it is.
            let _ = detour(frame, Scratch::new(Slow::Back, env.port_index, vlan));
            UNTOUCHED
        }
        _ => UNTOUCHED,
    }
}
