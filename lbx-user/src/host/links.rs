//! What the kernel says about interfaces, as plain data.

use std::net::IpAddr;

/// What sort of interface it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A Linux bridge.
    Bridge {
        /// VLANs separate its ports.
        vlan_filtering: bool,
        /// The VLAN of untagged frames on a new port; 0 for none.
        default_pvid: u16,
        /// Frames through it pass iptables or ip6tables (the bridge's own switch, not the sysctl).
        calls_iptables: bool,
    },
    /// A tap: the host's end of a vNIC.
    Tap {
        /// Queues that a process has attached.
        queues: u32,
    },
    /// A tun: packets without Ethernet.
    Tun,
    /// One end of a pair; `peer` is its index when that is in this namespace.
    Veth {
        /// The other end's index, in whatever namespace it is.
        peer: Option<u32>,
    },
    /// A bond of several NICs.
    Bond,
    /// A VLAN on top of another interface.
    Vlan {
        /// VLAN id.
        id: u16,
    },
    /// A port or the datapath of Open vSwitch.
    OpenVSwitch,
    /// macvtap or ipvtap.
    Macvtap,
    /// macvlan or ipvlan.
    Macvlan,
    /// Loopback.
    Loopback,
    /// Hardware, or what looks like it (virtio).
    Physical,
    /// Anything else, by the kernel's name for it.
    Other(String),
}

/// Membership of a bridge port in a VLAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortVlan {
    /// VLAN id.
    pub id: u16,
    /// Untagged frames that come in belong to it.
    pub pvid: bool,
    /// Its frames go out without a tag.
    pub untagged: bool,
}

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// ifindex, unique in this namespace only.
    pub index: u32,
    /// Name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// The bridge, bond or switch it is a port of.
    pub master: Option<u32>,
    /// The interface it lies on (VLAN, macvtap), or a veth's other end.
    pub parent: Option<u32>,
    /// MAC address; zero where it has none.
    pub mac: [u8; 6],
    /// MTU in bytes, without the Ethernet header.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// What it is made for is connected: a cable, a bridge's port, a reader.
    pub carrier: bool,
    /// The id of the XDP program on it.
    pub xdp: Option<u32>,
    /// As a bridge port (or the bridge itself): its VLANs.
    pub vlans: Vec<PortVlan>,
    /// As a bridge port: the bridge learns addresses from it.
    pub learning: bool,
}

impl Link {
    /// Whether it is a bridge.
    pub fn is_bridge(&self) -> bool {
        matches!(self.kind, Kind::Bridge { .. })
    }

    /// Whether a VLAN's frames may pass this port; every VLAN where the bridge does not filter.
    pub fn is_member(&self, vlan: u16) -> bool {
        self.vlans.iter().any(|own| own.id == vlan)
    }
}

/// An address of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The interface it is on.
    pub index: u32,
    /// The address.
    pub address: IpAddr,
    /// Prefix length.
    pub prefix: u8,
}

/// A unicast route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Out of this interface.
    pub index: Option<u32>,
    /// Network and prefix length; `None` for a default route.
    pub destination: Option<(IpAddr, u8)>,
    /// Next router.
    pub gateway: Option<IpAddr>,
    /// Routing table; 254 is main.
    pub table: u32,
}

/// What the host knows about a neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// On this interface.
    pub index: u32,
    /// Its address.
    pub address: IpAddr,
    /// Its MAC, once resolved.
    pub mac: Option<[u8; 6]>,
}

/// An entry of a bridge's forwarding database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FdbEntry {
    /// The port.
    pub index: u32,
    /// The bridge.
    pub master: Option<u32>,
    /// The MAC behind the port, or of the port itself.
    pub mac: [u8; 6],
    /// VLAN, where the bridge filters.
    pub vlan: Option<u16>,
    /// Set, not learnt: the port's own address.
    pub permanent: bool,
}

/// All of it at (nearly) one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Interfaces.
    pub links: Vec<Link>,
    /// Addresses.
    pub addresses: Vec<Address>,
    /// Routes.
    pub routes: Vec<Route>,
    /// Neighbours.
    pub neighbours: Vec<Neighbour>,
    /// Forwarding database of every bridge.
    pub fdb: Vec<FdbEntry>,
}

impl View {
    /// The interface of that name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The interface with that index.
    pub fn by_index(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// The ports of a bridge or the members of a bond.
    pub fn ports(&self, master: u32) -> impl Iterator<Item = &Link> {
        self.links.iter().filter(move |link| link.master == Some(master))
    }

    /// The ports of a bridge that an untagged frame of a VLAN may be put into past the bridge, which would not look
    /// at its VLAN there: all that are up, or where the bridge filters those that let the VLAN out without a tag.
    pub fn untagged_ports(&self, bridge: &Link, vlan: u16) -> impl Iterator<Item = &Link> {
        let filters = matches!(bridge.kind, Kind::Bridge { vlan_filtering: true, .. });
        let lets_out =
            move |port: &&Link| !filters || port.vlans.iter().any(|own| own.id == vlan && own.untagged);
        self.ports(bridge.index).filter(|port| port.up).filter(lets_out)
    }

    /// The one MAC that was learnt behind a port, if it is one.
    pub fn learnt_mac(&self, port: u32) -> Option<[u8; 6]> {
        let mut learnt = self.fdb.iter().filter(|entry| entry.index == port && !entry.permanent);
        let mac = learnt.next()?.mac;
        learnt.all(|entry| entry.mac == mac).then_some(mac)
    }

    /// The resolved MAC of an address.
    pub fn neighbour_mac(&self, address: IpAddr) -> Option<[u8; 6]> {
        self.neighbours.iter().find(|known| known.address == address).and_then(|known| known.mac)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{bridge, link, tap};
    use super::*;

    #[test]
    fn untagged_frames_go_where_their_vlan_does_so() {
        let member = |id, untagged| PortVlan { id, pvid: untagged, untagged };
        let port = |index, vlans: &[PortVlan]| Link {
            vlans: vlans.to_vec(),
            ..link(index, &format!("vif{index}"), tap(), Some(1))
        };
        let mut view = View {
            links: vec![
                link(1, "br0", bridge(true), None),
                port(2, &[member(1, true)]),
                port(3, &[member(10, true)]),
                port(4, &[member(10, false)]),
                port(5, &[member(1, false), member(10, true)]),
                port(6, &[member(1, true), member(10, false)]),
                link(7, "eth9", tap(), None),
            ],
            ..View::default()
        };
        view.links[5].up = false;
        let ports = |view: &View, vlan| {
            view.untagged_ports(&view.links[0], vlan).map(|port| port.index).collect::<Vec<_>>()
        };
        assert_eq!(ports(&view, 1), [2]);
        assert_eq!(ports(&view, 10), [3, 5]);
        view.links[0].kind = bridge(false);
        assert_eq!(ports(&view, 0), [2, 3, 4, 5]);
    }
}
