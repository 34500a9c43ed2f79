//! The steps of steering, in order: parse, service, flow, select, target state, rewrite, emit.
//!
//! `hot` takes them all for plain packets and leaves everything else to `whole`, in a program of its own.

pub mod back;
pub mod clock;
pub mod conflict;
pub mod emit;
pub mod env;
pub mod event;
pub mod flow;
pub mod hot;
pub mod leave;
pub mod live;
pub mod open;
pub mod pick;
pub mod rate;
pub mod serve;
pub mod service;
pub mod stats;
pub mod times;

use crate::maps::scratch::Scratch;
use crate::packet::cursor::Packet;
use crate::packet::frame::Frame;
use crate::packet::parse::{self, Ether, FAST_BYTES, Network, View, ethertype, protocol};
use crate::verdict::Action;
use env::Env;
use lbx_common::addr::Ip;
use lbx_common::control::Control;
use lbx_common::reason::Reason;
use lbx_common::service::{AddressEntry, address_flags};
use lbx_common::steer::slow::Slow;
use lbx_common::steer::vlan;
use open::Opened;

/// What a step hands on: an action, or the cause that ends the way.
pub type Outcome = Result<Action, Reason>;

/// A frame that is none of ours.
const UNTOUCHED: (Outcome, bool) = (Ok(Action::Pass), false);

/// Steers a frame of a port in every respect. `opened`: what became of its flow, if it was opened already.
#[inline(always)]
pub fn whole<F: Frame>(frame: F, env: &Env, opened: Opened) -> Outcome {
    let packet = reach(frame);
    let Some(ether) = parse::ether(frame, packet) else { return Ok(Action::Pass) };
    let Some(dst) = asked(packet, &ether) else { return Ok(Action::Pass) };
    match service::address(env.control, &dst) {
        Some(entry) if ether.kind == ethertype::ARP => Ok(solicited(frame, env, &ether, entry)),
        Some(entry) if entry.flags & address_flags::VIP != 0 => {
            vip(frame, packet, env, &ether, entry, opened)
        }
        // The program itself asks whether it is for the tunnels' port.
        Some(entry) if entry.flags & address_flags::TUNNEL != 0 => {
            detour(frame, Scratch::new(Slow::Decap, env.port_index, 0)).or(Ok(Action::Pass))
        }
        _ => Ok(other(frame, packet, env, &ether, &dst)),
    }
}

/// The packet, as far as the fast path looks: an skb may have it outside of its linear part.
#[inline(always)]
fn reach<F: Frame>(frame: F) -> Packet {
    let packet = frame.packet();
    if F::SKB && !packet.holds(FAST_BYTES as usize) {
        // What the driver left outside the linear part; shorter frames are as they are.
        let wanted = frame.length().min(FAST_BYTES);
        if packet.reach() < wanted as usize {
            frame.pull(wanted);
            return frame.packet();
        }
    }
    packet
}

/// The address the frame is about: where it goes to, or who is asked for.
#[inline(always)]
fn asked(packet: Packet, ether: &Ether) -> Option<Ip> {
    match ether.kind {
        ethertype::IPV4 => packet.read(ether.l3 + 16).map(Ip::v4),
        ethertype::IPV6 => packet.read(ether.l3 + 24).map(Ip::v6),
        ethertype::ARP => packet.read(ether.l3 + 24).map(Ip::v4),
        _ => None,
    }
}

/// The environment of the port the frame came in by; `None` if it is not one of ours.
#[inline(always)]
fn port<F: Frame>(frame: F, control: &'static Control) -> Option<Env> {
    let env = Env::with(control, frame.port_index()?)?;
    (env.port.ifindex != 0).then_some(env)
}

/// Whether an address is one that neighbours are solicited by: ff02::1:ffxx:xxxx (RFC 4291, section 2.7.1).
#[inline(always)]
fn is_solicited(dst: &Ip) -> bool {
    dst.0[0] == 0xff02_0000_u32.to_be() && dst.0[1] == 0 && dst.0[2] == 1_u32.to_be()
}

/// A frame to no VIP: it may ask for one (neighbour solicitation).
#[inline(always)]
fn other<F: Frame>(frame: F, packet: Packet, env: &Env, ether: &Ether, dst: &Ip) -> Action {
    // One question after the other: together, the compiler asks all at once, of registers that nothing is in.
    if ether.kind != ethertype::IPV6 || !is_solicited(dst) {
        return Action::Pass;
    }
    let next: Option<u8> = packet.read(ether.l3 + 6);
    let kind: Option<u8> = packet.read(ether.l3 + 40);
    if next != Some(protocol::ICMPV6) || kind != Some(icmp::SOLICIT) {
        return Action::Pass;
    }
    match packet.read::<[u32; 4]>(ether.l3 + 48).map(Ip::v6) {
        Some(about) => match service::address(env.control, &about) {
            Some(entry) => solicited(frame, env, ether, entry),
            None => Action::Pass,
        },
        None => Action::Pass,
    }
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
fn solicited<F: Frame>(frame: F, env: &Env, ether: &Ether, entry: &AddressEntry) -> Action {
    if entry.flags & address_flags::ANSWER != 0 {
        let vlan = vlan::of_frame(env.port, ether.tag);
        let _ = detour(frame, Scratch::new(Slow::Answer, env.port_index, vlan));
    }
    Action::Pass
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
fn vip<F: Frame>(
    frame: F,
    packet: Packet,
    env: &Env,
    ether: &Ether,
    entry: &AddressEntry,
    opened: Opened,
) -> Outcome {
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
    serve::serve(frame, env, entry, &View::new(ether, &network, &transport), vlan, opened)
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
    if !service::covers(entry, vlan, env.port.switch) {
        return Err(Reason::NotAService);
    }
    event::note(&Ip::UNSPECIFIED, &entry.addr, 0, 0);
    event::sample(env, reason, event::NONE, event::NONE, 0);
    Err(reason)
}
