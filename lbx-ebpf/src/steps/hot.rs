//! The hot path: a plain packet from the wire to its target, and nothing else.
//!
//! Plain is a packet of a known flow that changes nothing but the target's counters and the flow's age, to an
//! active target behind a redirect ([`plain`]); and the first packet of a flow to such a target. For anything
//! else a tail call goes on in the whole engine, which starts anew: up to there nothing has been changed, except
//! that a flow may have been opened, and then the note says what it was bound to. A packet that belongs to no
//! service ends here.

use super::env::Env;
use super::service::{self, Query};
use super::{Outcome, back, clock, detour, event, is_solicited, open, port, serve, stats};
use crate::maps::FLOWS;
use crate::maps::scratch::Scratch;
use crate::packet::cursor::Packet;
use crate::packet::frame::Frame;
use crate::packet::parse::{self, Ether, Network, Transport, View, ethertype, protocol};
use crate::rewrite::nat::{self, Side};
use crate::verdict::Action;
use core::ptr::{read_volatile, write_volatile};
use lbx_common::addr::Ip;
use lbx_common::control::{Control, flags};
use lbx_common::flow::{Bucket, FlowEntry, TargetWord, bucket_one, bucket_two, seal};
use lbx_common::key::{FlowKey, scope};
use lbx_common::limits::WAYS;
use lbx_common::port::flags as port_flags;
use lbx_common::reason::Reason;
use lbx_common::service::{AddressEntry, address_flags, flags as service_flags};
use lbx_common::steer::plain::{self, Rest};
use lbx_common::steer::slow::Slow;
use lbx_common::steer::vlan;
use lbx_common::target::{Forward, Target};

/// A frame that is none of ours.
const UNTOUCHED: (Outcome, bool) = (Ok(Action::Pass), false);

/// Steers a frame; `true` if only observing.
#[inline(always)]
pub fn steer<F: Frame>(frame: F) -> (Outcome, bool) {
    let Some(control) = Env::control() else { return UNTOUCHED };
    let packet = frame.packet();
    if F::SKB && packet.reach() < 64 && packet.reach() < frame.length() as usize {
        // The headers lie outside the linear part.
        return match port(frame, control) {
            Some(env) if control.flags & flags::BYPASS == 0 => (whole(frame, &env, TargetWord::NONE), false),
            _ => UNTOUCHED,
        };
    }
    let Some(ether) = parse::ether(frame, packet) else { return UNTOUCHED };
    match ether.kind {
        ethertype::IPV4 => {
            let Some(dst) = packet.read(ether.l3 + 16).map(Ip::v4) else { return UNTOUCHED };
            match service::address(control, &dst) {
                Some(entry) if entry.flags & address_flags::VIP != 0 => {
                    vip::<F, true>(frame, packet, control, &ether, entry)
                }
                _ => back::answer(frame, packet, control, &ether),
            }
        }
        ethertype::IPV6 => {
            let Some(dst) = packet.read(ether.l3 + 24).map(Ip::v6) else { return UNTOUCHED };
            match service::address(control, &dst) {
                Some(entry) if entry.flags & address_flags::VIP != 0 => {
                    vip::<F, false>(frame, packet, control, &ether, entry)
                }
                _ if is_solicited(&dst) => asked(frame, control),
                _ => back::answer(frame, packet, control, &ether),
            }
        }
        ethertype::ARP => {
            let Some(about) = packet.read(ether.l3 + 24).map(Ip::v4) else { return UNTOUCHED };
            match service::address(control, &about) {
                Some(_) => asked(frame, control),
                None => UNTOUCHED,
            }
        }
        _ => UNTOUCHED,
    }
}

/// Somebody may be asking for a VIP.
#[inline(always)]
fn asked<F: Frame>(frame: F, control: &'static Control) -> (Outcome, bool) {
    if control.flags & flags::BYPASS == 0
        && let Some(env) = port(frame, control)
    {
        let _ = whole(frame, &env, TargetWord::NONE);
    }
    UNTOUCHED
}

/// Goes on in the whole engine. Returns only if there is no program for it.
#[inline(always)]
fn whole<F: Frame>(frame: F, env: &Env, opened: TargetWord) -> Outcome {
    let mut note = Scratch::new(Slow::Whole, env.port_index, 0);
    note.target = opened;
    detour(frame, note)
}

/// What of a packet is needed to find its flow.
#[derive(Clone, Copy)]
struct Brief {
    /// The hash of its key.
    hash: u64,
    /// Bytes from the IP header on.
    ip_len: u32,
    /// Offset of the transport header.
    l4: usize,
    /// Source and destination port, as they lie in the packet.
    ports: u32,
    /// TCP rather than UDP.
    tcp: bool,
    /// TCP flags.
    tcp_flags: u8,
    /// Bytes of the transport header.
    l4_header: u32,
    /// IPv4.
    v4: bool,
}

