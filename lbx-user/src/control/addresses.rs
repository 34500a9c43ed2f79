//! From services with indices to what the address table is built from.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lbx_common::addr::Ip;
use lbx_common::addresses::{AddressSpec, RuleSpec};
use lbx_common::service::{Back, Rule, address_flags};
use lbx_common::target::Forward;

use super::desired::ServiceWant;

/// A service with the indices the maps know it by.
#[derive(Debug, Clone, Copy)]
pub struct Placed<'a> {
    /// What is wanted.
    pub want: &'a ServiceWant,
    /// Index into `services`.
    pub index: u16,
    /// Number of its switch.
    pub switch: u16,
    /// Index of each of its targets, in their order.
    pub targets: &'a [u16],
}

/// Collects the rules of all services by address, in the order of the addresses.
pub fn specs(services: &[Placed<'_>]) -> Vec<AddressSpec> {
    let mut all: BTreeMap<IpAddr, AddressSpec> = BTreeMap::new();
    for service in services {
        let want = service.want;
        for vip in &want.vips {
            let spec = at(&mut all, vip.addr);
            spec.flags |= address_flags::VIP;
            if want.suspended.is_some() {
                spec.flags |= address_flags::SUSPENDED;
            }
            spec.rules.push(RuleSpec::Service(rule(service, want.ports)));
            if vip.answer {
                spec.answer(want.vlan, service.switch);
            }
        }
        if want.forward == Forward::Nat {
            back_rules(&mut all, service);
        }
    }
    let mut specs: Vec<AddressSpec> = all.into_values().collect();
    for spec in &mut specs {
        // An exact port before a range before "all": the search takes the first that matches. Where it is answered
        // for is asked least of all.
        spec.rules.sort_by_key(|spec| match spec {
            RuleSpec::Service(rule) | RuleSpec::Back(rule, _) => {
                (rule.flags, rule.port_last - rule.port_first)
            }
        });
    }
    specs
}

/// Adds this host's end of the tunnels.
pub fn tunnel(specs: &mut Vec<AddressSpec>, own: IpAddr) {
    let addr = Ip::from(own);
    match specs.iter_mut().find(|spec| spec.addr == addr) {
        Some(spec) => spec.flags |= address_flags::TUNNEL,
        None => {
            specs.push(AddressSpec { addr, flags: address_flags::TUNNEL, ..AddressSpec::default() });
        }
    }
}

fn at(all: &mut BTreeMap<IpAddr, AddressSpec>, addr: IpAddr) -> &mut AddressSpec {
    all.entry(addr).or_insert_with(|| AddressSpec { addr: Ip::from(addr), ..AddressSpec::default() })
}

fn rule(service: &Placed<'_>, (port_first, port_last): (u16, u16)) -> Rule {
    Rule {
        protocol: service.want.protocol,
        flags: 0,
        vlan: service.want.vlan,
        port_first,
        port_last,
        index: service.index,
        switch: service.switch,
    }
}

fn back_rules(all: &mut BTreeMap<IpAddr, AddressSpec>, service: &Placed<'_>) {
    let want = service.want;
    for (target, &index) in want.targets.iter().zip(service.targets) {
        let addresses = [target.addr4.map(IpAddr::V4), target.addr6.map(IpAddr::V6)];
        for addr in addresses.into_iter().flatten() {
            for vip in want.vips.iter().filter(|vip| vip.addr.is_ipv4() == addr.is_ipv4()) {
                // With a port of its own the target's answers come from that port, and the client expects
                // the service's; otherwise the ports are the same on both sides.
                let (from, port) = match target.port {
                    0 => (want.ports, 0),
                    port => ((port, port), want.ports.0.to_be()),
                };
                let back = Back {
                    vip: vip.addr.into(),
                    port,
                    service: service.index,
                    target: index,
                    vlan: want.vlan,
                };
                let spec = at(all, addr);
                spec.flags |= address_flags::NAT_TARGET;
                spec.rules.push(RuleSpec::Back(rule(service, from), back));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::desired::VipWant;
    use super::super::testing;
    use super::*;

    #[test]
    fn nat_targets_lead_back_to_every_vip_of_their_family() {
        let mut want = testing::service("web", 80, &["a", "b"]);
        want.forward = Forward::Nat;
        want.targets[0].addr4 = Some([10, 0, 0, 5].into());
        want.targets[0].port = 8080;
        want.targets[1].addr6 = Some("fd00::5".parse().unwrap());
        want.vips.push(VipWant { addr: "fd00::10".parse().unwrap(), answer: true });
        let specs = specs(&[Placed { want: &want, index: 3, switch: 1, targets: &[7, 9] }]);
        let of = |addr: &str| {
            let addr: IpAddr = addr.parse().unwrap();
            specs.iter().find(|spec| spec.addr == Ip::from(addr)).unwrap()
        };
        let RuleSpec::Back(rule, back) = of("10.0.0.5").rules[0] else { panic!("not a way back") };
        assert_eq!((rule.port_first, back.port, back.target), (8080, 80u16.to_be(), 7));
        assert_eq!(back.vip, Ip::from(want.vips[0].addr));
        let RuleSpec::Back(rule, back) = of("fd00::5").rules[0] else { panic!("not a way back") };
        assert_eq!((rule.port_first, back.port, back.target), (80, 0, 9));
        assert_ne!(of("fd00::10").flags & address_flags::ANSWER, 0);
        assert_eq!(of("192.0.2.10").flags, address_flags::VIP);
        assert_eq!(specs.len(), 4);
    }

    #[test]
    fn an_address_is_answered_for_on_every_vlan_that_has_a_service_which_says_so() {
        let on = |vlan: u16, answer: bool| {
            let mut want = testing::service(&format!("web{vlan}"), 80, &["a"]);
            (want.vlan, want.vips[0].answer) = (vlan, answer);
            want
        };
        let wants = [on(1, true), on(10, true), on(20, false)];
        let placed: Vec<_> = wants
            .iter()
            .zip(0..)
            .map(|(want, index)| Placed { want, index, switch: 0, targets: &[7] })
            .collect();
        let specs = specs(&placed);
        assert_eq!(specs[0].flags, address_flags::VIP | address_flags::ANSWER | address_flags::ECHO);
        let answered = |vlan: u16, switch: u16| {
            specs[0].rules.iter().any(|rule| {
                let RuleSpec::Service(rule) = rule else { panic!("not a service") };
                rule.answers(vlan, switch)
            })
        };
        assert_eq!(
            [(1, 0), (10, 0), (20, 0), (10, 1)].map(|(v, s)| answered(v, s)),
            [true, true, false, false]
        );
    }

    #[test]
    fn an_exact_port_is_found_before_a_range() {
        let mut all = testing::service("all", 0, &["a"]);
        all.ports = (0, 65_535);
        let web = testing::service("web", 80, &["a"]);
        let place = |want, index| Placed { want, index, switch: 0, targets: &[0] };
        let specs = specs(&[place(&all, 0), place(&web, 1)]);
        let RuleSpec::Service(first) = specs[0].rules[0] else { panic!("not a service") };
        assert_eq!((first.index, specs[0].rules.len()), (1, 2));
    }
}
