//! The steps of steering, in order: parse, service, flow, select, target state, rewrite, emit.

pub mod back;
pub mod clock;
pub mod emit;
pub mod env;
pub mod flow;
pub mod open;
pub mod rate;
pub mod serve;
pub mod service;
pub mod stats;

use crate::maps::scratch::Scratch;
use crate::packet::cursor::Packet;
use crate::packet::frame::Frame;
use crate::packet::parse::{self, Ether, FAST_BYTES, Network, View, ethertype, protocol};
use crate::verdict::Action;
use env::Env;
use lbx_common::addr::Ip;
use lbx_common::control::{Control, flags};
use lbx_common::reason::Reason;
use lbx_common::service::{AddressEntry, address_flags};
use lbx_common::steer::slow::Slow;
use lbx_common::steer::vlan;

/// What a step hands on: an action, or the cause that ends the way.
pub type Outcome = Result<Action, Reason>;

/// A frame that is none of ours.
const UNTOUCHED: (Outcome, bool) = (Ok(Action::Pass), false);

/// Steers a frame; `true` if only observing.
#[inline(always)]
pub fn steer<F: Frame>(frame: F) -> (Outcome, bool) {
    let Some(control) = Env::control() else { return UNTOUCHED };
    if control.flags & flags::BYPASS != 0 {
        return UNTOUCHED;
    }
    let mut packet = frame.packet();
    if F::SKB && !packet.holds(FAST_BYTES as usize) {
        // What the driver left outside the linear part; shorter frames are as they are.
        let wanted = frame.length().min(FAST_BYTES);
        if packet.reach() < wanted as usize {
            frame.pull(wanted);
            packet = frame.packet();
        }
    }
    let Some(ether) = parse::ether(frame, packet) else { return UNTOUCHED };
    let dst = match ether.kind {
        ethertype::IPV4 => match packet.read::<u32>(ether.l3 + 16) {
            Some(word) => Ip::v4(word),
            None => return UNTOUCHED,
        },
        ethertype::IPV6 => match packet.read::<[u32; 4]>(ether.l3 + 24) {
            Some(words) => Ip::v6(words),
            None => return UNTOUCHED,
        },
        ethertype::ARP => match packet.read::<u32>(ether.l3 + 24) {
            Some(word) => return solicited(frame, control, &ether, &Ip::v4(word)),
            None => return UNTOUCHED,
        },
        _ => return UNTOUCHED,
    };
    match service::address(control, &dst) {
        Some(entry) if entry.flags & address_flags::VIP != 0 => {
            let Some(env) = port(frame, control) else { return UNTOUCHED };
            (vip(frame, packet, &env, &ether, entry), env.observe)
        }
        _ => other(frame, packet, control, &ether, &dst),
    }
}

/// The environment of the port the frame came in by; `None` if it is not one of ours.
#[inline(always)]
fn port<F: Frame>(frame: F, control: &'static Control) -> Option<Env> {
    let env = Env::with(control, frame.port_index()?)?;
    (env.port.ifindex != 0).then_some(env)
}

/// A frame to no VIP: it may ask for one (neighbour solicitation), or be the answer of a nat target.
#[inline(always)]
fn other<F: Frame>(
    frame: F,
    packet: Packet,
    control: &'static Control,
    ether: &Ether,
    dst: &Ip,
) -> (Outcome, bool) {
    // ff02::1:ffxx:xxxx (RFC 4291, section 2.7.1).
    const SOLICITED: [u32; 3] = [0xff02_0000_u32.to_be(), 0, 1_u32.to_be()];
    if ether.kind == ethertype::IPV6 && dst.0[0] == SOLICITED[0] {
        if dst.0[1] != SOLICITED[1] || dst.0[2] != SOLICITED[2] {
            return UNTOUCHED;
        }
        let next: Option<u8> = packet.read(ether.l3 + 6);
        let kind: Option<u8> = packet.read(ether.l3 + 40);
        if next != Some(protocol::ICMPV6) || kind != Some(icmp::SOLICIT) {
            return UNTOUCHED;
        }
        return match packet.read::<[u32; 4]>(ether.l3 + 48) {
            Some(words) => solicited(frame, control, ether, &Ip::v6(words)),
            None => UNTOUCHED,
        };
    }
    back::answer(frame, packet, control, ether)
}

