//! Fill a [`View`] over rtnetlink (rtnetlink(7)), in the namespace of the calling thread.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{
    AfSpecBridge, BridgeVlanInfoFlags, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoTun,
    InfoVlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::packet_core::Nla;
use rtnetlink::{Handle, RouteMessageBuilder};

use super::links::{Address, FdbEntry, Kind, Link, Neighbour, PortVlan, Route, View};

/// IFLA_TUN_TYPE and IFLA_TUN_NUM_QUEUES (include/uapi/linux/if_link.h); IFF_TAP is 2.
const TUN_TYPE: u16 = 3;
const TUN_NUM_QUEUES: u16 = 8;
const IFF_TAP: u8 = 2;

/// Read everything. Needs no privilege; must run on a tokio runtime.
///
/// # Errors
/// A netlink request that failed.
pub async fn view() -> io::Result<View> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let task = tokio::spawn(connection);
    let result = read(&handle).await;
    task.abort();
    result
}

async fn read(handle: &Handle) -> io::Result<View> {
    let mut view = View::default();
    let messages: Vec<LinkMessage> =
        handle.link().get().execute().try_collect().await.map_err(io::Error::other)?;
    view.links = messages.iter().map(link).collect();
    let masks = vec![LinkExtentMask::Brvlan];
    let ports = handle.link().get().set_filter_mask(AddressFamily::Bridge, masks).execute();
    let ports: Vec<LinkMessage> = ports.try_collect().await.map_err(io::Error::other)?;
    for port in &ports {
        let vlans = port_vlans(port);
        if let Some(link) = view.links.iter_mut().find(|link| link.index == port.header.index) {
            link.vlans = vlans;
        }
    }
    let addresses: Vec<_> = handle.address().get().execute().try_collect().await.map_err(io::Error::other)?;
    for message in addresses {
        // On a point-to-point link ADDRESS is the peer's; LOCAL, where there is one, is ours.
        let mut own = None;
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(address) => own = Some(*address),
                AddressAttribute::Address(address) => own = own.or(Some(*address)),
                _ => {}
            }
        }
        let (index, prefix) = (message.header.index, message.header.prefix_len);
        view.addresses.extend(own.map(|address| Address { index, address, prefix }));
    }
    for request in
        [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()]
    {
        let routes: Vec<RouteMessage> =
            handle.route().get(request).execute().try_collect().await.map_err(io::Error::other)?;
        view.routes.extend(routes.iter().filter_map(route));
    }
    let known: Vec<NeighbourMessage> =
        handle.neighbours().get().execute().try_collect().await.map_err(io::Error::other)?;
    view.neighbours = known.iter().filter_map(neighbour).collect();
    let fdb = handle.neighbours().get().set_address_family(AddressFamily::Bridge).execute();
    let fdb: Vec<NeighbourMessage> = fdb.try_collect().await.map_err(io::Error::other)?;
    view.fdb = fdb.iter().filter_map(fdb_entry).collect();
    Ok(view)
}

/// A message about an interface as plain data; VLANs come in messages of their own.
pub(super) fn link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: Kind::Physical,
        master: None,
        parent: None,
        mac: [0; 6],
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        xdp: None,
        vlans: Vec::new(),
        learning: true,
    };
    let mut infos: &[LinkInfo] = &[];
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Controller(index) => link.master = Some(*index),
            LinkAttribute::Link(index) => link.parent = Some(*index),
            LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().unwrap_or_default(),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Xdp(xdp) => link.xdp = xdp.iter().find_map(program_id),
            LinkAttribute::LinkInfo(list) => infos = list,
            _ => {}
        }
    }
    link.kind = kind(message.header.link_layer_type, infos, link.parent);
    for info in infos {
        if let LinkInfo::PortData(InfoPortData::BridgePort(port)) = info {
            link.learning = port.iter().all(|data| *data != InfoBridgePort::Learning(false));
        }
    }
    link
}

fn program_id(xdp: &LinkXdp) -> Option<u32> {
    match xdp {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => {
            Some(*id).filter(|id| *id != 0)
        }
        _ => None,
    }
}

