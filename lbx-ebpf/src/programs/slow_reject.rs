//! No target left: RST or unreachable.

use super::enter::SlowPath;
use crate::maps::scratch::Scratch;
use crate::packet::frame::Frame;
use crate::packet::parse::{self, protocol};
use crate::slow::locate::{Located, locate};
use crate::slow::quote;
use crate::steps::env::Env;
use crate::steps::{Outcome, rate, stats};
use crate::verdict::Action;
use lbx_common::reason::Reason;
use lbx_common::reply::error::Report;
use lbx_common::reply::reset::{self, Completion};
use lbx_common::reply::sum::Sum;
use lbx_common::reply::{self, header};

/// No target left: RST or unreachable.
pub struct Reject;

impl SlowPath for Reject {
    #[inline(always)]
    fn run<F: Frame>(frame: F, env: &Env, note: &Scratch) -> Outcome {
        let ether = parse::ether(frame, frame.packet()).ok_or(Reason::NoTarget)?;
        let located = locate(frame, &ether).map_err(|_| Reason::NoTarget)?;
        if env.observe || located.fragment.is_some() {
            return Err(Reason::NoTarget);
        }
        let outcome = match (located.protocol, located.v4) {
            (protocol::TCP, true) => refuse_v4(frame, env, located),
            (protocol::TCP, false) => refuse_v6(frame, env, located),
            (protocol::UDP, _) => unreachable(frame, env, located),
            _ => Err(Reason::NoTarget),
        };
        if outcome.is_ok() {
            stats::service(note.service as u32, |s| s.rejects += 1);
        }
        outcome
    }
}

/// Answers a datagram with port unreachable.
#[inline(always)]
fn unreachable<F: Frame>(frame: F, env: &Env, located: &Located) -> Outcome {
    let unreachable = Reason::RejectedUnreachable;
    quote::report(frame, env, located, Report::PortUnreachable, unreachable, Reason::NoTarget)
}

/// Answers a TCP segment with a RST from the VIP, IPv4.
#[inline(always)]
fn refuse_v4<F: Frame>(frame: F, env: &Env, located: &Located) -> Outcome {
    let (vip, client) = (located.dst.v4_word().to_ne_bytes(), located.src.v4_word().to_ne_bytes());
    if !reply::answerable_v4(&client) {
        return Err(Reason::NoTarget);
    }
    let length = reset::LEN as u16;
    let tcp = reset_of(frame, located, Sum::pseudo_v4(&vip, &client, protocol::TCP, length as u32))?;
    cut(frame, env, located.l3 + 40)?;
    let ip = header::v4(&vip, &client, protocol::TCP, 0, length);
    frame.store(located.l3, &ip).ok_or(Reason::Internal)?;
    frame.store(located.l3 + 20, &tcp).ok_or(Reason::Internal)?;
    back(frame, env)
}

/// Answers a TCP segment with a RST from the VIP, IPv6.
#[inline(always)]
fn refuse_v6<F: Frame>(frame: F, env: &Env, located: &Located) -> Outcome {
    if !reply::answerable_v6(&located.src.octets()) {
        return Err(Reason::NoTarget);
    }
    let length = reset::LEN as u16;
    let pseudo = Sum::pseudo_v6(&[0; 16], &[0; 16], protocol::TCP, length as u32);
    let tcp = reset_of(frame, located, pseudo.add_ip(&located.src).add_ip(&located.dst))?;
    cut(frame, env, located.l3 + 60)?;
    // Piece by piece: the stack has no room for the whole.
    let fixed = header::v6_fixed(protocol::TCP, header::HOP_LIMIT, length);
    frame.store(located.l3, &fixed).ok_or(Reason::Internal)?;
    frame.store(located.l3 + 8, &located.dst).ok_or(Reason::Internal)?;
    frame.store(located.l3 + 24, &located.src).ok_or(Reason::Internal)?;
    frame.store(located.l3 + 40, &tcp).ok_or(Reason::Internal)?;
    back(frame, env)
}

/// The RST that answers the segment in the frame.
#[inline(always)]
fn reset_of<F: Frame>(frame: F, located: &Located, pseudo: Sum) -> Result<[u8; reset::LEN], Reason> {
    let segment: [u8; reset::LEN] = frame.load(located.l4).ok_or(Reason::NoTarget)?;
    let data = located.l4_len().checked_sub((segment[12] >> 4) as u32 * 4).ok_or(Reason::NoTarget)?;
    // An skb may carry the order to complete the segment's checksum, and nothing tells. Where options or
    // extension headers put it elsewhere, cutting the frame before it is refused, and no answer goes out.
    let completion = if F::SKB { Completion::Perhaps } else { Completion::Never };
    reset::reset(&segment, data, pseudo, completion).ok_or(Reason::NoTarget)
}

/// Sends the answer where the frame came from.
#[inline(always)]
fn back<F: Frame>(frame: F, env: &Env) -> Outcome {
    let macs: [u8; 12] = frame.load(0).ok_or(Reason::Internal)?;
    frame.store(0, &reply::turn(&macs, &env.port.switch_mac)).ok_or(Reason::Internal)?;
    frame.reflect(env.port_index)?;
    Ok(Action::Answered(Reason::RejectedReset))
}

/// Takes a token and makes the frame as long as the answer.
#[inline(always)]
fn cut<F: Frame>(frame: F, env: &Env, length: u32) -> Result<(), Reason> {
    if !rate::answer(env.control) {
        return Err(Reason::AnswerRate);
    }
    frame.set_length(length).ok_or(Reason::NoTarget)
}
