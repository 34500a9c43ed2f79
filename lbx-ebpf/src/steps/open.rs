//! The first packet of a flow: a target is selected and the flow recorded.
//!
//! A function of its own that the verifier checks once, whatever way the packet came: first packets pay for the
//! call, the others do not carry its code.

use super::{clock, conflict, env::Env, live, pick, rate, service, stats};
use crate::atomic;
use crate::maps::{FLOWS, MEMBERS, SLOTS, TARGETS};
use crate::packet::parse::protocol;
use crate::verdict::count;
use lbx_common::algo::tcp::TcpBits;
use lbx_common::algo::tcp::idle_class;
use lbx_common::control::Control;
use lbx_common::flow::{Bucket, TargetWord, bucket_one, bucket_two, flags, seal, with_class};
use lbx_common::key::{self, FlowKey};
use lbx_common::limits::{MAX_SERVICE_TARGETS, REHASHES, WAYS};
use lbx_common::reason::Reason;
use lbx_common::service::{Service, algorithm};
use lbx_common::steer::fate::{self, Choice};
use lbx_common::steer::place::{self, Refused};
use lbx_common::target::{Forward, Target};

/// What [`open`] wants to know, in one word.
#[derive(Clone, Copy)]
struct Request(u64);

impl Request {
    const fn new(service: u32, port_index: u32, protocol: u8, tcp_flags: u8) -> Self {
        Self(
            (service & 0xffff) as u64
                | ((port_index & 0xffff) as u64) << 16
                | (protocol as u64) << 32
                | (tcp_flags as u64) << 40,
        )
    }
    const fn service(self) -> u32 {
        self.0 as u32 & 0xffff
    }
    const fn port_index(self) -> u32 {
        (self.0 >> 16) as u32 & 0xffff
    }
    const fn protocol(self) -> u8 {
        (self.0 >> 32) as u8
    }
    const fn tcp_flags(self) -> u8 {
        (self.0 >> 40) as u8
    }
}

/// Selects a target for a new flow and records it. `key`: of the flow, which only `nat` has to know.
#[inline(always)]
pub fn open(
    key: impl FnOnce() -> FlowKey,
    hash: u64,
    service: u32,
    port_index: u32,
    protocol: u8,
    tcp_flags: u8,
) -> Result<TargetWord, Reason> {
    checked(key, service, port_index, ask(hash, service, port_index, protocol, tcp_flags))
}

/// The same, without what only `nat` has to know; [`checked`] makes up for it.
#[inline(always)]
pub fn ask(hash: u64, service: u32, port_index: u32, protocol: u8, tcp_flags: u8) -> Opened {
    let request = Request::new(service, port_index, protocol, tcp_flags);
    let mut packed = lbx_open(hash, request.0, NOBODY);
    if packed == failed(CHOOSE) {
        packed = lbx_open(hash, request.0, pick::pick(hash, service, port_index) as u64);
    }
    Opened { why: (packed >> 32) as u32, word: TargetWord(packed as u32) }
}

/// What became of a first packet.
#[derive(Clone, Copy)]
pub struct Opened {
    /// 0: its flow is bound; else a number for what stopped it.
    pub why: u32,
    /// What it is bound to.
    pub word: TargetWord,
}

impl Opened {
    /// Nobody has tried yet.
    pub const NOT: Self = Self { why: SERVED, word: TargetWord::NONE };

    /// Whether it was tried.
    #[inline(always)]
    pub fn was_tried(self) -> bool {
        self.why != SERVED || self.word != TargetWord::NONE
    }
}

/// The target of a flow just opened, unless its translation is in the way of another's.
#[inline(always)]
pub fn checked(
    key: impl FnOnce() -> FlowKey,
    service: u32,
    port_index: u32,
    opened: Opened,
) -> Result<TargetWord, Reason> {
    let mut why = opened.why;
    if why == REFUSED {
        // Here and not where it was found out: each call deeper has less stack.
        why = (lbx_refused(service, port_index) >> 32) as u32;
    }
    // One reason each that stops a first packet; spelt out so that no number from the wire of a call becomes
    // an enum.
    match why {
        SERVED => {
            // Here for the same reason.
            if service::service(service).is_some_and(|service| service.forward == Forward::Nat as u8)
                && conflict::withdrawn(&key(), opened.word)
            {
                return Err(Reason::NatConflict);
            }
            Ok(opened.word)
        }
        NO_TARGET => Err(Reason::NoTarget),
        SELF_TARGET => Err(Reason::SelfTarget),
        PAUSED => Err(Reason::Blackholed),
        NAT_RATE => Err(Reason::NatRate),
        NAT_FULL => Err(Reason::NatTableFull),
        _ => Err(Reason::Internal),
    }
}

