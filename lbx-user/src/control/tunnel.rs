//! How frames get to VMs that moved to another network: the way to each peer's end of the tunnel. Pure: reads a view,
//! touches nothing.

use std::net::IpAddr;

use lbx_common::addr::Mac;
use lbx_common::target::Deliver;
use lbx_common::tunnel::{TunnelWord, overhead};

use super::desired::{Moves, Place, Through, TunnelVm, TunnelWant};
use super::resolve::{Found, uplinks};
use crate::config::{Config, Peer, Tunnel};
use crate::host::View;

/// The routing table `main` (rt_addrtable in include/uapi/linux/rtnetlink.h).
const MAIN: u32 = 254;

/// How frames leave for an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// The port they leave by.
    pub port: u32,
    /// Next hop.
    pub hop: Mac,
    /// Largest IP packet.
    pub mtu: u16,
}

/// Who is asked for a MAC: interface and address of the next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// The interface the host's route says.
    pub index: u32,
    /// The next router, or the address itself.
    pub address: IpAddr,
}

/// The next hop to an address, by the host's main routing table: the longest prefix, of several the first.
pub fn next(view: &View, to: IpAddr) -> Option<Next> {
    let mut best: Option<(u8, Next)> = None;
    for route in view.routes.iter().filter(|route| route.table == MAIN) {
        let Some(index) = route.index else { continue };
        let (within, prefix) = match route.destination {
            Some((network, prefix)) => (holds(network, prefix, to), prefix),
            // Default routes of both families look alike where they have no gateway.
            None => (route.gateway.is_none_or(|gateway| gateway.is_ipv4() == to.is_ipv4()), 0),
        };
        if within && best.is_none_or(|(longest, _)| prefix > longest) {
            best = Some((prefix, Next { index, address: route.gateway.unwrap_or(to) }));
        }
    }
    best.map(|(_, next)| next)
}

fn holds(network: IpAddr, prefix: u8, address: IpAddr) -> bool {
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let differ = network.to_bits() ^ address.to_bits();
            differ.leading_zeros() >= u32::from(prefix)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let differ = network.to_bits() ^ address.to_bits();
            differ.leading_zeros() >= u32::from(prefix)
        }
        _ => false,
    }
}

/// The way from a switch to an address.
///
/// # Errors
/// Why there is none.
pub fn way(view: &View, switch: &str, uplinks: &[u32], to: IpAddr) -> Result<Way, String> {
    let next = next(view, to).ok_or_else(|| format!("the host has no route to {to}"))?;
    let out = view.by_index(next.index).ok_or("the interface of the route is gone")?;
    let neighbour =
        view.neighbours.iter().find(|known| known.address == next.address && known.index == next.index);
    let hop = neighbour
        .and_then(|known| known.mac)
        .ok_or_else(|| format!("{} has not answered on {} yet", next.address, out.name))?;
    let port = if out.name == switch && out.is_bridge() {
        let learnt = view.fdb.iter().find(|entry| entry.mac == hop && uplinks.contains(&entry.index));
        learnt.map(|entry| entry.index).or_else(|| uplinks.first().copied())
    } else {
        uplinks.iter().copied().find(|index| *index == out.index)
    };
    let port = port.and_then(|index| view.by_index(index)).ok_or_else(|| {
        format!(
            "the route to {to} leaves by {}, which is no part of {switch}: frames cannot go there",
            out.name
        )
    })?;
    let mtu = out.mtu.min(port.mtu).min(u32::from(u16::MAX)) as u16;
    Ok(Way { port: port.index, hop, mtu })
}

