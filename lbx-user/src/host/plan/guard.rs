//! What lbx refuses to do on a host, with the reason: the config may be right and still not fit this machine.

use std::net::IpAddr;

use serde::Serialize;

use super::attach::unsupported;
use crate::config::checked::format_mac;
use crate::config::{Answer, Config, Delivery, Forward, Service};
use crate::host::filters::{Finding, Sender, Source};
use crate::host::links::{Kind, View};

/// A target as it was found on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedTarget {
    /// Its service's name.
    pub service: String,
    /// Its own name ([`crate::config::Target::name`]).
    pub target: String,
    /// The port it is behind; `None` for a machine elsewhere, or one that is not there.
    pub link: Option<u32>,
    /// The MAC that frames for it are addressed to, once known.
    pub mac: Option<[u8; 6]>,
    /// Queues of its vNIC; 1 where that is not known.
    pub queues: u32,
    /// Why it was not found.
    pub error: Option<String>,
}

/// What the guard-rails look at.
#[derive(Debug, Clone, Copy)]
pub struct GuardInput<'a> {
    /// The config.
    pub config: &'a Config,
    /// The host.
    pub view: &'a View,
    /// The targets as found.
    pub targets: &'a [ResolvedTarget],
    /// The filters found on the targets' ports.
    pub findings: &'a [Finding],
}

/// Something lbx will not do. A refused target is down; a refused service is suspended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The service.
    pub service: String,
    /// The target; `None` when the whole service is refused.
    pub target: Option<String>,
    /// Why.
    pub reason: String,
    /// What to do about it.
    pub hint: String,
}

/// Every refusal, in the order of the config.
pub fn guard_rails(input: &GuardInput<'_>) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    for service in &input.config.services {
        vips(input, service, &mut refusals);
        let own: Vec<&ResolvedTarget> =
            input.targets.iter().filter(|target| target.service == service.name).collect();
        for (n, target) in own.iter().enumerate() {
            let mut refuse = |reason: String, hint: &str| {
                let (service, target) = (service.name.clone(), Some(target.target.clone()));
                refusals.push(Refusal { service, target, reason, hint: hint.to_owned() });
            };
            same_mac(service, &own[..n], target, &mut refuse);
            place(input, service, target, &mut refuse);
            filters(input, service, target, &mut refuse);
        }
    }
    refusals
}

fn vips(input: &GuardInput<'_>, service: &Service, refusals: &mut Vec<Refusal>) {
    let view = input.view;
    let mut refuse = |reason: String, hint: &str| {
        refusals.push(Refusal { service: service.name.clone(), target: None, reason, hint: hint.to_owned() });
    };
    for vip in &service.vips {
        for address in view.addresses.iter().filter(|address| address.address == *vip) {
            let name = view.by_index(address.index).map_or("?", |link| link.name.as_str());
            // keepalived puts the VIP onto an interface, and `answer = "link:NAME"` is told which.
            if matches!(&service.answer, Answer::Link(link) if link == name) {
                continue;
            }
            refuse(
                format!(
                    "the VIP {vip} is an address of this host, on {name}: its own traffic would be steered"
                ),
                "remove it from the interface, or use `answer = \"link:NAME\"` if another program moves it",
            );
        }
        if view.routes.iter().any(|route| route.gateway == Some(*vip)) {
            let hint = "choose an address that belongs to no machine";
            refuse(format!("the VIP {vip} is the gateway of a route of this host"), hint);
        }
        if let Some(reason) = network_address(view, *vip) {
            refuse(format!("the VIP {vip} {reason}"), "choose a host's address of that network");
        }
        for owner in input.config.services.iter().filter(|other| other.switch == service.switch) {
            for target in owner.targets.iter().filter(|target| has_address(target, *vip)) {
                let name = target.name();
                let hint = "choose an address that belongs to no machine";
                refuse(format!("the VIP {vip} is the own address of target {}/{name}", owner.name), hint);
            }
        }
    }
}

fn has_address(target: &crate::config::Target, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => target.address == Some(v4),
        IpAddr::V6(v6) => target.address6 == Some(v6),
    }
}

/// The first and last address of an IPv4 network of this host are no machine's (RFC 1122 section 3.2.1.3).
fn network_address(view: &View, vip: IpAddr) -> Option<String> {
    let IpAddr::V4(vip) = vip else { return None };
    for address in &view.addresses {
        let IpAddr::V4(own) = address.address else { continue };
        // /31 and /32 have neither (RFC 3021).
        if address.prefix == 0 || address.prefix > 30 {
            continue;
        }
        let mask = u32::MAX << (32 - address.prefix);
        let network = u32::from(own) & mask;
        let name = std::net::Ipv4Addr::from(network);
        if u32::from(vip) == network | !mask {
            return Some(format!("is the broadcast address of {name}/{}", address.prefix));
        }
        if u32::from(vip) == network {
            return Some(format!("is the address of the network {name}/{} itself", address.prefix));
        }
    }
    None
}

