//! The hot path: a plain packet from the wire to its target, and nothing else.
//!
//! Plain is a packet of a known flow that changes nothing but the target's counters and the flow's age, to an
//! active target behind a redirect ([`plain`]); and the first packet of a flow to such a target. For anything
//! else a tail call goes on in the whole engine, which starts anew: up to there nothing has been changed, except
//! that a flow may have been opened, and then the note says what it was bound to. A packet that belongs to no
//! service ends here.
//!
//! What is read of the packet lies at constant offsets, so there is a copy of the way for each family, with a tag and
//! without. Instructions are what counts: it ends where it is decided, in the verdict itself.

mod brief;
mod send;

use super::env::Env;
use super::open::Opened;
use super::service::{self, Query};
use super::{back, clock, detour, is_solicited, open};
use crate::maps::scratch::Scratch;
use crate::maps::{FLOWS, PORTS};
use crate::packet::cursor::{Packet, Span};
use crate::packet::frame::Frame;
use crate::packet::parse::{Ether, ethertype, protocol};
use crate::verdict::Action;
use brief::Brief;
use core::ptr::{read_volatile, write_volatile};
use lbx_common::addr::Ip;
use lbx_common::control::{Control, flags};
use lbx_common::flow::{Bucket, FlowEntry, TargetWord, bucket_one, bucket_two};
use lbx_common::limits::WAYS;
use lbx_common::port::{Port, flags as port_flags};
use lbx_common::reason::Reason;
use lbx_common::service::{AddressEntry, address_flags};
use lbx_common::steer::plain;
use lbx_common::steer::slow::Slow;
use lbx_common::steer::vlan::Tag;

/// Bytes of an Ethernet header with a tag: no packet of interest is shorter, tag or not.
const ETHER: usize = 18;
/// Offset of the IP header without a tag.
const UNTAGGED: usize = 14;
/// Offset of the IP header behind a tag.
const TAGGED: usize = 18;

/// Steers a frame.
#[inline(always)]
pub fn steer<F: Frame>(frame: F) -> F::Code {
    let packet = frame.packet();
    if F::SKB && packet.reach() < 64 && packet.reach() < frame.length() as usize {
        // The headers lie outside the linear part: the whole engine pulls them in.
        return asked(frame);
    }
    let Some(ether) = packet.span::<ETHER>(0) else { return pass::<F>() };
    let kind = ether.u16::<12>();
    let beside = frame.tag_beside();
    if kind == ethertype::VLAN || kind == ethertype::SERVICE_VLAN {
        if beside.is_some() {
            return pass::<F>();
        }
        let tag = Tag::new(u16::from_be(ether.u16::<14>()));
        return network::<F, TAGGED>(frame, packet, ether, ether.u16::<16>(), tag);
    }
    network::<F, UNTAGGED>(frame, packet, ether, kind, beside)
}

/// It goes on as it came.
#[inline(always)]
fn pass<F: Frame>() -> F::Code {
    F::verdict(Ok(Action::Pass), false)
}

/// By what the frame carries.
#[inline(always)]
fn network<F: Frame, const L3: usize>(
    frame: F,
    packet: Packet,
    ether: Span<ETHER>,
    kind: u16,
    tag: Tag,
) -> F::Code {
    match kind {
        ethertype::IPV4 => {
            let Some(ip) = packet.span::<20>(L3) else { return pass::<F>() };
            let dst = Ip::v4(ip.u32::<16>());
            if service::is_absent(&dst) && service::is_absent(&Ip::v4(ip.u32::<12>())) {
                return pass::<F>();
            }
            let Some(control) = Env::control() else { return pass::<F>() };
            match service::address_by_halves(control, &dst) {
                Some(entry) if entry.flags & address_flags::VIP != 0 => {
                    vip::<F, L3, true>(frame, packet, control, ether, entry, tag)
                }
                Some(entry) if entry.flags & address_flags::TUNNEL != 0 => {
                    tunnel::<F, L3, true>(frame, packet, control)
                }
                _ => answer::<F, L3>(frame, packet, control, ether, kind, tag),
            }
        }
        ethertype::IPV6 => {
            let Some(ip) = packet.span::<40>(L3) else { return pass::<F>() };
            let dst = Ip::v6([ip.u32::<24>(), ip.u32::<28>(), ip.u32::<32>(), ip.u32::<36>()]);
            let Some(control) = Env::control() else { return pass::<F>() };
            match service::address_by_halves(control, &dst) {
                Some(entry) if entry.flags & address_flags::VIP != 0 => {
                    vip::<F, L3, false>(frame, packet, control, ether, entry, tag)
                }
                Some(entry) if entry.flags & address_flags::TUNNEL != 0 => {
                    tunnel::<F, L3, false>(frame, packet, control)
                }
                _ if is_solicited(&dst) => asked(frame),
                _ => answer::<F, L3>(frame, packet, control, ether, kind, tag),
            }
        }
        ethertype::ARP => match packet.span::<28>(L3) {
            Some(arp) if !service::is_absent(&Ip::v4(arp.u32::<24>())) => asked(frame),
            _ => pass::<F>(),
        },
        _ => pass::<F>(),
    }
}

