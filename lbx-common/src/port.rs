//! A port of a switch, as the kernel sees it.

use crate::addr::Mac;
use bytemuck::{Pod, Zeroable};

/// Bits of [`Port::flags`].
pub mod flags {
    /// Leads out of the host: VIPs are answered for here.
    pub const UPLINK: u16 = 1;
    /// A VM's vNIC.
    pub const VNIC: u16 = 2;
    /// At least one nat target is behind it: answers are looked up.
    pub const NAT_TARGETS: u16 = 4;
    /// Every verdict is computed and counted, every packet passes.
    pub const OBSERVE: u16 = 8;
    /// The bridge filters VLANs: membership is checked, untagged frames belong to the PVID.
    pub const VLAN_FILTERING: u16 = 16;
    /// The switch device itself (frames delivered up, or sent by the host).
    pub const SWITCH: u16 = 32;
    /// The switch learns MACs: a client's first frame goes by the bridge, so that replies do not flood.
    pub const LEARNING: u16 = 64;
    /// Answers of nat targets that the bridge delivers to are translated where they leave the bridge, not where
    /// they enter it: its filters and conntrack see both ways of a connection with the same addresses.
    pub const BACK_AT_EGRESS: u16 = 128;
}

/// One port.
#[repr(C, align(64))]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug)]
pub struct Port {
    /// Interface index; 0 in a free entry.
    pub ifindex: u32,
    /// Switch it belongs to (index).
    pub switch: u16,
    /// VLAN of untagged frames; 0 without VLAN filtering.
    pub pvid: u16,
    /// [`flags`].
    pub flags: u16,
    /// MTU in bytes (IP packet).
    pub mtu: u16,
    /// MAC of the switch: frames addressed to it are candidates for steering. Aligned to 4, like the next.
    pub switch_mac: Mac,
    #[doc(hidden)]
    pub reserved_mac: [u8; 2],
    /// MAC of the port itself: the source of what lbx sends out of it on its own behalf.
    pub mac: Mac,
    #[doc(hidden)]
    pub reserved: [u16; 19],
    /// VLANs the port is a member of, bit by bit.
    pub vlans: [u64; 64],
}

impl Default for Port {
    fn default() -> Self {
        Zeroable::zeroed()
    }
}

const _: () = assert!(size_of::<Port>() == 64 + 512);

impl Port {
    /// Whether frames of the VLAN may come in or go out here.
    #[inline(always)]
    pub const fn is_member(&self, vlan: u16) -> bool {
        self.flags & flags::VLAN_FILTERING == 0
            || self.vlans[(vlan as usize >> 6) & 63] & (1 << (vlan & 63)) != 0
    }
}