fn same_mac(
    service: &Service,
    earlier: &[&ResolvedTarget],
    target: &ResolvedTarget,
    refuse: &mut impl FnMut(String, &str),
) {
    let Some(mac) = target.mac else { return };
    // Several ports of one VM share its MAC, and nat tells them apart.
    let same = |other: &&&ResolvedTarget| {
        other.mac == Some(mac) && (other.link != target.link || service.forward == Forward::Dsr)
    };
    if let Some(other) = earlier.iter().find(same) {
        refuse(
            format!("it has the same MAC address {} as target {}", format_mac(&mac), other.target),
            "give one of the VMs another MAC: the bridge delivers to one of them only",
        );
    }
}

fn place(
    input: &GuardInput<'_>,
    service: &Service,
    target: &ResolvedTarget,
    refuse: &mut impl FnMut(String, &str),
) {
    if let Some(error) = &target.error {
        refuse(error.clone(), "the target is down until it is found");
        return;
    }
    let Some(link) = target.link.and_then(|index| input.view.by_index(index)) else { return };
    if let Some(reason) = unsupported(input.view, link) {
        refuse(reason, "connect the VM to a Linux bridge by a tap");
        return;
    }
    let Some(switch) = input.view.link(&service.switch).filter(|switch| switch.is_bridge()) else { return };
    if link.master != Some(switch.index) {
        let on = link.master.and_then(|master| input.view.by_index(master));
        let on = on.map_or_else(|| "on no bridge".to_owned(), |bridge| format!("on {}", bridge.name));
        refuse(
            format!("its port {} is {on}, not on {}", link.name, switch.name),
            "connect it to the service's switch, or configure the service on the other one",
        );
        return;
    }
    let Kind::Bridge { vlan_filtering: true, default_pvid, .. } = switch.kind else { return };
    match service.vlan {
        Some(vlan) if !link.is_member(vlan) => refuse(
            format!("its port {} is not a member of VLAN {vlan}", link.name),
            "add it with `bridge vlan add`, or correct the service's `vlan`",
        ),
        None if !link.vlans.iter().any(|vlan| vlan.pvid) => refuse(
            format!(
                "its port {} takes no untagged frames (the bridge's default is {default_pvid})",
                link.name
            ),
            "give the service its `vlan`",
        ),
        _ => {}
    }
}

fn filters(
    input: &GuardInput<'_>,
    service: &Service,
    target: &ResolvedTarget,
    refuse: &mut impl FnMut(String, &str),
) {
    let Some(link) = target.link.and_then(|index| input.view.by_index(index)) else { return };
    let mut on_port = input.findings.iter().filter(|finding| finding.port == link.name);
    if service.deliver == Delivery::Redirect
        && let Some(finding) = on_port.clone().find(|finding| finding.source == Source::NoRedirect)
    {
        refuse(
            format!("`deliver = \"redirect\"` does not reach it: {finding}"),
            "`ethtool -K DEV gro on` on the other end of the port (or any XDP program there), or \
             `deliver = \"auto\"`",
        );
    }
    if service.deliver == Delivery::Redirect && !service.bypass_filters {
        // VLAN membership is kept by lbx itself; rules and shaping are not.
        let passed = |finding: &&Finding| {
            !matches!(finding.source, Source::Vlan | Source::NoRedirect | Source::RedirectUnknown)
        };
        if let Some(finding) = on_port.clone().find(passed) {
            refuse(
                format!("`deliver = \"redirect\"` would walk past a {finding}"),
                "use `deliver = \"auto\"`, or `bypass_filters = true` if that is meant",
            );
        }
    }
    let senders = senders(service);
    let dropped = on_port.find_map(|finding| {
        let sender = senders.iter().find(|sender| finding.drops.contains(sender))?;
        Some((finding, sender.address))
    });
    if let Some((finding, vip)) = dropped {
        refuse(
            format!(
                "with `dsr` it answers from the VIP {vip}, and its port filters source addresses: {finding}"
            ),
            "allow the VIP in that filter, or use `forward = \"nat\"`",
        );
    }
}

/// What the targets of a `dsr` service answer with; nothing for others.
pub fn senders(service: &Service) -> Vec<Sender> {
    let dsr = service.forward == Forward::Dsr;
    let (protocol, port) = (service.protocol.number(), service.ports.single());
    service.vips.iter().filter(|_| dsr).map(|vip| Sender { address: *vip, protocol, port }).collect()
}