/// A frame to no VIP may be the answer of a nat target.
#[inline(always)]
fn answer<F: Frame, const L3: usize>(
    frame: F,
    packet: Packet,
    control: &'static Control,
    ether: Span<ETHER>,
    kind: u16,
    tag: Tag,
) -> F::Code {
    let mut dst = [0; 6];
    dst[..4].copy_from_slice(&ether.u32::<0>().to_ne_bytes());
    dst[4..].copy_from_slice(&ether.u16::<4>().to_ne_bytes());
    let ether = Ether { dst, kind, l3: L3, tag };
    let (outcome, observe) = back::answer(frame, packet, control, &ether);
    F::verdict(outcome, observe)
}

/// Somebody may be asking for a VIP, or the frame cannot be looked at here: the whole engine sees to it.
#[inline(always)]
fn asked<F: Frame>(frame: F) -> F::Code {
    if let Some(control) = Env::control()
        && control.flags & flags::BYPASS == 0
        && let Some(index) = frame.port_index()
    {
        let _ = detour(frame, note(index, Opened::NOT));
    }
    pass::<F>()
}

/// A packet to this host's end of the tunnels: what is for the tunnels' port goes on in a program of its own.
#[inline(always)]
fn tunnel<F: Frame, const L3: usize, const V4: bool>(
    frame: F,
    packet: Packet,
    control: &'static Control,
) -> F::Code {
    let (kind, port) = if V4 {
        let Some(ip) = packet.span::<24>(L3) else { return pass::<F>() };
        (ip.u8::<9>(), ip.u16::<22>())
    } else {
        let Some(ip) = packet.span::<44>(L3) else { return pass::<F>() };
        (ip.u8::<6>(), ip.u16::<42>())
    };
    if kind == protocol::UDP
        && control.tunnel.is_port(u16::from_be(port))
        && control.flags & flags::BYPASS == 0
        && let Some(index) = frame.port_index()
    {
        let _ = detour(frame, Scratch::new(Slow::Decap, index, 0));
    }
    pass::<F>()
}

/// Tells the whole engine what it is about.
#[inline(always)]
fn note(port_index: u32, opened: Opened) -> Scratch {
    let mut note = Scratch::new(Slow::Whole, port_index, 0);
    (note.reason, note.target) = (opened.why, opened.word);
    note
}

/// A packet of a service goes on in the whole engine.
#[inline(always)]
fn whole<F: Frame>(frame: F, port_index: u32, opened: Opened) -> F::Code {
    let outcome = detour(frame, note(port_index, opened));
    F::verdict(outcome, false)
}

/// A packet to a VIP, and what is known of it. The port does not filter VLANs: the frame's is that of its tag.
#[derive(Clone, Copy)]
struct Plain<'a> {
    control: &'static Control,
    port: &'static Port,
    port_index: u32,
    entry: &'a AddressEntry,
    tag: Tag,
}

/// A frame to a VIP.
#[inline(always)]
fn vip<F: Frame, const L3: usize, const V4: bool>(
    frame: F,
    packet: Packet,
    control: &'static Control,
    ether: Span<ETHER>,
    entry: &AddressEntry,
    tag: Tag,
) -> F::Code {
    const UNUSUAL: u16 = port_flags::OBSERVE | port_flags::VLAN_FILTERING | port_flags::SWITCH;
    if control.flags & flags::BYPASS != 0 {
        return pass::<F>();
    }
    let Some(port_index) = frame.port_index() else { return pass::<F>() };
    let Some(port) = PORTS.get_ptr(port_index) else { return pass::<F>() };
    // SAFETY: a non-null value pointer of an array map; user space stores single aligned words of it.
    let port: &'static Port = unsafe { &*port };
    if control.flags & flags::OBSERVE != 0
        || port.flags & UNUSUAL != 0
        || entry.flags & address_flags::SUSPENDED != 0
    {
        return whole(frame, port_index, Opened::NOT);
    }
    if !port.accepts(ether.u32::<0>() as u64 | (ether.u16::<4>() as u64) << 32) {
        return F::verdict(Err(Reason::NotAddressed), false);
    }
    let plain = Plain { control, port, port_index, entry, tag };
    match brief::read::<F, L3, V4>(frame, packet, &plain) {
        Some(brief) => flow::<F, L3, V4>(frame, ether, &plain, &brief),
        None => whole(frame, port_index, Opened::NOT),
    }
}

