//! Status, services, targets, counters.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use lbx_common::control::flags;
use lbx_common::flow::{ColdFlow, FlowEntry};
use lbx_common::limits::{ABI_VERSION, SLOTS_PER_FLOW};
use lbx_common::port;
use lbx_common::reason::Kind;
use lbx_common::service::{Rule, flags as service_flags};

use super::{Placed, Result, Served, View, deliver_name, forward_name, protocol_name};
use crate::api::model::{
    Counters, FlowTable, Port, ReasonCount, Service, ServiceCounters, ServiceStats, Services, Source, Stats,
    Status, Target, TargetStats, Targets,
};
use crate::config::checked::format_mac;
use crate::datapath::{self, FlowCount};

/// The rules of a service by VIP, and whether the VIP is answered for.
type Vips = HashMap<u16, Vec<(IpAddr, Rule, bool)>>;

impl View<'_> {
    /// How the instance is doing.
    ///
    /// # Errors
    /// The maps could not be read.
    pub fn status(&self) -> Result<Status> {
        let attached = self.attached()?;
        let mut ports: Vec<Port> = self
            .ports
            .iter()
            .map(|port| Port {
                name: port.name.clone(),
                ifindex: port.entry.ifindex,
                switch: self.switch_name(port.entry.switch),
                role: role_name(port.entry.flags).to_owned(),
                attached: attached.get(&port.name).cloned().unwrap_or_default(),
                observe: port.entry.flags & port::flags::OBSERVE != 0,
                mtu: port.entry.mtu.into(),
                reason: None,
                error: None,
            })
            .collect();
        ports.sort_by(|a, b| {
            let rank = |port: &Port| ["uplink", "switch", "vnic"].iter().position(|role| *role == port.role);
            (&a.switch, rank(a), &a.name).cmp(&(&b.switch, rank(b), &b.name))
        });
        let active = |service: &&Served| service.entry.flags & service_flags::ACTIVE != 0;
        Ok(Status {
            source: Source::Maps,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            abi: ABI_VERSION,
            instance: self.instance.name().map(str::to_owned),
            bypass: self.control.flags & flags::BYPASS != 0,
            observe: self.control.flags & flags::OBSERVE != 0,
            ports,
            flows: self.flow_table()?,
            services_active: self.services.iter().filter(active).count() as u32,
            services: self.services.len() as u32,
            targets_active: self.targets.iter().filter(|target| self.state(target).0.takes_new()).count()
                as u32,
            targets: self.targets.len() as u32,
            ..Status::default()
        })
    }

    fn flow_table(&self) -> Result<FlowTable> {
        let slots = self.maps.flow_capacity();
        let counters = self.counters()?.services;
        Ok(FlowTable {
            live: self.live()?.values().map(|count| count.recorded).sum(),
            capacity: slots / u64::from(SLOTS_PER_FLOW),
            slots,
            memory: slots * (size_of::<FlowEntry>() + size_of::<ColdFlow>()) as u64,
            recorded: counters.iter().map(|own| own.flows_recorded).sum(),
            unrecorded: counters.iter().map(|own| own.flows_unrecorded).sum(),
        })
    }

    /// The services.
    ///
    /// # Errors
    /// The maps could not be read.
    pub fn services(&self) -> Result<Services> {
        let vips = self.vips()?;
        let counters = self.counters()?;
        let services = self.services.iter().map(|service| self.service(service, &vips, &counters));
        Ok(Services { services: services.collect::<Result<_>>()? })
    }

    fn service(&self, served: &Served, vips: &Vips, counters: &datapath::Counters) -> Result<Service> {
        let entry = &served.entry;
        let own = vips.get(&served.index).map(Vec::as_slice).unwrap_or_default();
        let mut addresses: Vec<IpAddr> = own.iter().map(|(vip, ..)| *vip).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let answered = addresses.iter().copied().filter(|vip| own.iter().any(|(of, _, on)| of == vip && *on));
        let answered = answered.collect();
        let rule = own.first().map(|(_, rule, _)| *rule).unwrap_or_default();
        let mut flows = FlowCount::default();
        for target in self.targets_of(served.index) {
            flows += self.live_flows(target)?;
        }
        let active = self.targets_of(served.index).filter(|target| self.state(target).0.takes_new());
        let no_target = if entry.flags & service_flags::REJECT != 0 { "reject" } else { "drop" };
        Ok(Service {
            name: served.name.clone(),
            index: served.index,
            switch: self.switch_name(entry.switch),
            vlan: entry.vlan,
            vips: addresses,
            answered,
            protocol: protocol_name(rule.protocol),
            port_first: rule.port_first,
            port_last: rule.port_last,
            forward: forward_name(entry.forward).to_owned(),
            algorithm: lbx_common::service::algorithm::name(entry.algorithm).to_owned(),
            no_target: no_target.to_owned(),
            table_size: entry.table_len,
            active: entry.flags & service_flags::ACTIVE != 0,
            suspended: None,
            targets: self.targets_of(served.index).count() as u32,
            targets_active: active.count() as u32,
            live_flows: flows.recorded,
            counters: self.service_counters(served, counters),
        })
    }

    /// The rules of all services, from the address table in force.
    fn vips(&self) -> Result<Vips> {
        let mut vips = Vips::new();
        for entry in self.maps.address_entries()? {
            let rules = self.maps.rules(&entry)?;
            for rule in rules.iter().filter(|rule| rule.flags == 0) {
                let answered = rules.iter().any(|other| other.answers(rule.vlan, rule.switch));
                vips.entry(rule.index).or_default().push((entry.addr.into(), *rule, answered));
            }
        }
        Ok(vips)
    }

    /// The targets.
    ///
    /// # Errors
    /// The maps could not be read.
    pub fn targets(&self) -> Result<Targets> {
        let counters = self.counters()?;
        let targets = self.targets.iter().map(|target| self.target(target, &counters));
        Ok(Targets { targets: targets.collect::<Result<_>>()? })
    }

    fn target(&self, placed: &Placed, counters: &datapath::Counters) -> Result<Target> {
        let entry = &placed.entry;
        let (state, expired) = self.state(placed);
        let deadline = entry.state.deadline();
        let deadline_ms = match deadline {
            Some(_) if expired => Some(0),
            Some(deadline) => Some(self.maps.clock()?.remaining(deadline)?.as_millis() as u64),
            None => None,
        };
        let (weight, weight_configured) = self.weight(placed)?;
        let flows = self.live_flows(placed)?;
        let response = self.maps.response(placed.index.into())?;
        let v4 = (entry.addr4 != 0).then(|| IpAddr::V4(Ipv4Addr::from(entry.addr4.to_ne_bytes())));
        let v6 = (!entry.addr6.is_unspecified()).then(|| IpAddr::from(entry.addr6));
        Ok(Target {
            name: placed.name.clone(),
            service: self.service_name(entry.service).unwrap_or_default().to_owned(),
            target: placed.short().to_owned(),
            index: placed.index,
            generation: entry.generation,
            port: (entry.ifindex != 0).then(|| super::interface(entry.ifindex)),
            mac: format_mac(&entry.mac),
            addresses: v4.into_iter().chain(v6).collect(),
            nat_port: u16::from_be(entry.port),
            queues: entry.queues,
            deliver: deliver_name(entry.deliver).to_owned(),
            state: entry.state.stored().name().to_owned(),
            effective: state.name().to_owned(),
            fallback: deadline.map(|_| entry.state.fallback().name().to_owned()),
            deadline_ms,
            weight,
            weight_configured,
            live_flows: flows.recorded,
            open_flows: flows.open,
            response_ms: (response.count > 0).then(|| response.smoothed as f64 / 1e6),
            responses: response.count,
            response_by_handshake: entry.deliver == lbx_common::target::Deliver::Uplink as u8,
            counters: target_counters(placed, counters),
            ..Target::default()
        })
    }

    /// Weight in force and configured weight, over all queues.
    pub(super) fn weight(&self, placed: &Placed) -> Result<(u64, u64)> {
        let mut sums = (0, 0);
        for queue in 0..u32::from(placed.entry.queues) {
            let weight = self.maps.weight(placed.index.into(), queue)?;
            sums.0 += u64::from(weight.weight);
            sums.1 += u64::from(weight.configured);
        }
        Ok(sums)
    }

    /// All counters.
    ///
    /// # Errors
    /// The maps could not be read.
    pub fn stats(&self) -> Result<Stats> {
        let counters = self.counters()?;
        let reasons = counters.reasons().map(|(reason, count)| ReasonCount {
            name: reason.name().to_owned(),
            kind: kind_name(reason.kind()).to_owned(),
            count,
        });
        let services = self.services.iter().map(|service| ServiceStats {
            service: service.name.clone(),
            counters: self.service_counters(service, &counters),
        });
        let targets = self.targets.iter().map(|target| TargetStats {
            target: target.name.clone(),
            counters: target_counters(target, &counters),
        });
        Ok(Stats {
            reasons: reasons.collect(),
            services: services.collect(),
            targets: targets.collect(),
            recent: Vec::new(),
        })
    }

    /// As many counters as are in use.
    pub(super) fn counters(&self) -> Result<datapath::Counters> {
        let services = self.services.iter().map(|service| u32::from(service.index) + 1).max().unwrap_or(0);
        let targets = self.targets.iter().map(|target| u32::from(target.index) + 1).max().unwrap_or(0);
        Ok(self.maps.counters(services, targets)?)
    }

    fn service_counters(&self, served: &Served, counters: &datapath::Counters) -> ServiceCounters {
        let own = counters.services.get(usize::from(served.index)).copied().unwrap_or_default();
        let mut sums = (0, 0);
        for target in self.targets_of(served.index) {
            let counters = target_counters(target, counters);
            sums = (sums.0 + counters.packets, sums.1 + counters.bytes);
        }
        ServiceCounters {
            packets: sums.0,
            bytes: sums.1,
            flows_recorded: own.flows_recorded,
            flows_unrecorded: own.flows_unrecorded,
            drops: own.drops,
            rejects: own.rejects,
            returns: own.returns,
            observed: own.observed,
        }
    }
}

pub(super) fn target_counters(placed: &Placed, counters: &datapath::Counters) -> Counters {
    let own = counters.targets.get(usize::from(placed.index)).copied().unwrap_or_default();
    Counters { packets: own.packets, bytes: own.bytes, flows: own.flows, drops: own.drops }
}

/// What a port is to lbx.
fn role_name(flags: u16) -> &'static str {
    if flags & port::flags::UPLINK != 0 {
        "uplink"
    } else if flags & port::flags::SWITCH != 0 {
        "switch"
    } else {
        "vnic"
    }
}

/// Name of a kind of reason.
pub(super) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Drop => "drop",
        Kind::Answer => "answer",
        Kind::Pass => "pass",
        Kind::Event => "event",
    }
}
