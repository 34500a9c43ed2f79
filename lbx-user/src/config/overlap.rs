//! Checks between services: no packet may belong to two of them, and no VIP may be a target's own address.

use std::net::IpAddr;

use super::raw::Report;
use super::service::ReadService;

/// Report every overlap at the later of the two services.
pub(super) fn check(services: &[ReadService], report: &Report<'_>) {
    for (n, later) in services.iter().enumerate() {
        for earlier in &services[..n] {
            overlapping(earlier, later, report);
        }
        for other in services {
            vip_is_target(later, other, report);
        }
    }
}

fn overlapping(earlier: &ReadService, later: &ReadService, report: &Report<'_>) {
    let (a, b) = (&earlier.service, &later.service);
    if a.switch != b.switch || a.vlan != b.vlan || a.protocol != b.protocol || !a.ports.overlaps(b.ports) {
        return;
    }
    for (vip, span) in b.vips.iter().zip(&later.vip_spans) {
        if a.vips.contains(vip) {
            let line = report.line(&earlier.port_span);
            let first = a.ports.first.max(b.ports.first);
            let message = format!(
                "{vip} port {first} already belongs to service \"{}\" (line {line}); a packet can have one service",
                a.name
            );
            let hint = "give one of them another VIP, VLAN or port range";
            report.error(span, &format!("{}.vip", later.path), message, Some(hint.to_owned()));
        }
    }
}

fn vip_is_target(service: &ReadService, other: &ReadService, report: &Report<'_>) {
    let own = other.service.targets.iter();
    let own: Vec<IpAddr> =
        own.flat_map(|t| t.address.map(IpAddr::V4).into_iter().chain(t.address6.map(IpAddr::V6))).collect();
    if service.service.switch != other.service.switch || service.service.vlan != other.service.vlan {
        return;
    }
    for (vip, span) in service.service.vips.iter().zip(&service.vip_spans) {
        if own.contains(vip) {
            let message = format!("{vip} is a target's own address in service \"{}\"", other.service.name);
            let hint = "a VIP belongs to no machine; choose a free address";
            report.error(span, &format!("{}.vip", service.path), message, Some(hint.to_owned()));
        }
    }
}
