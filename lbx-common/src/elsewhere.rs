//! Where the flows of a moved target go.
//!
//! An entry says all of it by itself: the VM's old vNIC may be gone by then, and with it what the target's own
//! entry says of it. It is written, and named by the target, before the target's state says `moved`; an entry that
//! a target names is not changed, so that a flow goes from one place to another with one store.

use crate::addr::{Ip, Mac};
use crate::limits::MAX_ELSEWHERE;
use crate::target::Deliver;
use bytemuck::{Pod, Zeroable};

/// A place for moved flows. One cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug, Default)]
pub struct Elsewhere {
    /// Interface index of the port that frames leave by; 0 in an entry that nobody used yet.
    pub ifindex: u32,
    /// Index of that port in `ports`, and slot in the devmap.
    pub port_index: u16,
    /// Tag to put on: VLAN id, 0 untagged.
    pub vlan: u16,
    /// Largest IP packet that can be sent there, in bytes; 0 no limit.
    pub mtu: u16,
    /// MAC that frames go to: the VM's.
    pub mac: Mac,
    /// [`Deliver`] as a number: into a port of this switch, or out of an uplink.
    pub deliver: u8,
    /// Whether frames go through a tunnel ([`crate::tunnel`]): 1, else 0 and none of what follows counts.
    pub tunnel: u8,
    /// MAC of the next hop on the way to the other host.
    pub hop: Mac,
    /// This host's end of the tunnel.
    pub src: Ip,
    /// The other host's end, of the same family.
    pub dst: Ip,
    /// VXLAN network.
    pub vni: u32,
    /// The other host's UDP port, host order.
    pub udp_port: u16,
    #[doc(hidden)]
    pub reserved: [u8; 2],
}

const _: () = assert!(size_of::<Elsewhere>() == 64);
const _: () = assert!(MAX_ELSEWHERE <= u16::MAX as u32 + 1);

impl Elsewhere {
    /// Whether frames go out of an uplink, with the uplink's own source MAC.
    #[inline(always)]
    pub const fn is_outward(&self) -> bool {
        self.deliver == Deliver::Uplink as u8
    }

    /// Whether frames go through a tunnel.
    #[inline(always)]
    pub const fn is_tunnel(&self) -> bool {
        self.tunnel != 0
    }

    /// Whether a frame would go in circles: into the port it came in by, or again out of an uplink whose MAC
    /// (`own`) is its source already.
    #[inline(always)]
    pub fn loops(&self, ingress: u32, source: &Mac, own: &Mac) -> bool {
        if self.is_outward() { source == own } else { self.port_index as u32 == ingress }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_may_leave_by_the_uplink_it_came_in_by_but_only_once() {
        let (client, own) = ([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1]);
        let out = Elsewhere { port_index: 4, deliver: Deliver::Uplink as u8, ..Elsewhere::default() };
        assert!(out.is_outward() && !out.loops(4, &client, &own));
        assert!(out.loops(4, &own, &own) && out.loops(5, &own, &own), "what we sent ourselves came back");
        let tap = Elsewhere { deliver: Deliver::Redirect as u8, ..out };
        assert!(!tap.is_outward() && tap.loops(4, &client, &own) && !tap.loops(5, &client, &own));
    }
}
