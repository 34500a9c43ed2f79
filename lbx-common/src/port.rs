//! A port of a switch, as the kernel sees it.

use crate::addr::Mac;
use crate::limits::NEAR_PORTS;
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
    #[doc(hidden)]
    pub reserved_head: [u8; 4],
    /// MAC of the switch: frames addressed to it are candidates for steering.
    pub switch_mac: Mac,
    #[doc(hidden)]
    pub reserved_switch: [u8; 2],
    /// MAC of the port itself: the source of what lbx sends out of it on its own behalf.
    pub mac: Mac,
    #[doc(hidden)]
    pub reserved_mac: [u8; 2],
    #[doc(hidden)]
    pub reserved: [u64; 4],
    /// VLANs the port is a member of, bit by bit.
    pub vlans: [u64; 64],
}

/// Interface index (bits 0-31) and port index (32-63) in the place of the interface index's low bits; 0 is nobody.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug, Default)]
pub struct NearPort(pub u64);

impl NearPort {
    /// Packs both.
    pub const fn new(ifindex: u32, port_index: u32) -> Self {
        Self(ifindex as u64 | (port_index as u64) << 32)
    }
    /// The place of an interface.
    #[inline(always)]
    pub const fn place(ifindex: u32) -> u32 {
        ifindex & (NEAR_PORTS - 1)
    }
    /// Index of the interface's port, if it is the one that has the place.
    #[inline(always)]
    pub const fn port_of(self, ifindex: u32) -> Option<u32> {
        if self.0 as u32 == ifindex { Some((self.0 >> 32) as u32) } else { None }
    }
}

impl Default for Port {
    fn default() -> Self {
        Zeroable::zeroed()
    }
}

const _: () = assert!(size_of::<Port>() == 64 + 512);

const _: () =
    assert!(core::mem::offset_of!(Port, switch_mac) == 16 && core::mem::offset_of!(Port, mac) == 24);

impl Port {
    /// Whether a destination (its 48 bits as they lie in the frame) is the switch's MAC or the port's: the frame has
    /// not been steered yet, and is not a VM's own.
    #[inline(always)]
    pub fn accepts(&self, dst: u64) -> bool {
        // Each MAC is a word, with two bytes of zero behind it.
        let words: &[u64; 72] = bytemuck::cast_ref(self);
        words[2] == dst || words[3] == dst
    }
    /// Whether frames of the VLAN may come in or go out here.
    #[inline(always)]
    pub const fn is_member(&self, vlan: u16) -> bool {
        self.flags & flags::VLAN_FILTERING == 0
            || self.vlans[(vlan as usize >> 6) & 63] & (1 << (vlan & 63)) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_for_one_interface() {
        let near = NearPort::new(5, 7);
        assert_eq!(near.port_of(5), Some(7));
        assert_eq!(near.port_of(5 + NEAR_PORTS), None);
        assert_eq!(NearPort::place(5), NearPort::place(5 + NEAR_PORTS));
        assert_eq!(NearPort::default().port_of(5), None);
    }

    #[test]
    fn a_port_accepts_its_macs() {
        let port = Port { switch_mac: [2, 0, 0, 0, 0, 1], mac: [2, 0, 0, 0, 0, 2], ..Port::default() };
        let word = |mac: Mac| u64::from_le_bytes([mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], 0, 0]);
        assert!(port.accepts(word(port.switch_mac)) && port.accepts(word(port.mac)));
        assert!(!port.accepts(word([2, 0, 0, 0, 0, 3])));
    }
}
