//! `[service.health]`.

use std::time::Duration;

use crate::config::build::duration;
use crate::config::checked::{Health, Ports, Protocol, Target, TcpHealth};
use crate::config::raw::Table;

/// How a service's targets are probed.
pub(super) fn health(
    service: &Table<'_, '_>,
    protocol: Option<Protocol>,
    ports: Option<Ports>,
    targets: &[Target],
) -> Health {
    let Some(table) = service.table("health") else { return Health::default() };
    let tcp = table.table("tcp").map(|tcp| tcp_health(&tcp, protocol, ports, targets));
    table.finish();
    if tcp.is_none() && !table.has("tcp") {
        service.warn("health", "nothing is probed", Some("add `tcp = { interval = \"2s\" }`".to_owned()));
    }
    Health { tcp }
}

fn tcp_health(
    table: &Table<'_, '_>,
    protocol: Option<Protocol>,
    ports: Option<Ports>,
    targets: &[Target],
) -> TcpHealth {
    let intervals = Duration::from_millis(100)..=Duration::from_hours(1);
    let interval = duration(table, "interval", &intervals).unwrap_or(Duration::from_secs(2));
    let timeouts = Duration::from_millis(10)..=Duration::from_hours(1);
    let given = duration(table, "timeout", &timeouts);
    if given.is_some_and(|timeout| timeout > interval) {
        table.error("timeout", "the timeout is longer than the interval", None);
    }
    let count = |key| table.integer(key, 1..=1_000).map(|count| count.value as u32);
    let (rise, fall) = (count("rise").unwrap_or(2), count("fall").unwrap_or(3));
    let port = table.integer("port", 1..=65_535).map(|port| port.value as u16);
    if port.is_none() && !table.has("port") {
        let several = ports.is_some_and(|ports| ports.single().is_none())
            && (targets.is_empty() || targets.iter().any(|target| target.port.is_none()));
        let why = match protocol {
            Some(Protocol::Udp) => Some("the service is UDP, so its port may not answer TCP"),
            _ if several => Some("the service has more than one port"),
            _ => None,
        };
        if let Some(why) = why {
            let hint = "add `port = …`, the one to connect to";
            table.report().error(&table.span, &table.key("port"), why, Some(hint.to_owned()));
        }
    }
    table.finish();
    let timeout = given.unwrap_or(Duration::from_secs(1)).min(interval);
    TcpHealth { interval, timeout, rise, fall, port }
}