/// A frame to a VIP, in a version of its own for each family.
#[inline(always)]
fn vip<F: Frame, const V4: bool>(
    frame: F,
    packet: Packet,
    control: &'static Control,
    ether: &Ether,
    entry: &AddressEntry,
) -> (Outcome, bool) {
    if control.flags & flags::BYPASS != 0 {
        return UNTOUCHED;
    }
    let Some(env) = port(frame, control) else { return UNTOUCHED };
    if env.observe || env.port.flags & (port_flags::VLAN_FILTERING | port_flags::SWITCH) != 0 {
        return (whole(frame, &env, TargetWord::NONE), env.observe);
    }
    if !service::addressed(env.port, &ether.dst) {
        return (Err(Reason::NotAddressed), false);
    }
    let network =
        if V4 { parse::ipv4(frame, packet, ether.l3) } else { parse::ipv6(frame, packet, ether.l3) };
    let brief = match network {
        Ok(network) => brief(packet, &env, ether, &network),
        Err(_) => None,
    };
    let outcome = match brief {
        Some(brief) => flow(frame, packet, &env, ether, entry, &brief),
        None => whole(frame, &env, TargetWord::NONE),
    };
    (outcome, false)
}

/// Reads the transport header and hashes the key, while the family is known.
#[inline(always)]
fn brief(packet: Packet, env: &Env, ether: &Ether, network: &Network) -> Option<Brief> {
    let tcp = network.protocol == protocol::TCP;
    if network.rare || !tcp && network.protocol != protocol::UDP {
        return None;
    }
    let transport = parse::transport(packet, ether.l3, network).ok()?;
    let key = FlowKey {
        src: network.src,
        dst: network.dst,
        ports: transport.ports,
        scope: scope(network.protocol, vlan::of_frame(env.port, ether.tag), env.port.switch),
    };
    let Transport { ports, tcp_flags, header } = transport;
    Some(Brief {
        hash: key.hash(&env.control.secret),
        ip_len: network.ip_len,
        l4: network.l4,
        ports,
        tcp,
        tcp_flags,
        l4_header: header,
        v4: network.v4,
    })
}

/// The flow of a plain packet, found or opened, and on to its target.
#[inline(always)]
fn flow<F: Frame>(
    frame: F,
    packet: Packet,
    env: &Env,
    ether: &Ether,
    entry: &AddressEntry,
    brief: &Brief,
) -> Outcome {
    let vlan = vlan::of_frame(env.port, ether.tag);
    let protocol = if brief.tcp { protocol::TCP } else { protocol::UDP };
    let dst_port = u16::from_be((brief.ports >> 16) as u16);
    let query = Query::new(protocol, false, vlan, env.port.switch, dst_port);
    let Some(index) = service::first_rules(entry, query) else {
        if entry.more_count != 0 {
            return whole(frame, env, TargetWord::NONE);
        }
        return Err(Reason::NotAService);
    };
    let service = service::service(index).ok_or(Reason::Internal)?;
    if service.flags & service_flags::ACTIVE == 0 {
        return Err(Reason::Suspended);
    }
    let mask = env.control.bucket_mask;
    let found = match probe(bucket_one(brief.hash, mask), brief.hash) {
        None => probe(bucket_two(brief.hash, mask), brief.hash),
        found => found,
    };
    let Some((at, rest)) = found else {
        return first(frame, packet, env, ether, entry, brief, index);
    };
    let word = rest.word();
    let Some(target) = open::target(word.target()) else { return Err(Reason::Internal) };
    if !rest.stays(brief.tcp, brief.tcp_flags) || !takes(frame, env, ether, target, word, brief) {
        return whole(frame, env, TargetWord::NONE);
    }
    let epoch = clock::epoch(env.control, clock::jiffies());
    if rest.epoch() != epoch {
        if env.port.flags & port_flags::LEARNING != 0 {
            // The bridge may have to be shown the client's MAC.
            return whole(frame, env, TargetWord::NONE);
        }
        // SAFETY: `at` is an entry within a value of the map; of two CPUs that store the epoch both store the same.
        unsafe { write_volatile(&raw mut (*at).epoch, epoch) };
    }
    send(frame, packet, ether, entry, target, word, brief)
}

