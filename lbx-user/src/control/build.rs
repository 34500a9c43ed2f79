//! From config, host and wishes to what the maps should say. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lbx_common::addr::Mac;
use lbx_common::limits::WAYS;
use lbx_common::port::{self, Port};
use lbx_common::service::algorithm;
use lbx_common::target::{Deliver, Forward, Weight};

use super::desired::{
    ControlWant, Desired, Moves, Place, PortWant, ServiceWant, SwitchWant, TargetWant, VipWant,
};
use super::resolve::Found;
use super::tables::queue_weights;
use super::tunnel;
use super::weigher::{self, Weigher};
use super::wishes::WishBook;
use crate::answer::{Key, machine::Phase};
use crate::config::{self, Answer, Config, Delivery, NoTarget, Service};
use crate::datapath::{IdleTimes, Rate};
use crate::host::filters::Finding;
use crate::host::plan::{Attach, Delivered, Plan, Refusal, Role, delivery_auto};
use crate::host::{Kind, Link, View};

/// Everything that decides.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The config.
    pub config: &'a Config,
    /// The host.
    pub view: &'a View,
    /// What goes onto which port, by switch.
    pub plans: &'a [Plan],
    /// The targets as found.
    pub found: &'a [Found],
    /// Filters on the targets' ports.
    pub findings: &'a [Finding],
    /// What the guard-rails refuse.
    pub refusals: &'a [Refusal],
    /// What owners wish.
    pub book: &'a WishBook,
    /// What follows from measuring.
    pub weigher: &'a Weigher,
    /// Where probing stands.
    pub answers: &'a BTreeMap<Key, Phase>,
    /// The other host of a migration, by full name of the target, where somebody said which.
    pub hosts: &'a BTreeMap<String, String>,
    /// The kernel's clock.
    pub rate: Rate,
}

/// Puts it together.
pub fn desired(input: &Input<'_>) -> Desired {
    let mut desired = Desired {
        control: ControlWant {
            idle: idle_times(input.config).limits(input.rate),
            learn: input.rate.epochs(input.config.timeouts.learn),
        },
        tunnel: tunnel::want(input.config, input.found, |one| goes_straight(input, one)),
        ..Desired::default()
    };
    for plan in input.plans.iter().filter(|plan| plan.index != 0) {
        let Some(link) = input.view.by_index(plan.index) else { continue };
        desired.switches.push(SwitchWant { name: plan.switch.clone(), ifindex: plan.index });
        desired.ports.extend(ports(input.view, plan, link));
    }
    for service in &input.config.services {
        if desired.switches.iter().any(|switch| switch.name == service.switch) {
            desired.services.push(service_want(input, service));
        }
    }
    desired
}

/// The idle times of the config.
pub fn idle_times(config: &Config) -> IdleTimes {
    let times = &config.timeouts;
    IdleTimes {
        new: times.tcp_new,
        established: times.tcp_established,
        closed: times.tcp_closed,
        datagram: times.udp,
    }
}

fn ports<'a>(view: &'a View, plan: &'a Plan, switch: &'a Link) -> impl Iterator<Item = PortWant> + 'a {
    plan.ports.iter().filter_map(move |port| {
        let link = view.by_index(port.index)?;
        // A port lbx cannot attach to can still be delivered into.
        if port.attach == Attach::None && port.role != Role::Vnic {
            return None;
        }
        let mut flags = match port.role {
            Role::Uplink => port::flags::UPLINK,
            Role::Vnic => port::flags::VNIC,
            Role::Switch => port::flags::SWITCH,
        };
        let mut entry = Port {
            ifindex: port.index,
            switch_mac: switch.mac,
            mac: link.mac,
            mtu: link.mtu.min(u32::from(u16::MAX)) as u16,
            ..Port::default()
        };
        if let Kind::Bridge { vlan_filtering, .. } = switch.kind {
            if link.learning && port.role != Role::Switch {
                flags |= port::flags::LEARNING;
            }
            if vlan_filtering {
                flags |= port::flags::VLAN_FILTERING;
                entry.pvid = link.vlans.iter().find(|vlan| vlan.pvid).map_or(0, |vlan| vlan.id);
                for vlan in &link.vlans {
                    entry.vlans[usize::from(vlan.id >> 6) & 63] |= 1 << (vlan.id & 63);
                }
            }
        }
        entry.flags = flags;
        Some(PortWant { name: port.name.clone(), switch: plan.switch.clone(), entry })
    })
}

/// The VLAN of a service in its rules: untagged frames of a filtering bridge belong to its PVID.
pub fn rule_vlan(view: &View, service: &Service) -> u16 {
    if let Some(vlan) = service.vlan {
        return vlan;
    }
    match view.link(&service.switch) {
        Some(link) => match link.kind {
            Kind::Bridge { vlan_filtering: true, default_pvid, .. } => {
                link.vlans.iter().find(|vlan| vlan.pvid).map_or(default_pvid, |vlan| vlan.id)
            }
            _ => 0,
        },
        None => 0,
    }
}

