//! ARP, neighbour solicitation and echo for a VIP that is answered for.

use super::enter::SlowPath;
use crate::maps::MORE_RULES;
use crate::maps::scratch::Scratch;
use crate::packet::frame::Frame;
use crate::packet::parse::{self, Ether, ethertype};
use crate::steps::env::Env;
use crate::steps::{Outcome, rate, service};
use crate::verdict::Action;
use lbx_common::addr::{Ip, Mac};
use lbx_common::limits::MAX_RULES_PER_ADDRESS;
use lbx_common::reason::Reason;
use lbx_common::reply::{self, arp, echo, neighbour, sum::Sum};
use lbx_common::service::{AddressEntry, address_flags};

/// ARP, neighbour solicitation and echo.
pub struct Answer;

impl SlowPath for Answer {
    #[inline(always)]
    fn run<F: Frame>(frame: F, env: &Env, note: &Scratch) -> Outcome {
        // A question that turns out to be none for us goes on as if it had never come here.
        match parse::ether(frame, frame.packet()) {
            Some(ether) if ether.kind == ethertype::ARP => who_has(frame, env, note.vlan, &ether),
            Some(ether) if ether.kind == ethertype::IPV4 => ping(frame, env, note.vlan, &ether),
            Some(ether) if ether.kind == ethertype::IPV6 => {
                if frame.load::<u8>(ether.l3 as u32 + 40) == Some(135) {
                    solicited(frame, env, note.vlan, &ether)
                } else {
                    ping_v6(frame, env, note.vlan, &ether)
                }
            }
            _ => Ok(Action::Pass),
        }
    }
}

/// Whether the address is answered for with this flag here.
#[inline(always)]
fn answers(env: &Env, vlan: u16, addr: &Ip, flag: u16) -> bool {
    let Some(entry) = service::address(env.control, addr) else { return false };
    entry.flags & flag != 0 && env.port.is_member(vlan) && answered_on(entry, vlan, env.port.switch)
}

/// Whether a rule of the address says that it is answered for on this VLAN and switch.
#[inline(always)]
fn answered_on(entry: &AddressEntry, vlan: u16, switch: u16) -> bool {
    let mut found = entry.rules[0].answers(vlan, switch)
        || entry.rules[1].answers(vlan, switch)
        || entry.rules[2].answers(vlan, switch);
    let (first, count) = (entry.more_first as u32, entry.more_count as u32);
    let mut n = 0;
    while n < MAX_RULES_PER_ADDRESS && n < count && !found {
        let Some(at) = MORE_RULES.get_ptr(first.wrapping_add(n)) else { return false };
        // SAFETY: a non-null value pointer of an array map, read as a copy.
        let rule = unsafe { *at };
        found = rule.answers(vlan, switch);
        n += 1;
    }
    found
}

/// Whether an answer goes out now. While observing none does, and the question goes on.
#[inline(always)]
fn due(env: &Env) -> Result<(), Reason> {
    if env.observe {
        Err(Reason::Observed)
    } else if rate::answer(env.control) {
        Ok(())
    } else {
        Err(Reason::AnswerRate)
    }
}

/// A question reaches us by broadcast, or at the switch's own address.
#[inline(always)]
fn reaches_us(env: &Env, ether: &Ether) -> bool {
    reply::is_group(&ether.dst) || service::addressed(env.port, &ether.dst)
}

#[inline(always)]
fn who_has<F: Frame>(frame: F, env: &Env, vlan: u16, ether: &Ether) -> Outcome {
    let l3 = ether.l3 as u32;
    let (Some(macs), Some(request)) = (frame.load(0), frame.load(l3)) else { return Ok(Action::Pass) };
    let Some(asked) = arp::requested(&request) else { return Ok(Action::Pass) };
    let asked = Ip::v4(u32::from_ne_bytes(asked));
    if !reaches_us(env, ether) || !answers(env, vlan, &asked, address_flags::ANSWER) {
        return Ok(Action::Pass);
    }
    due(env)?;
    let own = &env.port.switch_mac;
    frame.store(l3, &arp::reply(&request, own)).ok_or(Reason::Internal)?;
    frame.store(0, &reply::turn(&macs, own)).ok_or(Reason::Internal)?;
    frame.reflect(env.port_index)?;
    Ok(Action::Answered(Reason::ArpAnswered))
}

#[inline(always)]
fn solicited<F: Frame>(frame: F, env: &Env, vlan: u16, ether: &Ether) -> Outcome {
    let l3 = ether.l3 as u32;
    let Some(probe) = asked(frame, env, vlan, ether) else { return Ok(Action::Pass) };
    due(env)?;
    frame.set_length(l3 + neighbour::REPLY as u32).ok_or(Reason::Internal)?;
    let own = &env.port.switch_mac;
    advertise(frame, l3, probe, own).ok_or(Reason::Internal)?;
    let mut macs = reply::turn(&frame.load(0).ok_or(Reason::Internal)?, own);
    if probe {
        macs[..6].copy_from_slice(&neighbour::ALL_NODES_MAC);
    }
    frame.store(0, &macs).ok_or(Reason::Internal)?;
    frame.reflect(env.port_index)?;
    Ok(Action::Answered(Reason::NdAnswered))
}

