//! Power of two choices: two candidates of the service's table, and the one with the shorter queue.

use super::open::{self, slot, target};
use super::{clock, live, service};
use crate::kernel::{self, member};
use crate::maps::WEIGHTS;
use crate::verdict::count;
use aya_ebpf::Global;
use lbx_common::flow::TargetWord;
use lbx_common::key;
use lbx_common::limits::REHASHES;
use lbx_common::reason::Reason;
use lbx_common::steer::fate::{self, Choice};
use lbx_common::steer::pick::{self, ASKED, Load, second_is_shorter};
use lbx_common::target::weight_index;

/// Whether the program may read the kernel's memory. User space says so at load; where it is 0, the verifier does not
/// look at what would.
#[unsafe(no_mangle)]
static LIVE_DEPTH: Global<u32> = Global::new(0);

/// Who takes a new flow; [`TargetWord::NONE`]: none of those in the table.
#[inline(always)]
pub fn pick(hash: u64, service: u32, ingress: u32) -> u32 {
    let pair = lbx_candidates(hash, service, ingress);
    let (first, second) = (TargetWord(pair as u32), TargetWord((pair >> 32) as u32));
    if first == TargetWord::NONE || second == TargetWord::NONE {
        return first.0;
    }
    lbx_shorter(first.0, second.0)
}

/// The first two different targets of the flow's slots that take it: the first (bits 0-31) and the second (32-63).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lbx_candidates(hash: u64, service: u32, ingress: u32) -> u64 {
    const NONE: u32 = TargetWord::NONE.0;
    let Some(service) = service::service(service) else { return NONE as u64 | (NONE as u64) << 32 };
    let (len, now) = (service.table_len, clock::jiffies());
    let mut first = NONE;
    let mut n = 0;
    while n <= REHASHES && len != 0 {
        let h = if n == 0 { hash } else { key::rehash(hash, n) };
        let word = slot(service.table_base.wrapping_add(key::slot(h, len)));
        n += 1;
        let Some(target) = target(word.target()) else { continue };
        if first != NONE && pick::is_same_place(TargetWord(first), word, target) {
            continue;
        }
        if !fate::is_same(target, word) || !matches!(fate::choice(target, now, ingress), Choice::Takes) {
            continue;
        }
        if first != NONE {
            return first as u64 | (word.0 as u64) << 32;
        }
        if n > 1 {
            count(Reason::SlotRehashed);
        }
        first = word.0;
    }
    // The table is mostly one target's: one of the others that takes the flow is the second.
    let members = service.members as u32;
    let start = key::slot(key::rehash(hash, n), members);
    let mut n = 0;
    while n < ASKED && n < members && first != NONE {
        let mut place = start + n;
        if place >= members {
            place -= members;
        }
        n += 1;
        let Some(index) = open::member(service, place) else { break };
        if index == TargetWord(first).target() {
            continue;
        }
        if let Some(target) = target(index)
            && matches!(fate::choice(target, now, ingress), Choice::Takes)
        {
            return first as u64 | (TargetWord::new(index as u16, 0, target.generation).0 as u64) << 32;
        }
    }
    first as u64 | (NONE as u64) << 32
}

/// Of two candidates the one that gets the flow.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lbx_shorter(first: u32, second: u32) -> u32 {
    let loads = [load(TargetWord(first)), load(TargetWord(second))];
    if second_is_shorter(&loads[0], &loads[1]) {
        count(Reason::FlowToShorter);
        second
    } else {
        first
    }
}

/// What a candidate has to do.
#[inline(always)]
fn load(word: TargetWord) -> Load {
    let open = live::live(word).map_or(0, |live| live.open());
    let at = WEIGHTS.get_ptr(weight_index(word.target(), word.queue() as u32));
    // SAFETY: a non-null value pointer of an array map, of which one aligned word is read.
    let weight = at.map_or(0, |at| unsafe { (*at).weight });
    let depth = match lbx_ring_depth(word.0) {
        depth if depth >= 0 => Some(depth as u32),
        STALE => {
            count(Reason::RingStale);
            None
        }
        _ => None,
    };
    Load { depth, open, weight }
}

/// No address is known, or kernel memory is not to be read.
const UNKNOWN: i64 = -1;
/// What is at the address is no queue of the target's device.
const STALE: i64 = -2;

/// Frames in the ring of a target's queue, or why that is not known.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lbx_ring_depth(word: u32) -> i64 {
    if LIVE_DEPTH.load() == 0 {
        return UNKNOWN;
    }
    let word = TargetWord(word);
    let Some(target) = target(word.target()) else { return UNKNOWN };
    let ring = if word.queue() == 0 { target.ring } else { live::live(word).map_or(0, |live| live.ring) };
    if ring == 0 {
        return UNKNOWN;
    }
    let at = kernel::offsets();
    let file = ring.wrapping_sub(at.queue_ring as u64);
    // The memory may be anything by now; what is wrong is no address, and reads of it are zeros.
    let tun: u64 = member(file, at.queue_tun);
    let dev: u64 = member(tun, at.tun_dev);
    if member::<u32>(dev, at.dev_ifindex) != target.ifindex {
        return STALE;
    }
    let ring = kernel::ring(file, &at);
    if ring.is_valid() { ring.depth() as i64 } else { STALE }
}