/// How frames of a service get into its local targets' ports, and why.
pub fn delivery(service: &Service, view: &View, found: &[Found], findings: &[Finding]) -> (Deliver, String) {
    let bridge = view.link(&service.switch).is_some_and(Link::is_bridge);
    match service.deliver {
        _ if !bridge => (Deliver::Redirect, "the switch is no bridge".to_owned()),
        Delivery::Redirect => (Deliver::Redirect, "`deliver = \"redirect\"`".to_owned()),
        Delivery::Bridge => (Deliver::Bridge, "`deliver = \"bridge\"`".to_owned()),
        Delivery::Auto => {
            let own = |finding: &&Finding| {
                found.iter().any(|one| one.base.service == service.name && one.port == finding.port)
            };
            let findings: Vec<Finding> = findings.iter().filter(own).cloned().collect();
            match delivery_auto(&findings) {
                (Delivered::Redirect, why) => (Deliver::Redirect, why),
                (Delivered::Bridge, why) => (Deliver::Bridge, why),
            }
        }
    }
}

/// Whether this host answers for a VIP now.
pub fn answers(input: &Input<'_>, service: &Service, addr: IpAddr, vlan: u16) -> bool {
    match &service.answer {
        Answer::Off => false,
        Answer::Probe => {
            let key = Key { switch: service.switch.clone(), vlan, addr };
            input.answers.get(&key) == Some(&Phase::Answering)
        }
        Answer::Link(name) => holds(input.view, name, addr),
    }
}

/// `link:NAME`: NAME is an address that this host holds somewhere, or an interface that is up and holds the
/// VIP (keepalived moves either).
fn holds(view: &View, name: &str, vip: IpAddr) -> bool {
    let up = |index| view.by_index(index).is_some_and(|link: &Link| link.up);
    if let Ok(address) = name.parse::<IpAddr>() {
        return view.addresses.iter().any(|own| own.address == address && up(own.index));
    }
    view.link(name).is_some_and(|link| {
        link.up && view.addresses.iter().any(|own| own.index == link.index && own.address == vip)
    })
}

/// Whether frames that come out of a tunnel go straight into a target's port, as those of its service do. Where the bridge
/// has VLANs it says who is a member.
fn goes_straight(input: &Input<'_>, one: &Found) -> bool {
    let Some(service) = input.config.service(&one.base.service) else { return false };
    let filtering = input
        .view
        .link(&service.switch)
        .is_some_and(|link| matches!(link.kind, Kind::Bridge { vlan_filtering, .. } if vlan_filtering));
    let (deliver, _) = delivery(service, input.view, input.found, input.findings);
    !filtering && service.vlan.is_none() && deliver == Deliver::Redirect && one.base.error.is_none()
}

fn service_want(input: &Input<'_>, service: &Service) -> ServiceWant {
    let vlan = rule_vlan(input.view, service);
    let refused = input.refusals.iter().find(|r| r.service == service.name && r.target.is_none());
    let (deliver, _) = delivery(service, input.view, input.found, input.findings);
    let own: Vec<&Found> = input.found.iter().filter(|one| one.base.service == service.name).collect();
    let weights = weights(input.config, service, &own, input.book, input.weigher);
    let targets = service.targets.iter().zip(own).zip(weights).map(|((target, one), weights)| {
        let name = one.full_name();
        let local = input.view.by_index(one.ifindex);
        TargetWant {
            name: target.name(),
            ifindex: one.ifindex,
            mac: one.base.mac.unwrap_or(Mac::default()),
            addr4: target.address,
            addr6: target.address6,
            port: target.port.unwrap_or(0),
            vlan: local.map_or(0, |link| tag(input.view, link, service, vlan)),
            mtu: local.map_or(1500, |link| link.mtu.min(u32::from(u16::MAX)) as u16),
            exclusive: service.exclusive,
            choose_queue: service.choose_queue
                && !one.remote
                && deliver == Deliver::Redirect
                && weights.len() > 1,
            deliver: if one.remote { Deliver::Uplink } else { deliver },
            moves: moves(input, service, one, vlan),
            host: input.hosts.get(&name).cloned(),
            weights,
            state: input.book.state(&name),
        }
    });
    let targets: Vec<TargetWant> = targets.collect();
    ServiceWant {
        name: service.name.clone(),
        switch: service.switch.clone(),
        vlan,
        vips: service
            .vips
            .iter()
            .map(|addr| VipWant {
                addr: *addr,
                answer: refused.is_none() && answers(input, service, *addr, vlan),
            })
            .collect(),
        protocol: service.protocol.number(),
        ports: (service.ports.first, service.ports.last),
        forward: match service.forward {
            config::Forward::Dsr => Forward::Dsr,
            config::Forward::Nat => Forward::Nat,
        },
        algorithm: match service.algorithm {
            config::Algorithm::Maglev => algorithm::MAGLEV,
            config::Algorithm::P2c => algorithm::P2C,
        },
        reject: service.no_target == NoTarget::Reject,
        suspended: refused.map(|refusal| refusal.reason.clone()),
        new_flow_rate: service.max_new_flows_per_second.unwrap_or(0),
        kept_ways: kept_ways(service.max_flow_table_percent),
        table_size: service.table_size,
        targets,
    }
}