/// The first packet of a flow.
#[inline(always)]
fn first<F: Frame>(
    frame: F,
    packet: Packet,
    env: &Env,
    ether: &Ether,
    entry: &AddressEntry,
    brief: &Brief,
    index: u32,
) -> Outcome {
    let protocol = if brief.tcp { protocol::TCP } else { protocol::UDP };
    let vlan = vlan::of_frame(env.port, ether.tag);
    let key = || FlowKey {
        src: if brief.v4 {
            packet.read(ether.l3 + 12).map(Ip::v4)
        } else {
            packet.read(ether.l3 + 8).map(Ip::v6)
        }
        .unwrap_or_default(),
        dst: entry.addr,
        ports: brief.ports,
        scope: scope(protocol, vlan, env.port.switch),
    };
    let word = match open::open(key, brief.hash, index, env.port_index, protocol, brief.tcp_flags) {
        Ok(word) => word,
        Err(reason) => {
            let service = service::service(index).ok_or(Reason::Internal)?;
            let src = if brief.v4 {
                packet.read(ether.l3 + 12).map(Ip::v4)
            } else {
                packet.read(ether.l3 + 8).map(Ip::v6)
            };
            let scope = scope(protocol, vlan, env.port.switch);
            event::note(&src.unwrap_or_default(), &entry.addr, brief.ports, scope);
            event::sample(env, reason, index, event::NONE, brief.tcp_flags);
            serve::ended(frame, env, service, index, vlan, reason);
            return Err(reason);
        }
    };
    let target = open::target(word.target()).ok_or(Reason::Internal)?;
    if env.port.flags & port_flags::LEARNING != 0 || !takes(frame, env, ether, target, word, brief) {
        return whole(frame, env, word);
    }
    send(frame, packet, ether, entry, target, word, brief)
}

/// Looks for the flow in a bucket: its entry, and what is in it.
#[inline(always)]
fn probe(index: u32, hash: u64) -> Option<(*mut FlowEntry, Rest)> {
    let bucket: *mut Bucket = FLOWS.get_ptr_mut(index)?;
    let mut way = 0;
    while way < WAYS as usize {
        // SAFETY: way < 4 lies within the bucket, a value of the map; an entry is two aligned words. Other CPUs
        // write it at the same time: each word is read once, and a pair of two writes does not match the seal.
        let (entry, sealed, rest) = unsafe {
            let entry = &raw mut (*bucket).ways[way];
            let words = entry.cast::<u64>();
            (entry, read_volatile(words), Rest(read_volatile(words.add(1))))
        };
        if sealed == seal(hash, rest.word()) {
            return Some((entry, rest));
        }
        way += 1;
    }
    None
}

/// Whether the target takes the packet without further question.
#[inline(always)]
fn takes<F: Frame>(
    frame: F,
    env: &Env,
    ether: &Ether,
    target: &Target,
    word: TargetWord,
    brief: &Brief,
) -> bool {
    // SAFETY: an aligned word of the target; read once, it is all that decides.
    let state = unsafe { read_volatile(&raw const target.state) };
    let mut bytes = brief.ip_len;
    if F::SKB && frame.segment_size() != 0 {
        bytes = (brief.l4 - ether.l3) as u32 + brief.l4_header + frame.segment_size();
    }
    plain::takes(target, word, state, env.port_index, ether.tag, bytes)
        && target.forward <= Forward::Nat as u8
        && (target.forward == Forward::Dsr as u8
            || if brief.v4 { target.addr4 != 0 } else { !target.addr6.is_unspecified() })
}

/// Counts, rewrites, redirects.
#[inline(always)]
fn send<F: Frame>(
    frame: F,
    packet: Packet,
    ether: &Ether,
    entry: &AddressEntry,
    target: &Target,
    word: TargetWord,
    brief: &Brief,
) -> Outcome {
    let bytes = frame.length();
    stats::target(word.target(), |s| {
        s.packets += 1;
        s.bytes += bytes as u64;
    });
    let mut packet = packet;
    if target.forward == Forward::Nat as u8 {
        let view = View {
            src: Ip::UNSPECIFIED,
            dst: entry.addr,
            ports: brief.ports,
            protocol: if brief.tcp { protocol::TCP } else { protocol::UDP },
            tcp_flags: brief.tcp_flags,
            v4: brief.v4,
            has_l4: true,
            tag: ether.tag,
            l3: ether.l3 as u32,
            l4: brief.l4 as u32,
            l4_header: brief.l4_header,
            ip_len: brief.ip_len,
        };
        let address = if brief.v4 { Ip::v4(target.addr4) } else { target.addr6 };
        let port = if target.port == 0 { view.dst_port() } else { target.port };
        nat::translate(frame, &view, Side::Destination, &address, port).ok_or(Reason::Internal)?;
        packet = frame.packet();
    }
    packet.write(0, target.mac).ok_or(Reason::Internal)?;
    frame.redirect(target.port_index as u32, target.ifindex)
}