const SERVED: u32 = 0;
const NO_TARGET: u32 = 1;
const SELF_TARGET: u32 = 2;
const NAT_RATE: u32 = 3;
const NAT_FULL: u32 = 4;
const BROKEN: u32 = 5;
const PAUSED: u32 = 6;
/// Nobody took it; [`lbx_refused`] tells why.
const REFUSED: u32 = 7;
/// Its service's algorithm chooses: here, each call deeper has less stack.
const CHOOSE: u32 = 8;

/// Nobody was asked yet who takes the flow.
const NOBODY: u64 = u64::MAX;

/// Packs what went wrong.
const fn failed(why: u32) -> u64 {
    (why as u64) << 32
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lbx_open(hash: u64, request: u64, chosen: u64) -> u64 {
    let request = Request(request);
    let Some(control) = Env::control() else { return failed(BROKEN) };
    let Some(service) = service::service(request.service()) else { return failed(BROKEN) };
    let now = clock::jiffies();
    let counted = service.algorithm == algorithm::P2C;
    if counted && chosen == NOBODY {
        return failed(CHOOSE);
    }
    let word = if counted && chosen as u32 != TargetWord::NONE.0 {
        TargetWord(chosen as u32)
    } else {
        match select(service, hash, now, request.port_index()) {
            Some(word) => word,
            None => return failed(REFUSED),
        }
    };
    let nat = service.forward == Forward::Nat as u8;
    let tcp = request.protocol() == protocol::TCP;
    // What an RST would end is not there: it goes where the flow would have gone, without a record.
    if tcp && !TcpBits::records(request.tcp_flags()) {
        return word.0 as u64;
    }
    if !rate::new_flow(control, request.service(), service.new_flow_rate) {
        if nat {
            return failed(NAT_RATE);
        }
        stats::target(word.target(), |s| s.flows += 1);
        count(Reason::FlowRateLimited);
        stats::service(request.service(), |s| s.flows_unrecorded += 1);
        return word.0 as u64;
    }
    let bits = if tcp { TcpBits::open(request.tcp_flags()) } else { TcpBits::of(0) };
    let class = if tcp {
        idle_class(request.protocol(), bits, !nat)
    } else {
        // One packet is no conversation yet: it ages as a new flow until the second comes.
        lbx_common::flow::IdleClass::New
    };
    let marks = if nat { flags::NAT } else { 0 } | if counted { flags::COUNTED } else { 0 };
    let entry_flags = with_class(bits.put(marks), class);
    let kept = if nat { 0 } else { service.kept_ways as u32 };
    let recorded = record(control, hash, word, clock::epoch(control, now), entry_flags, kept);
    if recorded.is_ok() || !nat {
        stats::target(word.target(), |s| s.flows += 1);
    }
    match recorded {
        Ok(()) => {
            if counted {
                live::began(word);
            }
            count(Reason::FlowRecorded);
            stats::service(request.service(), |s| s.flows_recorded += 1);
            word.0 as u64
        }
        Err(_) if nat => failed(NAT_FULL),
        Err(reason) => {
            count(reason);
            stats::service(request.service(), |s| s.flows_unrecorded += 1);
            word.0 as u64
        }
    }
}

/// The target at an index.
#[inline(always)]
pub fn target(index: u32) -> Option<&'static Target> {
    let at = TARGETS.get_ptr(index)?;
    // SAFETY: a non-null value pointer of an array map, aligned to a cache line. User space stores single
    // aligned fields; the state, which decides, is read once by whoever decides.
    Some(unsafe { &*at })
}

/// Index of the target at a place among those of a service.
#[inline(always)]
pub fn member(service: &Service, place: u32) -> Option<u32> {
    let at = MEMBERS.get_ptr(service.members_first.wrapping_add(place))?;
    // SAFETY: a non-null value pointer of an array map, read as a copy of a word.
    Some(unsafe { *at })
}

/// A slot of the pool of tables.
#[inline(always)]
pub fn slot(index: u32) -> TargetWord {
    let Some(at) = SLOTS.get_ptr(index >> 1) else { return TargetWord::NONE };
    // SAFETY: a non-null value pointer of an array map, read as a copy of two words.
    let [low, high] = unsafe { *at };
    TargetWord(if index & 1 == 0 { low } else { high })
}

