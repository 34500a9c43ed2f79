//! Is the packet about a service?

use crate::maps::{ABSENT, ADDRESSES, MORE_RULES, SERVICES};
use lbx_common::addr::{Ip, Mac};
use lbx_common::control::{Absent, AddressSelect, Control};
use lbx_common::limits::MAX_RULES_PER_ADDRESS;
use lbx_common::port::Port;
use lbx_common::service::{AddressEntry, Rule, Service, address_slot, rule_flags};

/// Whether an address is surely in no table: that costs a tenth of a look into it.
#[inline(always)]
pub fn is_absent(addr: &Ip) -> bool {
    let bit = Absent::bit(addr);
    let words = (&raw const ABSENT).cast::<u64>();
    // SAFETY: `bit` is less than 128, so that this is one of the two words of the value, which user space stores.
    let word = unsafe { core::ptr::read_volatile(words.add((bit >> 6) as usize)) };
    !Absent::may_hold(word, bit)
}

/// The entry of an address, if it has one: a single probe, the seed leaves no collisions.
#[inline(always)]
pub fn address(control: &Control, addr: &Ip) -> Option<&'static AddressEntry> {
    address_at(control, addr).map(|(_, entry)| entry)
}

/// The same in the fewest instructions, for the hot path: by halves, which takes more registers.
#[inline(always)]
pub fn address_by_halves(control: &Control, addr: &Ip) -> Option<&'static AddressEntry> {
    // SAFETY: as in `address_at`.
    let select: AddressSelect = unsafe { core::ptr::read_volatile(&raw const control.addresses) };
    let at = ADDRESSES.get_ptr(address_slot(addr, select.seed()).wrapping_add(select.base()))?;
    // SAFETY: as in `address_at`.
    let entry: &'static AddressEntry = unsafe { &*at };
    entry.is_of(addr).then_some(entry)
}

/// The slot and entry of an address, if it has one.
#[inline(always)]
pub fn address_at(control: &Control, addr: &Ip) -> Option<(u32, &'static AddressEntry)> {
    // SAFETY: an aligned word of the control block; read once, so that seed and base are of one generation.
    let select: AddressSelect = unsafe { core::ptr::read_volatile(&raw const control.addresses) };
    let slot = address_slot(addr, select.seed()).wrapping_add(select.base());
    let at = ADDRESSES.get_ptr(slot)?;
    // SAFETY: a non-null value pointer of an array map. User space writes only to the generation that is not
    // in force.
    let entry: &'static AddressEntry = unsafe { &*at };
    (entry.addr == *addr).then_some((slot, entry))
}

/// What rules are matched by, in one word: the [`Rule::head`] (bits 0-31), switch (32-47), port in host order
/// (48-63).
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Query(u64);

impl Query {
    /// Packs it. `back`: among the ways back rather than the services.
    #[inline(always)]
    pub const fn new(protocol: u8, back: bool, vlan: u16, switch: u16, port: u16) -> Self {
        let flags = if back { rule_flags::BACK } else { 0 };
        Self(Rule::head(protocol, flags, vlan) as u64 | (switch as u64) << 32 | (port as u64) << 48)
    }

    /// Whether a rule is about it.
    #[inline(always)]
    pub const fn matches(self, rule: &Rule) -> bool {
        rule.matches(self.0 as u32, (self.0 >> 32) as u16, (self.0 >> 48) as u16)
    }
}

/// No rule: [`lbx_more_rules`] returns it.
const NO_RULE: u32 = u32::MAX;

/// Index of the service (or way back) by the rules in the line of the address.
#[inline(always)]
pub fn first_rules(entry: &AddressEntry, query: Query) -> Option<u32> {
    // Written out: a loop would make the verifier walk the rest of the program once per rule.
    if query.matches(&entry.rules[0]) {
        return Some(entry.rules[0].index as u32);
    }
    if query.matches(&entry.rules[1]) {
        return Some(entry.rules[1].index as u32);
    }
    if query.matches(&entry.rules[2]) {
        return Some(entry.rules[2].index as u32);
    }
    None
}

/// Index of the service (or way back) a packet to (or from) the address belongs to.
#[inline(always)]
pub fn rule(entry: &AddressEntry, query: Query) -> Option<u32> {
    if let Some(index) = first_rules(entry, query) {
        return Some(index);
    }
    if entry.more_count == 0 {
        return None;
    }
    let index = lbx_more_rules(query.0, entry.more_first as u32, entry.more_count as u32);
    (index != NO_RULE).then_some(index)
}

/// The rules that did not fit beside their address. A function of its own, verified once: only addresses with
/// more than three rules pay for the call.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lbx_more_rules(query: u64, first: u32, count: u32) -> u32 {
    let query = Query(query);
    let mut n = 0;
    while n < MAX_RULES_PER_ADDRESS && n < count {
        let Some(at) = MORE_RULES.get_ptr(first.wrapping_add(n)) else { return NO_RULE };
        // SAFETY: a non-null value pointer of an array map, read as a copy.
        let rule = unsafe { *at };
        if query.matches(&rule) {
            return rule.index as u32;
        }
        n += 1;
    }
    NO_RULE
}

/// Whether the address has any service on the VLAN and switch: its malformed packets are then ours to drop.
#[inline(always)]
pub fn covers(entry: &AddressEntry, vlan: u16, switch: u16) -> bool {
    let on = |rule: &Rule| {
        rule.protocol != 0 && rule.flags & rule_flags::BACK == 0 && rule.vlan == vlan && rule.switch == switch
    };
    on(&entry.rules[0]) || on(&entry.rules[1]) || on(&entry.rules[2])
}

/// The service at an index.
#[inline(always)]
pub fn service(index: u32) -> Option<&'static Service> {
    let at = SERVICES.get_ptr(index)?;
    // SAFETY: a non-null value pointer of an array map; user space stores single aligned words of it.
    Some(unsafe { &*at })
}

/// Whether a frame is addressed to the switch, so that it has not been steered yet (and is not a VM's own).
#[inline(always)]
pub fn addressed(port: &Port, dst: &Mac) -> bool {
    port.accepts(u64::from_ne_bytes([dst[0], dst[1], dst[2], dst[3], dst[4], dst[5], 0, 0]))
}
