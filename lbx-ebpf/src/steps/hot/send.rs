//! A plain packet is counted, rewritten and sent.

use super::brief::{Brief, ip_header};
use super::{ETHER, Plain};
use crate::packet::cursor::Span;
use crate::packet::frame::Frame;
use crate::packet::parse::View;
use crate::rewrite::nat::{self, Side};
use crate::steps::stats;
use core::ptr::read_volatile;
use lbx_common::addr::Ip;
use lbx_common::flow::TargetWord;
use lbx_common::reason::Reason;
use lbx_common::steer::plain::Facts;
use lbx_common::target::Target;

/// What decides about a target, each word read once.
#[inline(always)]
pub(super) fn facts(target: &'static Target) -> Facts {
    let words = core::ptr::from_ref(target).cast::<u64>();
    // SAFETY: a target is eight aligned words, plain old data; user space stores single aligned fields.
    unsafe {
        Facts {
            state: read_volatile(words),
            place: read_volatile(words.add(6)),
            way: read_volatile(words.add(7)),
        }
    }
}

/// Counts, rewrites, redirects.
#[inline(always)]
pub(super) fn send<F: Frame, const L3: usize, const V4: bool>(
    frame: F,
    ether: Span<ETHER>,
    plain: &Plain<'_>,
    brief: &Brief,
    target: &'static Target,
    facts: Facts,
    word: TargetWord,
) -> F::Code {
    let nat = facts.is_nat();
    let address = if V4 { Ip::v4(target.addr4) } else { target.addr6 };
    if nat && (V4 && target.addr4 == 0 || !V4 && address.is_unspecified()) {
        return F::verdict(Err(Reason::NatNoAddress), false);
    }
    let bytes = frame.bytes();
    stats::target(word.target(), |s| {
        s.packets += 1;
        s.bytes += bytes;
    });
    if nat {
        let view = View {
            src: Ip::UNSPECIFIED,
            dst: plain.entry.addr,
            ports: brief.ports,
            protocol: brief.protocol(),
            tcp_flags: brief.tcp_flags,
            v4: V4,
            has_l4: true,
            tag: plain.tag,
            l3: L3 as u32,
            l4: L3 as u32 + ip_header(V4) as u32,
            l4_header: brief.l4_header as u32,
            ip_len: brief.ip_len as u32,
        };
        let port = if target.port == 0 { view.dst_port() } else { target.port };
        if nat::translate_plain(frame, &view, Side::Destination, &address, port).is_none() {
            return F::verdict(Err(Reason::Internal), false);
        }
    }
    // An skb's bytes may have moved.
    let ether = if F::SKB && nat { frame.packet().span::<ETHER>(0) } else { Some(ether) };
    let Some(ether) = ether else { return F::verdict(Err(Reason::Internal), false) };
    let mac = target.mac;
    ether.set_u32::<0>(u32::from_ne_bytes([mac[0], mac[1], mac[2], mac[3]]));
    ether.set_u16::<4>(u16::from_ne_bytes([mac[4], mac[5]]));
    match frame.forward(facts.port_index(), target.ifindex) {
        Some(code) => code,
        None => F::verdict(Err(Reason::RedirectFailed), false),
    }
}