fn kind(layer: LinkLayerType, infos: &[LinkInfo], parent: Option<u32>) -> Kind {
    let data = infos.iter().find_map(|info| match info {
        LinkInfo::Data(data) => Some(data),
        _ => None,
    });
    let Some(name) = infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    }) else {
        return match layer {
            LinkLayerType::Loopback => Kind::Loopback,
            LinkLayerType::Ether => Kind::Physical,
            other => Kind::Other(format!("{other:?}").to_lowercase()),
        };
    };
    match (name, data) {
        (InfoKind::Bridge, data) => bridge(data),
        (InfoKind::Tun, data) => tun(layer, data),
        (InfoKind::Veth, _) => Kind::Veth { peer: parent },
        (InfoKind::Bond | InfoKind::Team, _) => Kind::Bond,
        (InfoKind::Vlan, Some(InfoData::Vlan(list))) => {
            let id = list.iter().find_map(|info| match info {
                InfoVlan::Id(id) => Some(*id),
                _ => None,
            });
            Kind::Vlan { id: id.unwrap_or(0) }
        }
        (InfoKind::MacVtap | InfoKind::IpVtap, _) => Kind::Macvtap,
        (InfoKind::MacVlan | InfoKind::IpVlan, _) => Kind::Macvlan,
        (other, _) => match other.to_string().as_str() {
            "openvswitch" => Kind::OpenVSwitch,
            name => Kind::Other(name.to_owned()),
        },
    }
}

fn bridge(data: Option<&InfoData>) -> Kind {
    let (mut vlan_filtering, mut default_pvid, mut calls_iptables) = (false, 0, false);
    if let Some(InfoData::Bridge(list)) = data {
        for info in list {
            match info {
                InfoBridge::VlanFiltering(on) => vlan_filtering = *on,
                InfoBridge::VlanDefaultPvid(id) => default_pvid = *id,
                InfoBridge::NfCallIpTables(on) | InfoBridge::NfCallIp6Tables(on) => calls_iptables |= *on,
                _ => {}
            }
        }
    }
    Kind::Bridge { vlan_filtering, default_pvid, calls_iptables }
}

fn tun(layer: LinkLayerType, data: Option<&InfoData>) -> Kind {
    let mut tap = layer == LinkLayerType::Ether;
    // One queue unless the kernel counts them.
    let mut queues = 1;
    if let Some(InfoData::Tun(list)) = data {
        for info in list {
            let InfoTun::Other(attribute) = info else { continue };
            let mut value = vec![0; attribute.value_len()];
            attribute.emit_value(&mut value);
            match (attribute.kind(), value.as_slice()) {
                (TUN_TYPE, [kind]) => tap = *kind == IFF_TAP,
                (TUN_NUM_QUEUES, &[a, b, c, d]) => queues = u32::from_ne_bytes([a, b, c, d]),
                _ => {}
            }
        }
    }
    if tap { Kind::Tap { queues } } else { Kind::Tun }
}

/// The VLANs in an AF_BRIDGE message; ranges only appear when compression is asked for, which it is not.
fn port_vlans(message: &LinkMessage) -> Vec<PortVlan> {
    let mut vlans = Vec::new();
    for attribute in &message.attributes {
        let LinkAttribute::AfSpecBridge(list) = attribute else { continue };
        for spec in list {
            let AfSpecBridge::VlanInfo(info) = spec else { continue };
            vlans.push(PortVlan {
                id: info.vid,
                pvid: info.flags.contains(BridgeVlanInfoFlags::Pvid),
                untagged: info.flags.contains(BridgeVlanInfoFlags::Untagged),
            });
        }
    }
    vlans
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

fn route(message: &RouteMessage) -> Option<Route> {
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let mut route =
        Route { index: None, destination: None, gateway: None, table: u32::from(message.header.table) };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => route.index = Some(*index),
            RouteAttribute::Gateway(address) => route.gateway = ip(address),
            RouteAttribute::Destination(address) => {
                route.destination =
                    ip(address).map(|address| (address, message.header.destination_prefix_length));
            }
            RouteAttribute::Table(table) => route.table = *table,
            // Several ways to one destination: the first stands for all, each is a way to lock oneself out.
            RouteAttribute::MultiPath(hops) => {
                route.index = route.index.or(hops.first().map(|hop| hop.interface_index));
            }
            _ => {}
        }
    }
    Some(route)
}

fn mac_of(attributes: &[NeighbourAttribute]) -> Option<[u8; 6]> {
    attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
        _ => None,
    })
}

fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    })?;
    let resolved = !matches!(message.header.state, NeighbourState::Failed | NeighbourState::Incomplete);
    let mac = mac_of(&message.attributes).filter(|_| resolved);
    Some(Neighbour { index: message.header.ifindex, address, mac })
}

fn fdb_entry(message: &NeighbourMessage) -> Option<FdbEntry> {
    let mut entry = FdbEntry {
        index: message.header.ifindex,
        master: None,
        mac: mac_of(&message.attributes)?,
        vlan: None,
        permanent: matches!(message.header.state, NeighbourState::Permanent),
    };
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Controller(index) => entry.master = Some(*index),
            NeighbourAttribute::Vlan(id) => entry.vlan = Some(*id),
            _ => {}
        }
    }
    Some(entry)
}