/// ICMP and ICMPv6 types (IANA).
pub mod icmp {
    /// ICMPv6 neighbour solicitation.
    pub const SOLICIT: u8 = 135;
    /// ICMP echo request.
    pub const ECHO: u8 = 8;
    /// ICMPv6 echo request.
    pub const ECHO_V6: u8 = 128;

    /// Whether an ICMP type is an error about another packet (RFC 792).
    #[inline(always)]
    pub const fn is_error(kind: u8) -> bool {
        matches!(kind, 3 | 4 | 11 | 12)
    }

    /// Whether an ICMPv6 type is an error about another packet (RFC 4443, section 2.1).
    #[inline(always)]
    pub const fn is_error_v6(kind: u8) -> bool {
        kind >= 1 && kind <= 4
    }
}

/// Somebody asks who has an address. If it is one that is answered for, the rare path decides; whatever goes
/// wrong, the question goes on.
#[inline(always)]
fn solicited<F: Frame>(frame: F, control: &'static Control, ether: &Ether, asked: &Ip) -> (Outcome, bool) {
    if let Some(entry) = service::address(control, asked)
        && entry.flags & address_flags::ANSWER != 0
        && let Some(env) = port(frame, control)
    {
        let vlan = vlan::of_frame(env.port, ether.tag);
        let _ = detour(frame, Scratch::new(Slow::Answer, env.port_index, vlan));
    }
    UNTOUCHED
}

/// Goes on in a rare path. Returns only if there is no program for it.
#[inline(always)]
pub fn detour<F: Frame>(frame: F, note: Scratch) -> Outcome {
    if note.write().is_some() {
        // Constant where the note was made, so that the call is a direct one.
        frame.continue_at(note.slow);
    }
    Err(Reason::Internal)
}

/// A frame to a VIP.
#[inline(always)]
fn vip<F: Frame>(frame: F, packet: Packet, env: &Env, ether: &Ether, entry: &AddressEntry) -> Outcome {
    let vlan = vlan::of_frame(env.port, ether.tag);
    if !service::addressed(env.port, &ether.dst) {
        return Err(Reason::NotAddressed);
    }
    let network = if ether.kind == ethertype::IPV4 {
        parse::ipv4(frame, packet, ether.l3)
    } else {
        parse::ipv6(frame, packet, ether.l3)
    };
    let network = match network {
        Ok(network) => network,
        Err(reason) => return malformed(env, entry, vlan, reason),
    };
    if network.rare {
        return detour(frame, Scratch::new(Slow::Headers, env.port_index, vlan));
    }
    if network.protocol == protocol::ICMP && network.v4 || network.protocol == protocol::ICMPV6 && !network.v4
    {
        return message(frame, packet, env, entry, &network, vlan);
    }
    let transport = match parse::transport(packet, ether.l3, &network) {
        Ok(transport) => transport,
        Err(reason) => return malformed(env, entry, vlan, reason),
    };
    serve::serve(frame, env, entry, &View::new(ether, &network, &transport), vlan)
}

/// An ICMP message to a VIP: echo and solicitation may be answered, an error goes after its flow, anything else
/// goes on.
#[inline(always)]
fn message<F: Frame>(
    frame: F,
    packet: Packet,
    env: &Env,
    entry: &AddressEntry,
    network: &Network,
    vlan: u16,
) -> Outcome {
    let Some(kind) = packet.read::<u8>(network.l4) else {
        return malformed(env, entry, vlan, Reason::TruncatedL4);
    };
    let (echo, error) = if network.v4 {
        (kind == icmp::ECHO, icmp::is_error(kind))
    } else {
        (kind == icmp::ECHO_V6, icmp::is_error_v6(kind))
    };
    if error {
        return detour(frame, Scratch::new(Slow::Icmp, env.port_index, vlan));
    }
    let solicit = !network.v4 && kind == icmp::SOLICIT;
    if echo && entry.flags & address_flags::ECHO != 0 || solicit && entry.flags & address_flags::ANSWER != 0 {
        // The message is no service's: without the program it goes on.
        let _ = detour(frame, Scratch::new(Slow::Answer, env.port_index, vlan));
    }
    Err(Reason::NotAService)
}

/// A malformed packet to a VIP: dropped where the VIP has services, else none of ours.
#[inline(always)]
pub fn malformed(env: &Env, entry: &AddressEntry, vlan: u16, reason: Reason) -> Outcome {
    Err(if service::covers(entry, vlan, env.port.switch) { reason } else { Reason::NotAService })
}
