//! A packet to this host's end of the tunnels: if it is a peer's, the frame inside goes on as if it had come in by the
//! uplink itself.
//!
//! The frame inside is addressed to a VM's MAC, so that it has been steered, and nothing here steers it again: it goes
//! straight into the VM's port, as its service's own frames do, or the bridge delivers it, with filters and VLANs in force.

use super::enter::SlowPath;
use crate::maps::scratch::Scratch;
use crate::maps::{TUNNEL_PEERS, TUNNEL_VMS};
use crate::packet::cursor::Packet;
use crate::packet::frame::{Frame, Room};
use crate::packet::parse::{self, Ether, ethertype};
use crate::steps::env::Env;
use crate::steps::{Outcome, service};
use crate::verdict::{Action, count};
use lbx_common::addr::{Ip, Mac};
use lbx_common::algo::checksum;
use lbx_common::reason::Reason;
use lbx_common::tunnel::{self, ETHER, Ecn, Seen, UDP_VXLAN, VmKey, VmPort};

/// Bytes that are looked at: Ethernet with a tag, IPv6, UDP, VXLAN, Ethernet with a tag, IPv6.
const REACH: u32 = 18 + 40 + 16 + 18 + 40;

/// A packet to this host's end of the tunnels.
pub struct Decap;

impl SlowPath for Decap {
    #[inline(always)]
    fn run<F: Frame>(frame: F, env: &Env, _note: &Scratch) -> Outcome {
        if F::SKB {
            frame.pull(frame.length().min(REACH));
        }
        let packet = frame.packet();
        let Some(ether) = parse::ether(frame, packet) else { return Ok(Action::Pass) };
        if !service::addressed(env.port, &ether.dst) {
            return Ok(Action::Pass);
        }
        if ether.l3 == ETHER {
            outer::<F, 14>(frame, packet, env, &ether)
        } else {
            outer::<F, 18>(frame, packet, env, &ether)
        }
    }
}

/// By the family of the outer header.
#[inline(always)]
fn outer<F: Frame, const L3: usize>(frame: F, packet: Packet, env: &Env, ether: &Ether) -> Outcome {
    let len = frame.length().saturating_sub(L3 as u32);
    if ether.kind == ethertype::IPV4 {
        let Some(header) = packet.read::<[u8; 20]>(L3) else { return Ok(Action::Pass) };
        let Some(headers) = packet.read::<[u8; UDP_VXLAN]>(L3 + 20) else { return Ok(Action::Pass) };
        if !tunnel::may_be_v4(&header) || !tunnel::is_for(env.control.tunnel, &headers) {
            return Ok(Action::Pass);
        }
        let word =
            |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        from_peer(&Ip::v4(word(12)))?;
        let seen = tunnel::seen_v4(&header, len).ok_or(Reason::TunnelMalformed)?;
        tunnel::check(env.control.tunnel, &seen, &headers)?;
        inside(frame, packet, env, ether, L3 + 20 + UDP_VXLAN, &seen)
    } else {
        let Some(head) = packet.read::<[u8; 8]>(L3) else { return Ok(Action::Pass) };
        let Some(src) = packet.read::<[u32; 4]>(L3 + 8) else { return Ok(Action::Pass) };
        let Some(headers) = packet.read::<[u8; UDP_VXLAN]>(L3 + 40) else { return Ok(Action::Pass) };
        if !tunnel::may_be_v6(head) || !tunnel::is_for(env.control.tunnel, &headers) {
            return Ok(Action::Pass);
        }
        from_peer(&Ip::v6(src))?;
        let seen = tunnel::seen_v6(head, src, len).ok_or(Reason::TunnelMalformed)?;
        tunnel::check(env.control.tunnel, &seen, &headers)?;
        inside(frame, packet, env, ether, L3 + 40 + UDP_VXLAN, &seen)
    }
}

/// Whether the sender is listed.
#[inline(always)]
fn from_peer(src: &Ip) -> Result<(), Reason> {
    // SAFETY: a key on the stack; only whether there is a value counts.
    match unsafe { TUNNEL_PEERS.get(src) } {
        Some(_) => Ok(()),
        None => Err(Reason::TunnelNotAPeer),
    }
}

