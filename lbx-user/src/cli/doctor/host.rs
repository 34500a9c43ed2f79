//! Ports, offloads, MTU, filters, VLANs, targets.

use std::collections::{BTreeMap, BTreeSet};

use super::Findings;
use crate::api::model::Targets;
use crate::cli::session::Session;
use crate::config::Config;
use crate::config::checked::format_mac;
use crate::control::build;
use crate::control::tunnel;
use crate::daemon::host::Host;
use crate::datapath;
use crate::host::filters::Source;
use crate::host::offload;
use crate::host::plan::{Attach, PortPlan, Role};
use crate::host::{Kind, Link};
use crate::measure::queue::room;

/// A tap's ring should hold a burst: the kernel's default.
const RING: u32 = 500;

pub(super) fn look(session: &Session, config: &Config, host: &Host, found: &mut Findings) {
    attachment(session, host, found);
    for plan in &host.plans {
        for port in plan.ports.iter().filter(|port| port.role == Role::Uplink) {
            offloads(config, &plan.switch, port, found);
        }
    }
    for refusal in &host.refusals {
        let subject = match &refusal.target {
            Some(target) => format!("{}/{target}", refusal.service),
            None => refusal.service.clone(),
        };
        found.fail("guard-rail", &subject, refusal.reason.clone(), &refusal.hint);
    }
    let uplinks = |plan: &crate::host::plan::Plan| {
        let ports = plan.ports.iter().filter(|port| port.role == Role::Uplink);
        (plan.switch.clone(), ports.map(|port| port.index).collect::<Vec<u32>>())
    };
    let uplinks: Vec<_> = host.plans.iter().map(uplinks).collect();
    for (peer, why) in tunnel::problems(config, &host.view, &uplinks) {
        found.warn("tunnel", &peer, why, "see \"Tunnels\" in docs/operations.md");
    }
    held_up(session, found);
    targets(config, host, found);
    filters(config, host, found);
    vlans(config, host, found);
}

/// Targets that moved and whose packets are dropped: the daemon says which, and why.
fn held_up(session: &Session, found: &mut Findings) {
    let Ok(answer) = session.get::<Targets>("/v1/targets", &()) else { return };
    for target in &answer.targets {
        let Some(why) = target.held_up.clone() else { continue };
        found.fail("moved", &target.name, why, "see \"Tunnels\" in docs/operations.md");
    }
}

fn attachment(session: &Session, host: &Host, found: &mut Findings) {
    let mut attached: BTreeMap<String, Vec<String>> = BTreeMap::new();
    match datapath::list(&session.paths.instance) {
        Ok(list) => {
            for one in list.into_iter().filter(|one| !one.is_dead()) {
                let mode = one.mode.map_or(String::new(), |mode| format!(" {}", mode.name()));
                attached.entry(one.device.name).or_default().push(format!("{}{mode}", one.point));
            }
        }
        Err(error) => return found.fail("attachment", "", error.to_string(), "see docs/operations.md"),
    }
    for plan in &host.plans {
        for refusal in &plan.refusals {
            found.fail("attachment", &plan.switch, refusal.clone(), "see `lbx attach --dry-run`");
        }
        let some = plan.ports.iter().any(|port| attached.contains_key(&port.name));
        if !some && plan.refusals.is_empty() {
            let hint = format!("`lbx attach {}`, or `lbx run`", plan.switch);
            found.warn("attachment", &plan.switch, "nothing is attached", &hint);
            continue;
        }
        for port in &plan.ports {
            match attached.get(&port.name) {
                Some(points) => {
                    found.ok("attachment", &port.name, format!("{}: {}", points.join(", "), port.reason));
                }
                None if port.attach == Attach::None => {
                    found.ok("attachment", &port.name, format!("nothing: {}", port.reason));
                }
                None => {
                    let hint = "see the daemon's log, or attach again";
                    found.fail("attachment", &port.name, "nothing is attached, though it should be", hint);
                }
            }
        }
    }
}

fn offloads(config: &Config, switch: &str, port: &PortPlan, found: &mut Findings) {
    let offloads = match offload::offloads(&port.name) {
        Ok(offloads) => offloads,
        Err(error) => {
            let hint = "lbx takes tc where it does not know the offloads";
            return found.warn("offloads", &port.name, format!("cannot be read: {error}"), hint);
        }
    };
    let xdp = matches!(port.attach, Attach::Native | Attach::Generic);
    let joined = [("rx-lro", offloads.lro()), ("rx-gro-hw", offloads.gro_hw())];
    let joined: Vec<&str> = joined.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    if joined.is_empty() {
        found.ok("offloads", &port.name, format!("driver {}, no frames are joined", offloads.driver));
    } else if xdp {
        let hint = format!("`ethtool -K {} lro off rx-gro-hw off`, or `xdp = \"auto\"`", port.name);
        found.fail(
            "offloads",
            &port.name,
            format!("{} under XDP: joined frames are lost", joined.join(", ")),
            &hint,
        );
    } else {
        let hint =
            format!("tc copes; `ethtool -K {} lro off rx-gro-hw off` makes native XDP possible", port.name);
        found.warn("offloads", &port.name, format!("{} is on", joined.join(", ")), &hint);
    }
    let tagged = config.services_on(switch).any(|service| service.vlan.is_some());
    match (offloads.rx_vlan(), tagged && xdp) {
        (false, _) => found.ok("rxvlan", &port.name, "off: tags stay in the frame"),
        (true, false) => found.ok("rxvlan", &port.name, "on, and nothing here needs the tag in the frame"),
        (true, true) => {
            let hint = format!("`ethtool -K {} rxvlan off`, or `xdp = \"auto\"`", port.name);
            found.fail("rxvlan", &port.name, "on: XDP does not see the tags that services need", &hint);
        }
    }
}

