//! Where frames for the targets of the config leave this host right now. Pure: reads a view, touches nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lbx_common::addr::Mac;
use lbx_common::limits::MAX_QUEUES;

use crate::config::{Config, Place, Service, Target};
use crate::host::plan::{self, ResolvedTarget};
use crate::host::vm::Process;
use crate::host::{Kind, Link, View};

/// A target as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// For the guard-rails: names, port, MAC, error.
    pub base: ResolvedTarget,
    /// Interface frames for it leave by; 0 if there is none.
    pub ifindex: u32,
    /// That interface's name.
    pub port: String,
    /// Queues of its vNIC.
    pub queues: u8,
    /// It is behind an uplink, not on this host.
    pub remote: bool,
    /// The uplink by which it is reached when it is not on this host; 0 if the switch has none.
    pub uplink: u32,
    /// The MAC it was known by last, if it was: that of a VM that has left.
    pub was: Option<Mac>,
}

impl Found {
    /// The name by which the whole instance knows it.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.base.service, self.base.target)
    }
}

/// MACs that were known before, by full name of the target, each with the interface it was known behind. A
/// bridge forgets who is silent for a while; as long as the interface is the same one, so is who is behind it.
pub type KnownMacs = BTreeMap<String, (u32, Mac)>;

/// Looks for every target, in the order of the config.
pub fn resolve(config: &Config, view: &View, processes: &[Process], known: &KnownMacs) -> Vec<Found> {
    let each = config.services.iter().flat_map(|service| service.targets.iter().map(move |t| (service, t)));
    plan::resolve(config, view, processes)
        .into_iter()
        .zip(each)
        .map(|(base, (service, target))| {
            let queues = base.queues.clamp(1, MAX_QUEUES) as u8;
            let was = None;
            let mut found =
                Found { base, ifindex: 0, port: String::new(), queues, remote: false, uplink: 0, was };
            found.was = known.get(&found.full_name()).map(|(_, mac)| *mac);
            let uplinks = uplinks(config, view, service);
            let learnt = view
                .fdb
                .iter()
                .find(|entry| found.base.mac == Some(entry.mac) && uplinks.contains(&entry.index));
            found.uplink = learnt.map(|entry| entry.index).or_else(|| uplinks.first().copied()).unwrap_or(0);
            if found.base.error.is_none() {
                found.base.error = leave(view, target, known, &mut found).err();
            }
            found
        })
        .collect()
}

fn leave(view: &View, target: &Target, known: &KnownMacs, found: &mut Found) -> Result<(), String> {
    if let Place::Mac(_) = target.place {
        found.remote = true;
        let link = view.by_index(found.uplink).ok_or("its switch has no uplink")?;
        return by(found, link);
    }
    let link = found.base.link.and_then(|index| view.by_index(index)).ok_or("its port is gone")?;
    let before =
        || known.get(&found.full_name()).filter(|(index, _)| *index == link.index).map(|(_, mac)| *mac);
    let mac = found.base.mac.or_else(|| neighbour(view, target)).or_else(before);
    found.base.mac = mac;
    by(found, link)?;
    match found.base.mac {
        Some(_) => Ok(()),
        None => Err(format!("nothing has been heard from behind {} yet, so its MAC is not known", link.name)),
    }
}

fn by(found: &mut Found, link: &Link) -> Result<(), String> {
    (found.ifindex, found.port) = (link.index, link.name.clone());
    if link.up { Ok(()) } else { Err(format!("{} is down", link.name)) }
}

/// The MAC of the target's configured address.
fn neighbour(view: &View, target: &Target) -> Option<Mac> {
    let addresses = [target.address.map(IpAddr::V4), target.address6.map(IpAddr::V6)];
    addresses.into_iter().flatten().find_map(|addr| view.neighbour_mac(addr))
}

/// The uplinks of a service's switch.
pub(super) fn uplinks(config: &Config, view: &View, service: &Service) -> Vec<u32> {
    let Some(switch) = view.link(&service.switch) else { return Vec::new() };
    if !switch.is_bridge() {
        return vec![switch.index];
    }
    let named = config.switch(&service.switch).and_then(|switch| switch.uplinks.as_ref());
    view.ports(switch.index)
        .filter(|port| match named {
            Some(names) => names.contains(&port.name),
            None => matches!(port.kind, Kind::Physical | Kind::Bond | Kind::Vlan { .. }),
        })
        .map(|port| port.index)
        .collect()
}
