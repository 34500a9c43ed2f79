//! A target as the kernel sees it: one cache line, its state one aligned word.

use crate::addr::{Ip, Mac};
use crate::limits::{MAX_QUEUES, MAX_TARGETS};
use bytemuck::{Pod, Zeroable};

/// What the datapath does with packets of a target.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum State {
    /// Takes new flows and known ones.
    Active = 0,
    /// Takes no new flows; known ones keep going.
    Draining = 1,
    /// Every packet to it is dropped and counted, until the deadline.
    Blackholed = 2,
    /// Known flows are forwarded to the VM's new host.
    Moved = 3,
    /// Gone: known flows are selected anew.
    Down = 4,
    /// Not in use until it is needed.
    Standby = 5,
}

impl State {
    /// All states, by number.
    pub const ALL: [Self; 6] =
        [Self::Active, Self::Draining, Self::Blackholed, Self::Moved, Self::Down, Self::Standby];

    /// From its number; an unknown one is [`State::Down`], the only one that sends no packet there.
    #[inline(always)]
    pub const fn from_u8(n: u8) -> Self {
        match n {
            0 => Self::Active,
            1 => Self::Draining,
            2 => Self::Blackholed,
            3 => Self::Moved,
            5 => Self::Standby,
            _ => Self::Down,
        }
    }

    /// Its name in the CLI, the API and Prometheus.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Blackholed => "blackholed",
            Self::Moved => "moved",
            Self::Down => "down",
            Self::Standby => "standby",
        }
    }

    /// From its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }

    /// Whether a new flow may be bound to a target in this state.
    #[inline(always)]
    pub const fn takes_new(self) -> bool {
        matches!(self, Self::Active)
    }
}

/// State, the state to fall back to, and the deadline of the state, in one aligned word, so that one store
/// flips all three.
///
/// Bits 0-7 state, 8-15 fallback, 16-23 reserved (0), 24-63 deadline: the low 40 bits of jiffies64 after
/// which the target counts as `fallback`; 0 is no deadline.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug, Default)]
pub struct StateWord(pub u64);

impl StateWord {
    /// A state without deadline.
    #[inline(always)]
    pub const fn new(state: State) -> Self {
        Self(state as u64 | ((state as u64) << 8))
    }
    /// A state that ends at a deadline (jiffies64) and then counts as `fallback`.
    #[inline(always)]
    pub const fn until(state: State, fallback: State, deadline: u64) -> Self {
        let deadline = deadline & ((1 << 40) - 1);
        // 0 means "none": a deadline that would be 0 is one jiffy later.
        let deadline = if deadline == 0 { 1 } else { deadline };
        Self(state as u64 | ((fallback as u64) << 8) | (deadline << 24))
    }
    /// The state as stored, whatever the deadline says.
    #[inline(always)]
    pub const fn stored(self) -> State {
        State::from_u8(self.0 as u8)
    }
    /// The state after the deadline.
    #[inline(always)]
    pub const fn fallback(self) -> State {
        State::from_u8((self.0 >> 8) as u8)
    }
    /// Deadline in jiffies64 (low 40 bits), if there is one.
    #[inline(always)]
    pub const fn deadline(self) -> Option<u64> {
        let deadline = self.0 >> 24;
        if deadline == 0 { None } else { Some(deadline) }
    }
    /// The state at a time (jiffies64), and whether it is so because the deadline passed.
    #[inline(always)]
    pub const fn at(self, jiffies: u64) -> (State, bool) {
        let deadline = self.0 >> 24;
        if deadline != 0 && (jiffies & ((1 << 40) - 1)) >= deadline {
            (self.fallback(), true)
        } else {
            (self.stored(), false)
        }
    }
}

/// How a packet gets to its target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Forward {
    /// Only the MACs are rewritten; the VM owns the VIP.
    Dsr = 0,
    /// Address and port are rewritten, and back on the return.
    Nat = 1,
    /// In a tunnel, to a target on another network.
    Encap = 2,
}

/// How a frame gets into the target's port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Deliver {
    /// Straight into the tap (XDP or tc redirect), past the bridge.
    Redirect = 0,
    /// Rewritten, then left to the bridge: its filters, VLANs and shaping stay in force.
    Bridge = 1,
    /// Out of the uplink, to a machine on its segment, with the uplink's own source MAC.
    Uplink = 2,
}

/// Bits of [`Target::flags`].
pub mod flags {
    /// The entry is in use.
    pub const IN_USE: u16 = 1;
    /// The return path may translate without a recorded flow: the port serves only this service.
    pub const EXCLUSIVE: u16 = 2;
    /// Frames are put into the queue that their flow is bound to ([`crate::steer::queue`]).
    pub const QUEUES: u16 = 0x100;
}

/// One target. One cache line; user space maps the array and stores fields in place.
#[repr(C, align(64))]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug, Default)]
pub struct Target {
    /// State, fallback, deadline.
    pub state: StateWord,
    /// Kernel address of the ring of queue 0 (live depth), 0 if unknown.
    pub ring: u64,
    /// IPv6 address for `nat`, unspecified if it has none.
    pub addr6: Ip,
    /// IPv4 address for `nat` as it lies in a packet, 0 if it has none.
    pub addr4: u32,
    /// Interface index of the port the target is reached by.
    pub ifindex: u32,
    /// MAC of the vNIC.
    pub mac: Mac,
    /// Port for `nat` in network order; 0 keeps the service's.
    pub port: u16,
    /// Index of the port in `ports`, and slot in the devmap.
    pub port_index: u16,
    /// Tag to put on frames into the port: VLAN id, 0 untagged.
    pub vlan: u16,
    /// Largest IP packet the port takes, in bytes.
    pub mtu: u16,
    /// [`flags`].
    pub flags: u16,
    /// Service it belongs to.
    pub service: u16,
    /// Where its flows go while it is moved: index into `elsewhere`, 0 nowhere.
    pub elsewhere: u16,
    /// [`Forward`] as a number.
    pub forward: u8,
    /// Queues of the vNIC.
    pub queues: u8,
    /// Counts up each time the index is given to another target.
    pub generation: u8,
    /// [`Deliver`] as a number.
    pub deliver: u8,
}

/// The weight of one queue of one target: the map user space, measuring and migration write through.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug, Default)]
pub struct Weight {
    /// Share of new flows, relative to the other entries of the service.
    pub weight: u32,
    /// What the operator configured, so that user space can explain the difference.
    pub configured: u32,
}

const _: () = assert!(size_of::<Target>() == 64 && size_of::<Weight>() == 8);
const _: () = assert!(MAX_TARGETS <= u16::MAX as u32);

/// Index of a (target, queue) in the `weights` map.
#[inline(always)]
pub const fn weight_index(target: u32, queue: u32) -> u32 {
    target * MAX_QUEUES + (queue & (MAX_QUEUES - 1))
}