fn targets(config: &Config, host: &Host, found: &mut Findings) {
    let mut seen = BTreeSet::new();
    for one in host.found.iter().filter(|one| one.ifindex != 0) {
        let Some(link) = host.view.by_index(one.ifindex) else { continue };
        let name = one.full_name();
        let Some(service) = config.service(&one.base.service) else { continue };
        let switch = host.view.link(&service.switch);
        if let (Some(mac), Some(switch), false) = (one.base.mac, switch.filter(|s| s.is_bridge()), one.remote)
        {
            let known = host.view.fdb.iter().any(|entry| entry.mac == mac && entry.index == link.index);
            let elsewhere = host.view.fdb.iter().find(|entry| {
                entry.mac == mac && entry.index != link.index && entry.master == Some(switch.index)
            });
            let (mac, hint) = (format_mac(&mac), "two machines may have the same MAC address");
            match elsewhere.and_then(|entry| host.view.by_index(entry.index)) {
                Some(other) => {
                    let text = format!("the bridge has {mac} behind {}, not {}", other.name, link.name);
                    found.fail("fdb", &name, text, hint);
                }
                None if known => found.ok("fdb", &name, format!("{mac} is behind {}", link.name)),
                None => {
                    let hint =
                        "it is learnt with the guest's first frame; until then `bridge` delivery floods";
                    found.warn("fdb", &name, format!("the bridge has not learnt {mac} yet"), hint);
                }
            }
        }
        if !seen.insert(link.index) {
            continue;
        }
        mtu(host, switch, link, found);
        if let Kind::Tap { queues } = link.kind {
            ring(link, queues, found);
        }
    }
}

fn mtu(host: &Host, switch: Option<&Link>, link: &Link, found: &mut Findings) {
    let of_switch = |plan: &&crate::host::plan::Plan| switch.is_some_and(|switch| plan.index == switch.index);
    let ports = host.plans.iter().filter(of_switch).flat_map(|plan| &plan.ports);
    let uplinks = ports.filter(|port| port.role == Role::Uplink);
    let largest = uplinks.filter_map(|port| host.view.by_index(port.index)).max_by_key(|uplink| uplink.mtu);
    match largest {
        Some(uplink) if uplink.mtu > link.mtu => {
            let text = format!(
                "{} takes {} bytes, {} brings up to {}",
                link.name, link.mtu, uplink.name, uplink.mtu
            );
            let hint = "senders are told (fragmentation needed), at a price; give both the same MTU";
            found.warn("mtu", &link.name, text, hint);
        }
        _ => found.ok("mtu", &link.name, format!("{} bytes, as much as the uplinks bring", link.mtu)),
    }
}

fn ring(link: &Link, queues: u32, found: &mut Findings) {
    match room(&link.name) {
        Ok(length) if length < RING => {
            let hint = format!("`ip link set {} txqueuelen 1000`", link.name);
            let text = format!("{length} frames a queue: a burst beyond that is lost");
            found.warn("ring", &link.name, text, &hint);
        }
        Ok(length) => found.ok("ring", &link.name, format!("{queues} queues of {length} frames")),
        Err(error) => {
            found.warn("ring", &link.name, format!("cannot be read: {error}"), "is it still there?");
        }
    }
}

fn filters(config: &Config, host: &Host, found: &mut Findings) {
    for service in &config.services {
        let (deliver, why) = build::delivery(service, &host.view, &host.found, &host.findings);
        let how = match deliver {
            lbx_common::target::Deliver::Redirect => "redirect",
            lbx_common::target::Deliver::Bridge => "bridge",
            lbx_common::target::Deliver::Uplink => "uplink",
        };
        found.ok("delivery", &service.name, format!("{how}: {why}"));
    }
    for finding in host.findings.iter().filter(|finding| finding.source != Source::Vlan) {
        let hint = match finding.source {
            _ if !finding.drops.is_empty() => "allow the VIPs in it: `dsr` targets answer from them",
            Source::NoRedirect | Source::RedirectUnknown => {
                "`deliver = \"auto\"` takes the bridge there, so that nothing is lost"
            }
            _ => "`deliver = \"auto\"` takes the bridge there, so that it holds",
        };
        found.warn("filters", &finding.port, finding.to_string(), hint);
    }
    if host.findings.is_empty() {
        found.ok("filters", "", "none on the targets' ports");
    }
}

fn vlans(config: &Config, host: &Host, found: &mut Findings) {
    for switch in &config.switches {
        let Some(link) = host.view.link(&switch.name) else { continue };
        match link.kind {
            Kind::Bridge { vlan_filtering: true, .. } => {
                let plan = host.plans.iter().find(|plan| plan.index == link.index);
                for port in plan.into_iter().flat_map(|plan| &plan.ports).filter(|p| p.role == Role::Uplink) {
                    uplink_vlans(config, host, &switch.name, port, found);
                }
            }
            Kind::Bridge { .. } => found.ok("vlan", &switch.name, "the bridge does not separate VLANs"),
            _ => {}
        }
    }
}

fn uplink_vlans(config: &Config, host: &Host, switch: &str, port: &PortPlan, found: &mut Findings) {
    let Some(link) = host.view.by_index(port.index) else { return };
    for service in config.services_on(switch) {
        let vlan = build::rule_vlan(&host.view, service);
        if link.is_member(vlan) {
            found.ok("vlan", &port.name, format!("a member of VLAN {vlan} of service {}", service.name));
        } else {
            let text =
                format!("not a member of VLAN {vlan}: packets of service {} are dropped", service.name);
            found.fail("vlan", &port.name, text, &format!("`bridge vlan add dev {} vid {vlan}`", port.name));
        }
    }
}