/// The flow of a plain packet, found or opened, and on to its target.
#[inline(always)]
fn flow<F: Frame, const L3: usize, const V4: bool>(
    frame: F,
    ether: Span<ETHER>,
    plain: &Plain<'_>,
    brief: &Brief,
) -> F::Code {
    let entry = plain.entry;
    let vlan = plain.tag.vid();
    let port = u16::from_be((brief.ports >> 16) as u16);
    let query = Query::new(brief.protocol(), false, vlan, plain.port.switch, port);
    let Some(index) = service::first_rules(entry, query) else {
        if entry.more_count != 0 {
            return whole(frame, plain.port_index, Opened::NOT);
        }
        return F::verdict(Err(Reason::NotAService), false);
    };
    let mask = plain.control.bucket_mask;
    let found = match probe(bucket_one(brief.hash, mask), brief.hash) {
        None => probe(bucket_two(brief.hash, mask), brief.hash),
        found => found,
    };
    let Some((at, word)) = found else {
        return first::<F, L3, V4>(frame, ether, plain, brief, index);
    };
    // SAFETY: `at` is an entry within a value of the map, whose last four bytes, epoch and flags, are one aligned word.
    let age = plain::Age(unsafe { read_volatile(at.cast::<u32>().add(3)) });
    let Some(target) = open::target(word.target()) else { return F::verdict(Err(Reason::Internal), false) };
    let facts = send::facts(target);
    if !age.stays(brief.tcp, brief.tcp_flags)
        || !facts.takes(word, plain.port_index, plain.tag, brief.largest::<F, V4>(frame))
    {
        return whole(frame, plain.port_index, Opened::NOT);
    }
    let epoch = clock::epoch(plain.control, clock::jiffies());
    if age.epoch() != epoch {
        if plain.port.flags & port_flags::LEARNING != 0 {
            // The bridge may have to be shown the client's MAC.
            return whole(frame, plain.port_index, Opened::NOT);
        }
        // SAFETY: as above; of two CPUs that store the epoch both store the same.
        unsafe { write_volatile(&raw mut (*at).epoch, epoch) };
    }
    send::send::<F, L3, V4>(frame, ether, plain, brief, target, facts, word)
}

/// The first packet of a flow.
#[inline(always)]
fn first<F: Frame, const L3: usize, const V4: bool>(
    frame: F,
    ether: Span<ETHER>,
    plain: &Plain<'_>,
    brief: &Brief,
    index: u32,
) -> F::Code {
    let opened = open::ask(brief.hash, index, plain.port_index, brief.protocol(), brief.tcp_flags);
    if opened.why != Opened::NOT.why {
        return whole(frame, plain.port_index, opened);
    }
    let word = opened.word;
    let Some(target) = open::target(word.target()) else { return F::verdict(Err(Reason::Internal), false) };
    let facts = send::facts(target);
    if plain.port.flags & port_flags::LEARNING != 0
        // Another flow may have the same translation: that takes the whole key.
        || facts.is_nat()
        || !facts.takes(word, plain.port_index, plain.tag, brief.largest::<F, V4>(frame))
    {
        return whole(frame, plain.port_index, opened);
    }
    send::send::<F, L3, V4>(frame, ether, plain, brief, target, facts, word)
}

/// Looks for the flow in a bucket: its entry, and what it is bound to.
#[inline(always)]
fn probe(index: u32, hash: u64) -> Option<(*mut FlowEntry, TargetWord)> {
    let bucket: *mut Bucket = FLOWS.get_ptr_mut(index)?;
    let mut way = 0;
    while way < WAYS as usize {
        // SAFETY: way < 4 lies within the bucket, a value of the map. Other CPUs write it at the same time: each
        // field is read once, and a pair of two writes does not match the seal.
        let (entry, sealed, word) = unsafe {
            let entry = &raw mut (*bucket).ways[way];
            (entry, read_volatile(&raw const (*entry).seal), read_volatile(&raw const (*entry).target))
        };
        // The seal without the hash is the word: `seal(hash, word) == sealed`, solved for the word.
        if sealed ^ hash == word.0 as u64 {
            return Some((entry, word));
        }
        way += 1;
    }
    None
}
