//! Services as the kernel looks them up.
//!
//! One hashed address table, probed once by the destination (is this a VIP?) or, on a target's port, by the
//! source (is this a nat target answering?). User space picks a seed under which no two addresses share a
//! slot, so one probe decides; it keeps two generations and flips seed and base with one store.

use crate::addr::Ip;
use crate::limits::ADDRESS_SLOTS;
use bytemuck::{Pod, Zeroable};

/// Matches a packet to an address to a service: protocol, VLAN, switch, port range. 12 bytes, of which the first
/// four are compared as one word.
#[repr(C, align(4))]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug, Default)]
pub struct Rule {
    /// Protocol number; 0 ends the list.
    pub protocol: u8,
    /// [`rule_flags`].
    pub flags: u8,
    /// VLAN id; 0 where the switch does not filter and the frame is untagged.
    pub vlan: u16,
    /// First port, host order.
    pub port_first: u16,
    /// Last port, host order, inclusive (0 to 65535 is all).
    pub port_last: u16,
    /// Index into `services`, or into `backs` with [`rule_flags::BACK`].
    pub index: u16,
    /// The switch the rule is about.
    pub switch: u16,
}

/// Bits of [`Rule::flags`].
pub mod rule_flags {
    /// Matched by the source: the answer of a nat target; `index` names a way back.
    pub const BACK: u8 = 1;
    /// Names no service: lbx answers for the address on the rule's switch and VLAN.
    pub const ANSWER: u8 = 2;
}

impl Rule {
    /// What of the rule has to be equal, in one word: protocol (bits 0-7), flags (8-15), VLAN (16-31).
    #[inline(always)]
    pub const fn head(protocol: u8, flags: u8, vlan: u16) -> u32 {
        protocol as u32 | (flags as u32) << 8 | (vlan as u32) << 16
    }

    /// Whether the rule is about a packet with this [`Rule::head`]. `port` in host order.
    #[inline(always)]
    pub const fn matches(&self, head: u32, switch: u16, port: u16) -> bool {
        Self::head(self.protocol, self.flags, self.vlan) == head
            && self.switch == switch
            && self.port_first <= port
            && port <= self.port_last
    }

    /// That an address is answered for on a VLAN of a switch. Of no protocol that packets have: 255 is reserved
    /// (IANA), and a list ends at 0.
    pub const fn answer(vlan: u16, switch: u16) -> Self {
        let (port_first, port_last) = (0, u16::MAX);
        Self { protocol: 255, flags: rule_flags::ANSWER, vlan, port_first, port_last, index: 0, switch }
    }

    /// Whether the address is answered for on this VLAN and switch.
    #[inline(always)]
    pub const fn answers(&self, vlan: u16, switch: u16) -> bool {
        self.flags & rule_flags::ANSWER != 0 && self.vlan == vlan && self.switch == switch
    }
}

/// Rules held in the line of the address itself.
pub const INLINE_RULES: usize = 3;

/// Bits of [`AddressEntry::flags`].
pub mod address_flags {
    /// A VIP of at least one service.
    pub const VIP: u16 = 1;
    /// The address of a nat target.
    pub const NAT_TARGET: u16 = 2;
    /// lbx answers ARP and neighbour solicitation for it, where a rule says so.
    pub const ANSWER: u16 = 4;
    /// lbx answers echo requests for it, where a rule says so.
    pub const ECHO: u16 = 8;
    /// At least one of its services is suspended: each packet's service is to be asked.
    pub const SUSPENDED: u16 = 16;
    /// This host's end of the tunnels between hosts ([`crate::tunnel`]).
    pub const TUNNEL: u16 = 32;
}

/// One address and what is known about it. One cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug, Default)]
pub struct AddressEntry {
    /// The address; unspecified in an empty slot.
    pub addr: Ip,
    /// The first rules.
    pub rules: [Rule; INLINE_RULES],
    /// Index of the first of the other rules in `more_rules`.
    pub more_first: u16,
    /// How many others there are.
    pub more_count: u16,
    /// [`address_flags`].
    pub flags: u16,
    #[doc(hidden)]
    pub reserved: [u16; 3],
}

/// Slot of an address under a seed. `seed` is odd.
#[inline(always)]
pub const fn address_slot(addr: &Ip, seed: u32) -> u32 {
    // Multiplication twice: without the fold between, addresses that differ only in high bits would share
    // their low product bits whatever the seed.
    let mixed = addr.folded().wrapping_mul(seed);
    ((mixed ^ (mixed >> 15)).wrapping_mul(0x9E37_79B1)) >> (32 - ADDRESS_SLOTS.trailing_zeros())
}

impl AddressEntry {
    /// Whether it is the entry of an address.
    #[inline(always)]
    pub const fn is_of(&self, addr: &Ip) -> bool {
        let ([a, b], [c, d]) = (self.addr.halves(), addr.halves());
        a == c && b == d
    }
}

/// Bits of [`Service::flags`].
pub mod flags {
    /// The service is steered; without it its packets pass untouched (suspended by a guard-rail).
    pub const ACTIVE: u16 = 1;
    /// No target left: answer with RST or unreachable (limited in rate) instead of dropping silently.
    pub const REJECT: u16 = 2;
}

/// Scheduling algorithms, as [`Service::algorithm`].
pub mod algorithm {
    /// The table's slot of the flow's hash, shared by weight.
    pub const MAGLEV: u8 = 0;
    /// The shorter queue of two slots ([`crate::steer::pick`]).
    pub const P2C: u8 = 1;

    /// Its name in the config, the CLI and the API.
    pub const fn name(number: u8) -> &'static str {
        match number {
            MAGLEV => "maglev",
            P2C => "p2c",
            _ => "unknown",
        }
    }
}

/// One service. 64 bytes.
#[repr(C, align(64))]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug, Default)]
pub struct Service {
    /// First slot of its table in the pool of slots.
    pub table_base: u32,
    /// Slots of its table; 0 while it has no target.
    pub table_len: u32,
    /// First of its targets in `members`.
    pub members_first: u32,
    /// Number of its targets in `members`.
    pub members: u16,
    /// [`flags`].
    pub flags: u16,
    /// [`algorithm`].
    pub algorithm: u8,
    /// [`crate::target::Forward`] as a number.
    pub forward: u8,
    /// VLAN it is on, as in its rules.
    pub vlan: u16,
    /// New flows per second and CPU above which none is recorded (dsr) or accepted (nat); 0 no limit.
    pub new_flow_rate: u32,
    /// Switch it is on.
    pub switch: u16,
    /// Of the 8 places a flow has in the flow table, how many have to stay free when a flow of this service is
    /// recorded ([`crate::steer::place`]); 0 none. Flows of nat are recorded wherever there is room.
    pub kept_ways: u16,
    #[doc(hidden)]
    pub reserved: [u16; 18],
}

/// Where the answer of a nat target goes back to: what the client believes it talks to.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug, Default)]
pub struct Back {
    /// The VIP.
    pub vip: Ip,
    /// Service port in network order; 0 keeps the source port.
    pub port: u16,
    /// The service.
    pub service: u16,
    /// The target.
    pub target: u16,
    /// VLAN of the service.
    pub vlan: u16,
}

const _: () = assert!(size_of::<Rule>() == 12 && size_of::<AddressEntry>() == 64);
const _: () = assert!(size_of::<Service>() == 64 && size_of::<Back>() == 24);