/// Where the flows of a target go when it has moved: out of the uplink to its MAC, which the segment leads to its new
/// host; or there through a tunnel. A `nat` flow can follow only where its answers are translated without its record, which is on this host.
fn moves(input: &Input<'_>, service: &Service, one: &Found, vlan: u16) -> Moves {
    let view = input.view;
    if service.forward == config::Forward::Nat && !service.exclusive {
        return Moves::Nowhere;
    }
    let uplink = view.by_index(one.uplink);
    let host = input.hosts.get(&one.full_name()).map(String::as_str);
    let vlan_tag = uplink.map_or(0, |link| tag(view, link, service, vlan));
    if let Some(through) = tunnel::moves(input.config, view, one, vlan_tag, host) {
        return through;
    }
    match (one.base.mac, uplink) {
        (Some(mac), Some(link)) => Moves::To(Place {
            ifindex: link.index,
            vlan: vlan_tag,
            mtu: link.mtu.min(u32::from(u16::MAX)) as u16,
            mac,
            deliver: Deliver::Uplink,
            through: None,
        }),
        _ => Moves::AsBefore,
    }
}

/// Weights per target and queue: configured, or the operator's, times what follows from measuring.
pub fn weights(
    config: &Config,
    service: &Service,
    own: &[&Found],
    book: &WishBook,
    weigher: &Weigher,
) -> Vec<Vec<Weight>> {
    let scale = weigher::scale(service).saturating_mul(finer(service, book));
    let weights: Vec<(u32, u32, u8, &[u32])> = service
        .targets
        .iter()
        .zip(own)
        .map(|(target, one)| {
            let name = one.full_name();
            // What the operator says is taken as it is.
            let factor = match book.weight_override(&name) {
                Some(_) => 1.0,
                None => weigher.factor(service, &name, &config.weights),
            };
            // What migration leaves is a share of the finer weight.
            let share = f64::from(book.share(&name).unwrap_or(1000)) / 1000.0;
            let base = book.weight_override(&name).unwrap_or(target.weight);
            let weight = weigher::weight(base, scale, factor * share);
            (weight, target.weight.saturating_mul(scale), one.queues, target.queues.as_slice())
        })
        .collect();
    queue_weights(&weights)
}

/// Weights are in finer units while migration leaves a share of one: a tenth of 1 is nothing.
fn finer(service: &Service, book: &WishBook) -> u32 {
    const FINE: u32 = 100;
    let shared =
        |target: &config::Target| book.share(&format!("{}/{}", service.name, target.name())).is_some();
    let small = |target: &config::Target| target.weight < u32::MAX / 1_000 / FINE;
    let fixed = service.weights == config::Weighing::Static;
    let finer = fixed && service.targets.iter().any(shared) && service.targets.iter().all(small);
    if finer { FINE } else { 1 }
}

/// Of a flow's places in two buckets, those beyond the share a service may use; less than one place counts as one.
fn kept_ways(percent: Option<u32>) -> u16 {
    let beyond = 100 - percent.unwrap_or(100).min(100);
    (2 * WAYS * beyond).div_ceil(100) as u16
}

/// The tag a port wants on frames of the service.
fn tag(view: &View, link: &Link, service: &Service, vlan: u16) -> u16 {
    let bridge = link.master.and_then(|master| view.by_index(master));
    match bridge.map(|bridge| &bridge.kind) {
        Some(Kind::Bridge { vlan_filtering: true, .. }) => {
            let own = link.vlans.iter().find(|own| own.id == vlan);
            own.filter(|own| !own.untagged).map_or(0, |own| own.id)
        }
        _ => service.vlan.unwrap_or(0),
    }
}

/// A wish that a target be down because it is not there, or because a guard-rail refuses it.
pub fn absent(found: &Found, refusals: &[Refusal]) -> Option<String> {
    let refused = refusals.iter().find(|refusal| {
        refusal.service == found.base.service && refusal.target.as_deref() == Some(found.base.target.as_str())
    });
    found.base.error.clone().or_else(|| refused.map(|refusal| refusal.reason.clone()))
}

#[cfg(test)]
mod tests;