/// Where the flows of a target on another network go. `host`: the VM's new host, if that is known. `None`: over the
/// common segment.
pub fn moves(config: &Config, view: &View, one: &Found, tag: u16, host: Option<&str>) -> Option<Moves> {
    let (own, peer) = peer(config, host)?;
    let end = peer.tunnel?;
    let waiting = |why| Some(Moves::Waiting { end, why: format!("no way to {} yet: {why}", peer.name) });
    let Some(mac) = one.base.mac.or(one.was) else {
        return waiting("the MAC of the VM is not known".to_owned());
    };
    let service = config.service(&one.base.service)?;
    let uplinks = uplinks(config, view, service);
    let way = match way(view, &service.switch, &uplinks, end) {
        Ok(way) => way,
        Err(why) => return waiting(why),
    };
    let carried = peer.tunnel_mtu.map_or(way.mtu, |mtu| mtu.min(way.mtu));
    Some(Moves::To(Place {
        ifindex: way.port,
        vlan: tag,
        mtu: carried.saturating_sub(overhead(end.is_ipv4(), tag != 0)),
        mac,
        deliver: Deliver::Uplink,
        through: Some(Through { hop: way.hop, own: own.address, end, vni: own.vni, port: own.port }),
    }))
}

/// The peer of a name. Where nobody said who it is, the only one there is.
fn peer<'a>(config: &'a Config, host: Option<&str>) -> Option<(&'a Tunnel, &'a Peer)> {
    let peers = config.peers.as_ref()?;
    let peer = match (host, peers.others.as_slice()) {
        (Some(host), _) => peers.peer(host)?,
        (None, [only]) => only,
        (None, _) => return None,
    };
    Some((peers.tunnel.as_ref()?, peer))
}

/// What comes out of tunnels here: from all peers that have an end, for every VM behind a port of this host. `straight`:
/// whether frames for a target go straight into its port.
pub fn want(config: &Config, found: &[Found], straight: impl Fn(&Found) -> bool) -> Option<TunnelWant> {
    let peers = config.peers.as_ref()?;
    let own = peers.tunnel?;
    let mut vms: Vec<TunnelVm> = Vec::new();
    for one in found.iter().filter(|one| one.ifindex != 0 && !one.remote) {
        let (Some(service), Some(mac)) = (config.service(&one.base.service), one.base.mac) else { continue };
        let (switch, ifindex, straight) = (service.switch.clone(), one.ifindex, straight(one));
        match vms.iter_mut().find(|vm| (&vm.switch, vm.mac) == (&switch, mac)) {
            // What the policy of one service asks for holds for the VM.
            Some(vm) => vm.straight &= straight,
            None => vms.push(TunnelVm { switch, mac, ifindex, straight }),
        }
    }
    Some(TunnelWant {
        own: own.address,
        word: TunnelWord::new(own.vni, own.port),
        peers: peers.others.iter().filter_map(|peer| peer.tunnel).collect(),
        vms,
    })
}

/// What keeps frames from getting through a tunnel, for people: peer and reason.
pub fn problems(config: &Config, view: &View, uplinks: &[(String, Vec<u32>)]) -> Vec<(String, String)> {
    let Some(peers) = config.peers.as_ref() else { return Vec::new() };
    let Some(own) = peers.tunnel.as_ref() else { return Vec::new() };
    let mut problems = Vec::new();
    if !view.addresses.iter().any(|address| address.address == own.address) {
        problems.push((peers.name.clone(), format!("{} is no address of this host", own.address)));
    }
    for peer in &peers.others {
        let Some(end) = peer.tunnel else { continue };
        for (switch, uplinks) in uplinks {
            if let Err(why) = way(view, switch, uplinks, end) {
                problems.push((peer.name.clone(), why));
            }
        }
    }
    problems
}

/// The next hops to all peers: whose MACs the host is to know.
pub fn hops(config: &Config, view: &View) -> Vec<(Next, Option<Mac>)> {
    let Some(peers) = config.peers.as_ref().filter(|peers| peers.tunnel.is_some()) else { return Vec::new() };
    let ends = peers.others.iter().filter_map(|peer| peer.tunnel);
    let mut all: Vec<(Next, Option<Mac>)> = Vec::new();
    for next in ends.filter_map(|end| next(view, end)) {
        let known =
            view.neighbours.iter().find(|known| known.address == next.address && known.index == next.index);
        if !all.iter().any(|(other, _)| *other == next) {
            all.push((next, known.and_then(|known| known.mac)));
        }
    }
    all
}

#[cfg(test)]
mod tests;