/// Why nobody took a new flow, as [`lbx_open`] answers it: of several reasons the one that holds out most hope. The
/// packet is counted at the target that lost it. A function of its own, so that the verifier does not carry what it
/// finds through the walk above it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lbx_refused(service: u32, ingress: u32) -> u64 {
    let Some(service) = service::service(service) else { return failed(BROKEN) };
    let (members, now) = (service.members as u32, clock::jiffies());
    let mut why = NO_TARGET;
    let mut n = 0;
    while n < MAX_SERVICE_TARGETS && n < members {
        let Some(index) = member(service, n) else { break };
        if let Some(target) = target(index) {
            match fate::choice(target, now, ingress) {
                Choice::Paused => {
                    stats::target(index, |s| s.drops += 1);
                    return failed(PAUSED);
                }
                Choice::Returns => why = SELF_TARGET,
                Choice::Takes | Choice::Closed => {}
            }
        }
        n += 1;
    }
    failed(why)
}

/// The slot of the flow; if its target takes no new flows, a few others; then all targets, from a place that
/// depends on the flow: the same flow finds the same target as long as nothing changes.
#[inline(always)]
fn select(service: &Service, hash: u64, now: u64, ingress: u32) -> Option<TargetWord> {
    let len = service.table_len;
    let mut n = 0;
    while n <= REHASHES && len != 0 {
        let h = if n == 0 { hash } else { key::rehash(hash, n) };
        let word = slot(service.table_base.wrapping_add(key::slot(h, len)));
        if let Some(target) = target(word.target())
            && fate::is_same(target, word)
            && matches!(fate::choice(target, now, ingress), Choice::Takes)
        {
            if n != 0 {
                count(Reason::SlotRehashed);
            }
            return Some(word);
        }
        n += 1;
    }
    let members = service.members as u32;
    let start = key::slot(key::rehash(hash, n), members);
    let mut n = 0;
    while n < MAX_SERVICE_TARGETS && n < members {
        let mut place = start + n;
        if place >= members {
            place -= members;
        }
        let Some(index) = member(service, place) else { break };
        if let Some(target) = target(index)
            && matches!(fate::choice(target, now, ingress), Choice::Takes)
        {
            count(Reason::SlotRehashed);
            return Some(TargetWord::new(index as u16, 0, target.generation));
        }
        n += 1;
    }
    None
}

/// Writes the flow into one of its two buckets.
#[inline(always)]
fn record(
    control: &Control,
    hash: u64,
    word: TargetWord,
    epoch: u16,
    entry_flags: u16,
    kept: u32,
) -> Result<(), Reason> {
    let mask = control.bucket_mask;
    let one = FLOWS.get_ptr_mut(bucket_one(hash, mask)).ok_or(Reason::FlowUnrecorded)?;
    let two = FLOWS.get_ptr_mut(bucket_two(hash, mask)).ok_or(Reason::FlowUnrecorded)?;
    // SAFETY: both are values of the map. Other CPUs store meanwhile; what is decided on a stale field is put
    // right by the compare-and-swap below.
    let found = match unsafe { place::place(&*one, &*two, epoch, &control.idle, kept) } {
        Ok(place) => place,
        Err(Refused::NoRoom) => return Err(Reason::FlowUnrecorded),
        Err(Refused::Kept) => return Err(Reason::FlowRoomKept),
    };
    let bucket: *mut Bucket = if found.second { two } else { one };
    let way = (found.way & (WAYS - 1)) as usize;
    // SAFETY: way < 4 lies within the bucket; the seal is an aligned word. Of two CPUs that swap a used entry's
    // seal one succeeds. Two that find the same free entry both go on; the seal of one and the target of the
    // other match no flow, which is what the seal is for, and the check at the end tells at least one of them.
    let kept = unsafe {
        let entry = &raw mut (*bucket).ways[way];
        let old = core::ptr::read_volatile(&raw const (*entry).seal);
        // Who gives way, if it was counted: read before the seal is taken, while nobody else writes the entry.
        let gone = if old != 0 && core::ptr::read_volatile(&raw const (*entry).flags) & flags::COUNTED != 0 {
            core::ptr::read_volatile(&raw const (*entry).target)
        } else {
            TargetWord::NONE
        };
        if !atomic::compare_exchange(&raw mut (*entry).seal, old, 0) {
            return Err(Reason::FlowRaced);
        }
        if gone != TargetWord::NONE {
            live::ended(gone);
        }
        core::ptr::write_volatile(&raw mut (*entry).target, word);
        core::ptr::write_volatile(&raw mut (*entry).epoch, epoch);
        core::ptr::write_volatile(&raw mut (*entry).flags, entry_flags);
        atomic::exchange(&raw mut (*entry).seal, seal(hash, word));
        core::ptr::read_volatile(&raw const (*entry).target) == word
    };
    if !kept {
        return Err(Reason::FlowRaced);
    }
    if found.evicts {
        count(Reason::FlowEvicted);
    }
    Ok(())
}
