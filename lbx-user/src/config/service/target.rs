//! `[[service.target]]`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use lbx_common::limits::{MAX_QUEUES, MAX_SERVICE_TARGETS};

use super::MAX_WEIGHT;
use crate::config::build::interface;
use crate::config::checked::{Forward, Place, Ports, Target};
use crate::config::measure;
use crate::config::raw::Table;
use crate::config::units;

/// The targets of a service, in the order of the file.
pub(super) fn targets(
    service: &Table<'_, '_>,
    forward: Option<Forward>,
    ports: Option<Ports>,
) -> Vec<Target> {
    let tables = service.tables("target");
    let mut targets: Vec<(Range<usize>, Target)> = Vec::new();
    for table in &tables {
        let Some(target) = target(table, forward, ports) else { continue };
        let same = |other: &&(Range<usize>, Target)| {
            other.1.place == target.place && (other.1.port == target.port || forward != Some(Forward::Nat))
        };
        if let Some((span, _)) = targets.iter().find(same) {
            let line = service.report().line(span);
            let (report, name) = (service.report(), target.name());
            report.error(
                &table.span,
                &table.path,
                format!("\"{name}\" is already a target on line {line}"),
                None,
            );
        }
        targets.push((table.span.clone(), target));
    }
    if targets.len() > MAX_SERVICE_TARGETS as usize {
        let found = targets.len();
        service.error(
            "target",
            format!("{found} targets; a service has at most {MAX_SERVICE_TARGETS}"),
            None,
        );
    }
    if tables.is_empty() && !service.has("target") {
        let hint = "add a [[service.target]]; until then `no_target` decides what happens to its packets";
        service.report().warn(
            &service.span,
            &service.path,
            "the service has no target",
            Some(hint.to_owned()),
        );
    } else if !targets.is_empty() && targets.iter().all(|(_, target)| target.weight == 0) {
        let hint = "give at least one of them a weight";
        let message = "every target has weight 0, so no new flow has anywhere to go";
        service.report().warn(&service.span, &service.path, message, Some(hint.to_owned()));
    }
    targets.into_iter().map(|(_, target)| target).collect()
}

fn target(table: &Table<'_, '_>, forward: Option<Forward>, ports: Option<Ports>) -> Option<Target> {
    let place = place(table);
    let port = table.integer("port", 1..=65_535).map(|port| port.value as u16);
    if port.is_some() && forward == Some(Forward::Dsr) {
        let hint = "remove it, or use `forward = \"nat\"`";
        table.error("port", "`dsr` does not change the port", Some(hint.to_owned()));
    } else if port.is_some() && ports.is_some_and(|ports| ports.single().is_none()) {
        let hint = "remove it: with more than one port, a packet keeps the port it came with";
        table.error("port", "the service has more than one port", Some(hint.to_owned()));
    }
    let weight = table.integer("weight", 0..=MAX_WEIGHT).map_or(100, |weight| weight.value as u32);
    let queues: Vec<u32> = table
        .integers("queues", 0..=MAX_WEIGHT)
        .map(|list| list.value.iter().map(|weight| weight.value as u32).collect())
        .unwrap_or_default();
    if queues.len() > MAX_QUEUES as usize {
        table.error("queues", format!("lbx steers to at most {MAX_QUEUES} queues of a vNIC"), None);
    } else if !queues.is_empty() && queues.iter().all(|weight| *weight == 0) {
        let hint = "use `weight = 0` for a target that is to take no new flows";
        table.error("queues", "every queue has weight 0", Some(hint.to_owned()));
    }
    let address = own_address::<Ipv4Addr>(table, "address", "an IPv4 address", "address6");
    let address6 = own_address::<Ipv6Addr>(table, "address6", "an IPv6 address", "address");
    let qmp = measure::target_socket(table);
    table.finish();
    let place = place?;
    if matches!(place, Place::Mac(_)) {
        if !queues.is_empty() {
            table.error("queues", "the queues of a machine elsewhere are not seen from here", None);
        }
        if qmp.is_some() {
            table.error("qmp", "the monitor of a machine elsewhere is not reached from here", None);
        }
        if forward == Some(Forward::Nat) && address.is_none() && address6.is_none() {
            let hint = "add `address` (or `address6`), the machine's own";
            table.error("mac", "`nat` has to know the address of a machine elsewhere", Some(hint.to_owned()));
        }
    }
    Some(Target { place, port, weight, queues, address, address6, qmp })
}

fn place(table: &Table<'_, '_>) -> Option<Place> {
    let (vm, nic, mac) = (table.string("vm"), table.string("nic"), table.string("mac"));
    let named = ["vm", "nic", "mac"].into_iter().filter(|key| table.has(key)).collect::<Vec<_>>();
    match named[..] {
        [] => {
            let hint = "`vm = NAME`, or `nic = INTERFACE`, or `mac = ADDRESS`";
            table.report().error(
                &table.span,
                &table.path,
                "a target needs one of `vm`, `nic` and `mac`",
                Some(hint.to_owned()),
            );
            return None;
        }
        [_] => {}
        [.., last] => {
            let all = named.join("`, `");
            table.error(last, format!("`{all}` are all given; a target is one of them"), None);
            return None;
        }
    }
    if let Some(vm) = vm {
        if vm.value.is_empty() || vm.value.len() > 255 || vm.value.contains(char::is_control) {
            table.error("vm", "not a name a virtual machine can have", None);
            return None;
        }
        return Some(Place::Vm(vm.value));
    }
    if let Some(nic) = nic {
        return interface(table, "nic", &nic).then_some(Place::Nic(nic.value));
    }
    match units::mac(&mac?.value) {
        Ok(mac) => Some(Place::Mac(mac)),
        Err(reason) => {
            table.error("mac", reason, None);
            None
        }
    }
}

fn own_address<A>(table: &Table<'_, '_>, key: &'static str, what: &str, other: &str) -> Option<A>
where
    A: std::str::FromStr + Copy + Into<IpAddr>,
{
    let text = table.string(key)?;
    let Ok(address) = text.value.parse::<A>() else {
        let hint = text.value.parse::<IpAddr>().is_ok().then(|| format!("that one belongs into `{other}`"));
        table.error(key, format!("\"{}\" is not {what}", text.value), hint);
        return None;
    };
    if let Some(reason) = units::unusable_address(address.into()) {
        table.error(key, format!("{} {reason}", text.value), None);
        return None;
    }
    Some(address)
}
