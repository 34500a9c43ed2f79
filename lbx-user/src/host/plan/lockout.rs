//! Could attaching lock the operator out? Then it needs `--yes`, and undoes itself unless it is confirmed.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::host::links::{Kind, View};

/// Why attaching to `switch` could cut off the caller; `None` when it could not.
///
/// `ssh_connection` is the variable SSH_CONNECTION: client address and port, server address and port.
pub fn lockout(view: &View, switch: &str, ssh_connection: Option<&str>) -> Option<String> {
    let involved = involved(view, switch);
    let name = |index: u32| view.by_index(index).map_or("?", |link| link.name.as_str());

    let words: Vec<&str> = ssh_connection.unwrap_or_default().split_whitespace().collect();
    if let [client, _, server, _] = words[..] {
        // A scope ("fe80::1%eth0") names the interface itself.
        let (server, scope) = server.split_once('%').map_or((server, None), |(ip, scope)| (ip, Some(scope)));
        let server: Option<IpAddr> = server.parse().ok();
        let on = view.addresses.iter().filter(|address| Some(address.address) == server);
        let on = on.filter(|address| scope.is_none_or(|scope| name(address.index) == scope));
        if let Some(address) = on.into_iter().find(|address| involved.contains(&address.index)) {
            return Some(format!("your SSH session from {client} comes in over {}", name(address.index)));
        }
        let client: Option<IpAddr> = client.split('%').next().and_then(|client| client.parse().ok());
        if let Some(index) = client.and_then(|client| way_to(view, client)).filter(|i| involved.contains(i)) {
            return Some(format!("the replies of your SSH session go out over {}", name(index)));
        }
    }
    let default = view.routes.iter().filter(|route| route.destination.is_none());
    let index = default.filter_map(|route| route.index).find(|index| involved.contains(index))?;
    Some(format!("the default route goes out over {}", name(index)))
}

/// The switch, what lies under it (ports, members of bonds), and what lies on top of any of them (VLANs).
fn involved(view: &View, switch: &str) -> BTreeSet<u32> {
    let mut involved: BTreeSet<u32> = view.link(switch).map(|link| link.index).into_iter().collect();
    loop {
        let more: Vec<u32> = view
            .links
            .iter()
            .filter(|link| !involved.contains(&link.index))
            .filter(|link| {
                let port = link.master.is_some_and(|master| involved.contains(&master));
                // A veth's "parent" is its peer, perhaps in another namespace, where indexes mean other links.
                let on_top = !matches!(link.kind, Kind::Veth { .. })
                    && link.parent.is_some_and(|parent| involved.contains(&parent));
                let under = view.links.iter().any(|above| {
                    involved.contains(&above.index)
                        && matches!(above.kind, Kind::Vlan { .. })
                        && above.parent == Some(link.index)
                });
                port || on_top || under
            })
            .map(|link| link.index)
            .collect();
        if more.is_empty() {
            return involved;
        }
        involved.extend(more);
    }
}

/// The interface of the most specific route to an address.
fn way_to(view: &View, address: IpAddr) -> Option<u32> {
    let routes = view.routes.iter().filter_map(|route| {
        let (network, prefix) = route.destination?;
        contains(network, prefix, address).then_some((prefix, route.index?))
    });
    routes.max_by_key(|(prefix, _)| *prefix).map(|(_, index)| index)
}

fn contains(network: IpAddr, prefix: u8, address: IpAddr) -> bool {
    ipnet::IpNet::new(network, prefix).is_ok_and(|network| network.contains(&address))
}
