//! Response times: of the flows that are timed, requests are noted and answers end them. Only for these is the clock
//! read.

use super::env::Env;
use super::open::target;
use super::serve::flow_key;
use crate::maps::{RESPONSES, STAMPS};
use crate::packet::cursor::Packet;
use crate::packet::parse::{Ether, View, ethertype, protocol};
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use core::ptr::{read_volatile, write_volatile};
use lbx_common::control::Control;
use lbx_common::flow::TargetWord;
use lbx_common::response::{
    BUCKETS, Sign, Stamp, bucket, inward, is_sampled, outward, place, smooth, turned,
};
use lbx_common::target::Deliver;

/// Whether the flow with this client and these ports is timed.
#[inline(always)]
pub fn is_timed(control: &Control, client: u32, ports: u32) -> bool {
    is_sampled(control.sample_key, control.sampled_below, client, ports)
}

/// Whether a frame from a VIP may be an answer of a timed flow: by the plain IPv4 or IPv6 header it is read by.
#[inline(always)]
pub fn may_answer(control: &Control, packet: Packet, ether: &Ether) -> bool {
    let (client, ports, next) = if ether.kind == ethertype::IPV4 { (16, 20, 9) } else { (36, 40, 6) };
    let (Some(client), Some(ports)) =
        (packet.read::<u32>(ether.l3 + client), packet.read::<u32>(ether.l3 + ports))
    else {
        return false;
    };
    if !is_timed(control, client, turned(ports)) {
        return false;
    }
    let (first, next): (Option<u8>, Option<u8>) = (packet.read(ether.l3), packet.read(ether.l3 + next));
    let fragment: Option<u16> =
        if ether.kind == ethertype::IPV4 { packet.read(ether.l3 + 6) } else { Some(0) };
    (first == Some(0x45) || ether.kind != ethertype::IPV4)
        && fragment.is_some_and(|bits| bits & 0x3fff_u16.to_be() == 0)
        && (next == Some(protocol::TCP) || next == Some(protocol::UDP))
}

/// Bytes behind the headers.
#[inline(always)]
fn payload(view: &View) -> u32 {
    // The headers are within the packet.
    view.ip_len.wrapping_sub(view.l4 - view.l3 + view.l4_header)
}

/// A packet on its way to a target.
#[inline(always)]
pub fn inbound(env: &Env, view: &View, hash: u64, word: TargetWord) {
    // One branch: the verifier walks what comes after it once for each way.
    if is_timed(env.control, view.src.0[3], view.ports) {
        let what = (view.tcp_flags as u32) | (view.protocol as u32) << 8 | (env.observe as u32) << 16;
        lbx_inbound(hash, word.0, what, payload(view));
    }
}

/// The same: `what` has the TCP flags (bits 0-7), the protocol (8-15), and whether lbx only observes (16).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lbx_inbound(hash: u64, word: u32, what: u32, bytes: u32) -> u32 {
    let word = TargetWord(word);
    let Some(target) = target(word.target()) else { return 0 };
    if what >> 16 != 0 {
        return 0;
    }
    let remote = target.deliver == Deliver::Uplink as u8;
    match inward(remote, (what >> 8) as u8 == protocol::TCP, what as u8, bytes != 0) {
        Sign::Asks => asks(hash, word),
        Sign::Answers => answers(hash),
        Sign::Nothing => 0,
    }
}

/// A packet from a VIP: of a target that owns it.
#[inline(always)]
pub fn from_vip(env: &Env, view: &View, vlan: u16) {
    if let Sign::Answers = outward(view.protocol == protocol::TCP, payload(view) != 0) {
        let turned = View { src: view.dst, dst: view.src, ports: turned(view.ports), ..*view };
        lbx_answers(flow_key(env, &turned, vlan).hash(&env.control.secret));
    }
}

/// A packet of a nat target, of a flow with this hash that is timed.
#[inline(always)]
pub fn from_target(view: &View, hash: u64) {
    if let Sign::Answers = outward(view.protocol == protocol::TCP, payload(view) != 0) {
        lbx_answers(hash);
    }
}

/// Nanoseconds since boot.
#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_ktime_get_ns() }
}

/// Notes a request, unless one of the flow is under way.
#[inline(always)]
fn asks(hash: u64, word: TargetWord) -> u32 {
    let Some(at) = STAMPS.get_ptr_mut(place(hash)) else { return 0 };
    let now = now();
    // SAFETY: a non-null value pointer of an array map. Other CPUs store at the same time: what is torn fits no flow.
    unsafe {
        if (*at).age(hash, now).is_none() {
            let stamp = Stamp::new(hash, now, word);
            write_volatile(&raw mut (*at).seal, stamp.seal);
            write_volatile(&raw mut (*at).at, stamp.at);
            write_volatile(&raw mut (*at).target, stamp.target);
        }
    }
    1
}

/// Ends the request that is under way, if there is one, and counts how long it took.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lbx_answers(hash: u64) -> u32 {
    answers(hash)
}

#[inline(always)]
fn answers(hash: u64) -> u32 {
    let Some(at) = STAMPS.get_ptr_mut(place(hash)) else { return 0 };
    // SAFETY: a non-null value pointer of an array map, read as a copy of aligned words that are checked.
    let stamp = unsafe { *at };
    // Most answers are more than one packet: the clock is read for the first.
    if stamp.at == 0 {
        return 0;
    }
    let Some(time) = stamp.age(hash, now()) else { return 0 };
    // SAFETY: as above; without a time it is no request.
    unsafe { write_volatile(&raw mut (*at).at, 0) };
    match target(stamp.target.target()) {
        Some(target) if target.generation == stamp.target.generation() => {}
        _ => return 0,
    }
    let Some(at) = RESPONSES.get_ptr_mut(stamp.target.target()) else { return 0 };
    // SAFETY: a non-null value pointer of an array map. Of two CPUs that count at once one may be lost: these are
    // samples.
    unsafe {
        let n = bucket(time) as usize & (BUCKETS - 1);
        let counted = &raw mut (*at).buckets[n];
        write_volatile(counted, read_volatile(counted) + 1);
        write_volatile(&raw mut (*at).sum, read_volatile(&raw const (*at).sum) + time);
        let smoothed = smooth(read_volatile(&raw const (*at).smoothed), time);
        write_volatile(&raw mut (*at).smoothed, smoothed);
        // Last: whoever sees the count sees the rest.
        write_volatile(&raw mut (*at).count, read_volatile(&raw const (*at).count) + 1);
    }
    1
}
