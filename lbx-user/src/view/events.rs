//! Sampled events with names.

use std::net::IpAddr;

use lbx_common::event::Event;
use lbx_common::reason::Reason;
use nix::time::{ClockId, clock_gettime};

use super::report::kind_name;
use super::{View, protocol_name};
use crate::api::model::Sampled;

impl View<'_> {
    /// An event as people and programs see it; `None` for a reason that this version does not know.
    pub fn sampled(&self, event: &Event) -> Option<Sampled> {
        let reason = Reason::from_u8(event.reason)?;
        let key = &event.key;
        let address = |ip: lbx_common::addr::Ip| (!ip.is_unspecified()).then(|| IpAddr::from(ip));
        let target = self.targets.iter().find(|target| target.index == event.target);
        Some(Sampled {
            ago_ms: since(event.time),
            reason: reason.name().to_owned(),
            kind: kind_name(reason.kind()).to_owned(),
            service: self.service_name(event.service).map(str::to_owned),
            target: target.map(|target| target.name.clone()),
            port: self.port(event.port.into()).map(|port| port.name.clone()),
            protocol: (key.protocol() != 0).then(|| protocol_name(key.protocol())),
            client: address(key.src),
            client_port: key.client_port(),
            vip: address(key.dst),
            vip_port: key.service_port(),
            vlan: key.vlan(),
            tcp_flags: event.tcp_flags,
        })
    }
}

/// Milliseconds since a time of `CLOCK_MONOTONIC` in nanoseconds.
fn since(time: u64) -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap_or_else(|_| nix::sys::time::TimeSpec::new(0, 0));
    let now = now.tv_sec().cast_unsigned() * 1_000_000_000 + now.tv_nsec().cast_unsigned();
    now.saturating_sub(time) / 1_000_000
}