/// The frame inside, which begins at `at`.
#[inline(always)]
fn inside<F: Frame>(frame: F, packet: Packet, env: &Env, ether: &Ether, at: usize, seen: &Seen) -> Outcome {
    let macs: [u32; 3] = packet.read(at).ok_or(Reason::TunnelMalformed)?;
    let (first, second) = (macs[0].to_ne_bytes(), macs[1].to_ne_bytes());
    let to = [first[0], first[1], first[2], first[3], second[0], second[1]];
    let outside: u16 = packet.read(at + 12).ok_or(Reason::TunnelMalformed)?;
    if outside == ethertype::VLAN {
        let tci: u16 = packet.read(at + 14).ok_or(Reason::TunnelMalformed)?;
        let kind: u16 = packet.read(at + 16).ok_or(Reason::TunnelMalformed)?;
        let head: [u8; 2] = packet.read(at + 18).ok_or(Reason::TunnelMalformed)?;
        // Which tag it needs in the port, if any, is the bridge's business.
        for_vm(env, to, kind)?;
        congestion(frame, (at + 18) as u32, kind == ethertype::IPV4, head, seen.ecn)?;
        let inner = Inner { macs, kind, vid: u16::from_be(tci) & 0xfff, at: at as u32, ether: 18 };
        unwrap(frame, ether, inner)?;
        Ok(Action::Pass)
    } else {
        let head: [u8; 2] = packet.read(at + 14).ok_or(Reason::TunnelMalformed)?;
        let vm = for_vm(env, to, outside)?;
        congestion(frame, (at + 14) as u32, outside == ethertype::IPV4, head, seen.ecn)?;
        unwrap(frame, ether, Inner { macs, kind: outside, vid: 0, at: at as u32, ether: 14 })?;
        match vm.port() {
            Some((ifindex, port_index)) => frame.redirect(port_index, ifindex),
            None => Ok(Action::Pass),
        }
    }
}

/// Where a frame inside goes, if it is an IP packet to a VM here, and may be touched.
#[inline(always)]
fn for_vm(env: &Env, mac: Mac, kind: u16) -> Result<VmPort, Reason> {
    if kind != ethertype::IPV4 && kind != ethertype::IPV6 {
        return Err(Reason::TunnelMalformed);
    }
    let key = VmKey { mac, switch: env.port.switch };
    // SAFETY: a key on the stack; the value is an aligned word, copied at once.
    let vm = unsafe { TUNNEL_VMS.get(key).copied() }.ok_or(Reason::TunnelNoVm)?;
    if env.observe { Err(Reason::Observed) } else { Ok(vm) }
}

/// Tells the packet inside, at `l3`, of congestion on the way (RFC 6040).
#[inline(always)]
fn congestion<F: Frame>(frame: F, l3: u32, v4: bool, head: [u8; 2], outer: u8) -> Result<(), Reason> {
    let ecn = match tunnel::ecn(outer, tunnel::ecn_of(v4, head)) {
        Ecn::Keep => return Ok(()),
        Ecn::Drop => return Err(Reason::TunnelCongested),
        Ecn::Mark => 3,
        Ecn::EctOne => 1,
    };
    let new = tunnel::with_ecn(v4, head, ecn);
    if v4 {
        let old: u16 = frame.load(l3 + 10).ok_or(Reason::TunnelMalformed)?;
        let sum = checksum::replace16(old, u16::from_ne_bytes(head), u16::from_ne_bytes(new));
        frame.store(l3 + 10, &sum).ok_or(Reason::Internal)?;
    }
    frame.store(l3, &new).ok_or(Reason::Internal)
}

/// What is kept of the frame inside.
struct Inner {
    /// Destination and source.
    macs: [u32; 3],
    /// EtherType behind its tag.
    kind: u16,
    /// VLAN of its tag; 0 none.
    vid: u16,
    /// Where it begins.
    at: u32,
    /// Bytes of its Ethernet header.
    ether: u32,
}

/// Takes off everything outside.
#[inline(always)]
fn unwrap<F: Frame>(frame: F, ether: &Ether, inner: Inner) -> Result<(), Reason> {
    let v4 = inner.kind == ethertype::IPV4;
    if F::SKB {
        if ether.tag.is_some() {
            frame.pop_tag().ok_or(Reason::TunnelRoom)?;
        }
        let outside = inner.at - ether.l3 as u32;
        let room = Room { bytes: outside + inner.ether, ether: inner.ether, v4 };
        frame.close_room(room).ok_or(Reason::TunnelRoom)?;
        let packet = frame.packet();
        packet.write(0, inner.macs).ok_or(Reason::Internal)?;
        packet.write(12, inner.kind).ok_or(Reason::Internal)?;
        if inner.vid != 0 {
            frame.push_tag(inner.vid).ok_or(Reason::Internal)?;
        }
    } else {
        let room = Room { bytes: inner.at, ether: inner.ether, v4 };
        frame.close_room(room).ok_or(Reason::TunnelRoom)?;
    }
    count(Reason::TunnelReceived);
    Ok(())
}