/// Whether who asks for an address that is answered for here wants it (duplicate detection) or has one; none if the
/// frame asks nothing, or not us.
#[inline(always)]
fn asked<F: Frame>(frame: F, env: &Env, vlan: u16, ether: &Ether) -> Option<bool> {
    let l3 = ether.l3 as u32;
    let ip = frame.load(l3)?;
    let probe = neighbour::solicitation(&ip, &frame.load(l3 + 40)?)?.is_probe();
    let target = frame.load(l3 + 48).map(Ip::v6)?;
    let ours = reaches_us(env, ether)
        && answers(env, vlan, &target, address_flags::ANSWER)
        && is_valid(frame, l3 + 40, &ip, probe);
    ours.then_some(probe)
}

/// Turns a solicitation into the advertisement, the MACs excepted. Piece by piece, by words: of a whole one the
/// compiler holds every byte in eight of the stack.
#[inline(always)]
fn advertise<F: Frame>(frame: F, l3: u32, probe: bool, own: &Mac) -> Option<()> {
    let src = frame.load(l3 + 8).map(Ip::v6)?;
    let target = frame.load(l3 + 48).map(Ip::v6)?;
    let pieces = neighbour::pieces(probe, &src, &target, own);
    frame.store(l3, &neighbour::HEADER)?;
    frame.store(l3 + 8, &target)?;
    frame.store(l3 + 24, &pieces.dst)?;
    frame.store(l3 + 40, &pieces.head)?;
    frame.store(l3 + 64, &pieces.option)
}

/// Units of eight bytes in a solicitation, options included, that are looked at.
const MAX_UNITS: u32 = 3 + 16;

/// Whether checksum and options of a solicitation are as RFC 4861, section 7.1.1 demands: every option has a
/// length, and one who has no address yet gives no MAC.
#[inline(always)]
fn is_valid<F: Frame>(frame: F, at: u32, ip: &[u8; 40], probe: bool) -> bool {
    let length = u16::from_be_bytes([ip[4], ip[5]]) as u32;
    let units = length / 8;
    if !length.is_multiple_of(8) || units > MAX_UNITS {
        return false;
    }
    // The addresses, which the pseudo-header consists of, are summed from the packet.
    let mut sum = Sum::pseudo_v6(&[0; 16], &[0; 16], parse::protocol::ICMPV6, length);
    let mut n = 0;
    while n < 4 {
        let Some([a, b]) = frame.load::<[u32; 2]>(at - 32 + n * 8) else { return false };
        sum = sum.add_word(a).add_word(b);
        n += 1;
    }
    let mut option = 0_u32;
    let mut n = 0;
    while n < MAX_UNITS && n < units {
        let Some([a, b]) = frame.load::<[u32; 2]>(at + n * 8) else { return false };
        sum = sum.add_word(a).add_word(b);
        if n >= 3 {
            if option == 0 {
                let [kind, length, ..] = a.to_ne_bytes();
                if length == 0 || probe && kind == 1 {
                    return false;
                }
                option = length as u32;
            }
            option -= 1;
        }
        n += 1;
    }
    option == 0 && sum.folded() == 0xffff
}

#[inline(always)]
fn ping<F: Frame>(frame: F, env: &Env, vlan: u16, ether: &Ether) -> Outcome {
    let l3 = ether.l3 as u32;
    let (Some(macs), Some(ip), Some(message)) = (frame.load(0), frame.load(l3), frame.load(l3 + 20)) else {
        return Err(Reason::NotAService);
    };
    let ip: [u8; 20] = ip;
    let Some(answer) = echo::reply(&message, false) else { return Err(Reason::NotAService) };
    let asked = Ip::v4(u32::from_ne_bytes([ip[16], ip[17], ip[18], ip[19]]));
    if !echo::may_turn_v4(&ip)
        || !service::addressed(env.port, &ether.dst)
        || !answers(env, vlan, &asked, address_flags::ECHO)
    {
        return Err(Reason::NotAService);
    }
    due(env)?;
    frame.store(0, &reply::turn(&macs, &env.port.switch_mac)).ok_or(Reason::Internal)?;
    frame.store(l3, &echo::turn_v4(&ip)).ok_or(Reason::Internal)?;
    frame.store(l3 + 20, &answer).ok_or(Reason::Internal)?;
    frame.reflect(env.port_index)?;
    Ok(Action::Answered(Reason::EchoAnswered))
}

#[inline(always)]
fn ping_v6<F: Frame>(frame: F, env: &Env, vlan: u16, ether: &Ether) -> Outcome {
    let l3 = ether.l3 as u32;
    let (Some(macs), Some(ip), Some(message)) = (frame.load(0), frame.load(l3), frame.load(l3 + 40)) else {
        return Err(Reason::NotAService);
    };
    let ip: [u8; 40] = ip;
    let (Some(answer), Some(src), Some(asked)) =
        (echo::reply(&message, true), ip[8..].first_chunk(), frame.load(l3 + 24).map(Ip::v6))
    else {
        return Err(Reason::NotAService);
    };
    if !reply::answerable_v6(src)
        || !service::addressed(env.port, &ether.dst)
        || !answers(env, vlan, &asked, address_flags::ECHO)
    {
        return Err(Reason::NotAService);
    }
    due(env)?;
    frame.store(0, &reply::turn(&macs, &env.port.switch_mac)).ok_or(Reason::Internal)?;
    frame.store(l3, &echo::turn_v6(&ip)).ok_or(Reason::Internal)?;
    frame.store(l3 + 40, &answer).ok_or(Reason::Internal)?;
    frame.reflect(env.port_index)?;
    Ok(Action::Answered(Reason::EchoAnswered))
}
