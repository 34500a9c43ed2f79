//! ICMP errors about the packet in hand: it is cut, summed, and headers put before it.

use super::locate::Located;
use crate::packet::frame::Frame;
use crate::packet::parse::protocol;
use crate::steps::Outcome;
use crate::steps::env::Env;
use crate::steps::rate;
use crate::verdict::Action;
use lbx_common::reason::Reason;
use lbx_common::reply;
use lbx_common::reply::error::{self, QUOTE_UNIT, QUOTE_V4, QUOTE_V6, Report};
use lbx_common::reply::sum::Sum;

/// Most bytes between the start of the IP header and the transport header.
const MOST_BEFORE_L4: u32 = 512;

/// Answers a packet to a VIP with an error from the VIP. `refused` where the rules forbid an error about it,
/// [`Reason::AnswerRate`] where the rate does.
#[inline(always)]
pub fn report<F: Frame>(
    frame: F,
    env: &Env,
    located: &Located,
    report: Report,
    answered: Reason,
    refused: Reason,
) -> Outcome {
    let kind: u8 = frame.load(located.l4).ok_or(refused)?;
    let may = if located.v4 {
        error::may_report_v4(&frame.load(located.l3).ok_or(refused)?, kind)
    } else {
        error::may_report_v6(&located.src.octets(), located.protocol, kind)
    };
    if !may {
        return Err(refused);
    }
    if !rate::answer(env.control) {
        return Err(Reason::AnswerRate);
    }
    let macs: [u8; 12] = frame.load(0).ok_or(Reason::Internal)?;
    let untagged: [u8; 2] = frame.load(12).ok_or(Reason::Internal)?;
    let tagged: [u8; 6] = frame.load(12).ok_or(Reason::Internal)?;
    let most = if located.v4 { QUOTE_V4 } else { QUOTE_V6 };
    let length = if located.ip_len < most { located.ip_len } else { most };
    let quote = sum_quote(frame, located, length).ok_or(Reason::Internal)?;

    let room = if located.v4 { error::HEAD_V4 } else { error::HEAD_V6 } as u32;
    frame.prepend(room).ok_or(Reason::Internal)?;
    frame.store(0, &reply::turn(&macs, &env.port.switch_mac)).ok_or(Reason::Internal)?;
    if located.l3 == 14 {
        frame.store(12, &untagged).ok_or(Reason::Internal)?;
    } else {
        frame.store(12, &tagged).ok_or(Reason::Internal)?;
    }
    if located.v4 {
        let (vip, client) = (located.dst.v4_word().to_ne_bytes(), located.src.v4_word().to_ne_bytes());
        let head = error::v4(&vip, &client, report, quote, length as u16);
        frame.store(located.l3, &head).ok_or(Reason::Internal)?;
    } else {
        let head = error::v6(&located.dst.octets(), &located.src.octets(), report, quote, length as u16);
        frame.store(located.l3, &head).ok_or(Reason::Internal)?;
    }
    frame.reflect(env.port_index)?;
    Ok(Action::Answered(answered))
}

/// Cuts the frame behind the quote and sums it.
#[inline(always)]
fn sum_quote<F: Frame>(frame: F, located: &Located, length: u32) -> Option<Sum> {
    let start = located.l3;
    // Zeros behind the quote, so that it can be summed in whole units.
    frame.set_length(start + length + QUOTE_UNIT)?;
    frame.store(start + length, &[0_u8; QUOTE_UNIT as usize])?;
    let mut sum = Sum::ZERO;
    let mut at = 0;
    while at < QUOTE_V6 && at < length {
        let words: [u32; QUOTE_UNIT as usize / 4] = frame.load(start + at)?;
        sum = sum.add_word(words[0]).add_word(words[1]).add_word(words[2]).add_word(words[3]);
        at += QUOTE_UNIT;
    }
    if F::SKB
        && let Some(settled) = settle(frame, located, sum, length)
    {
        sum = settled;
    }
    frame.set_length(start + length)?;
    Some(sum)
}

/// An skb may carry the order to complete the checksum of the packet that is now a quote, and nothing tells.
/// Such a checksum field holds the sum of the pseudo-header. If it does, it is replaced by the value that
/// completion does not change, so that the error's own checksum, which covers it, stays right. Receivers do not
/// check the checksum of a quote.
#[inline(always)]
fn settle<F: Frame>(frame: F, located: &Located, quote: Sum, length: u32) -> Option<Sum> {
    let field_at = located.l4
        + match located.protocol {
            protocol::TCP => 16,
            protocol::UDP => 6,
            _ => return None,
        };
    if field_at + 2 > located.l3 + length || located.fragment.is_some() {
        return None;
    }
    let field: [u8; 2] = frame.load(field_at)?;
    let pseudo = if located.v4 {
        Sum::pseudo_v4(
            &located.src.v4_word().to_ne_bytes(),
            &located.dst.v4_word().to_ne_bytes(),
            located.protocol,
            located.l4_len(),
        )
    } else {
        Sum::pseudo_v6(&located.src.octets(), &located.dst.octets(), located.protocol, located.l4_len())
    };
    if pseudo.folded() != u16::from_ne_bytes(field) {
        return None;
    }
    // What is before the transport header is not part of the sum that will be completed.
    let mut before = Sum::ZERO;
    let mut at = 0;
    while at < MOST_BEFORE_L4 && at < located.l4 - located.l3 {
        before = before.add_word(frame.load(located.l3 + at)?);
        at += 4;
    }
    let others = quote.sub_sum(before).sub_sum(Sum::ZERO.add(field));
    let settled = others.fixed_point();
    frame.store(field_at, &settled)?;
    Some(quote.sub_sum(Sum::ZERO.add(field)).add(settled))
}
