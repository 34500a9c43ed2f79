//! Hosts as tables: what is there, and what lbx decides about it.

mod tags;

use std::collections::BTreeMap;

use super::*;
use crate::config::{Config, Switch};
use crate::host::links::{Address, Kind, PortVlan, Route, View};
use crate::host::offload::Offloads;
use crate::host::testing::{bridge, link, tap};

mod guard;

/// br0 (1) with eth0 (2) and tap0 (3); br1 (4) with tap1 (5).
fn host() -> View {
    let address = |index, address: &str, prefix| Address { index, address: address.parse().unwrap(), prefix };
    View {
        links: vec![
            link(1, "br0", bridge(false), None),
            link(2, "eth0", Kind::Physical, Some(1)),
            link(3, "tap0", tap(), Some(1)),
            link(4, "br1", bridge(false), None),
            link(5, "tap1", tap(), Some(4)),
            link(6, "eth1", Kind::Physical, None),
        ],
        addresses: vec![address(1, "192.0.2.1", 24), address(6, "198.51.100.7", 24)],
        routes: vec![
            Route {
                index: Some(6),
                destination: None,
                gateway: Some("198.51.100.1".parse().unwrap()),
                table: 254,
            },
            Route {
                index: Some(1),
                destination: Some(("192.0.2.0".parse().unwrap(), 24)),
                gateway: None,
                table: 254,
            },
        ],
        ..View::default()
    }
}

fn driver(driver: &str, active: &[&str]) -> Offloads {
    Offloads { driver: driver.to_owned(), active: active.iter().map(ToString::to_string).collect() }
}

fn config(switch: &str, service: &str, targets: &str) -> Config {
    let text = format!(
        "[[switch]]\nname = \"br0\"\n{switch}\n[[service]]\nname = \"web\"\nswitch = \"br0\"\n\
         protocol = \"tcp\"\nport = 80\n{}{service}\n{targets}",
        if service.contains("vip") { "" } else { "vip = \"192.0.2.10\"\n" }
    );
    Config::parse("test", &text).unwrap_or_else(|problems| panic!("{problems}"))
}

fn plan(view: &View, offloads: &[(&str, Offloads)], config: &Config) -> Plan {
    let offloads: BTreeMap<String, Offloads> =
        offloads.iter().map(|(name, offloads)| ((*name).to_owned(), offloads.clone())).collect();
    let switch: &Switch = &config.switches[0];
    let services: Vec<_> = config.services_on(&switch.name).collect();
    attach_plan(view, &offloads, switch, &services, &[77], false)
}

fn attached(plan: &Plan) -> Vec<(&str, Role, Attach)> {
    plan.ports.iter().map(|port| (port.name.as_str(), port.role, port.attach)).collect()
}

#[test]
fn a_bridge_gets_xdp_outside_and_tc_inside() {
    let plan = plan(&host(), &[("eth0", driver("ixgbe", &["rx-gro"]))], &config("", "", ""));
    assert_eq!(plan.refusals, [""; 0]);
    assert_eq!(plan.kind, SwitchKind::Bridge);
    assert_eq!(
        attached(&plan),
        [
            ("eth0", Role::Uplink, Attach::Native),
            ("tap0", Role::Vnic, Attach::Tc),
            ("br0", Role::Switch, Attach::Tc)
        ]
    );
}

#[test]
fn tc_where_native_xdp_would_be_wrong_and_the_reason() {
    let vlan = "vlan = 10";
    let cases: &[(Offloads, Kind, u32, &str, &str)] = &[
        (driver("ixgbe", &["rx-lro"]), Kind::Physical, 1500, "", "LRO"),
        (driver("ixgbe", &["rx-gro-hw"]), Kind::Physical, 1500, "", "rx-gro-hw"),
        (driver("ixgbe", &["rx-vlan-hw-parse"]), Kind::Physical, 1500, vlan, "strips VLAN tags"),
        (driver("ixgbe", &[]), Kind::Physical, 9000, "", "MTU 9000"),
        (driver("e1000e", &[]), Kind::Physical, 1500, "", "driver e1000e"),
        (driver("802.1Q VLAN Support", &[]), Kind::Vlan { id: 7 }, 1500, "", "VLAN interface"),
    ];
    for (offloads, kind, mtu, service, says) in cases {
        let mut view = host();
        view.links[1].kind = kind.clone();
        view.links[1].mtu = *mtu;
        let plan = plan(&view, &[("eth0", offloads.clone())], &config("", service, ""));
        assert_eq!(plan.ports[0].attach, Attach::Tc, "{says}");
        assert!(plan.ports[0].reason.contains(says), "{} says not {says}", plan.ports[0].reason);
    }
    let stripped = driver("ixgbe", &["rx-vlan-hw-parse"]);
    let without = plan(&host(), &[("eth0", stripped)], &config("", "", ""));
    assert_eq!(without.ports[0].attach, Attach::Native, "no service has a VLAN");
}

#[test]
fn a_veth_is_an_uplink_by_name_and_native_on_request() {
    let mut view = host();
    view.links[1].kind = Kind::Veth { peer: None };
    let veth = [("eth0", driver("veth", &[]))];
    let unnamed = plan(&view, &veth, &config("", "", ""));
    assert!(unnamed.refusals[0].contains("no uplink"), "{:?}", unnamed.refusals);
    let auto = plan(&view, &veth, &config("uplinks = [\"eth0\"]", "", ""));
    assert_eq!(auto.ports[0].attach, Attach::Tc);
    assert!(auto.ports[0].reason.contains("peer"));
    let native = plan(&view, &veth, &config("uplinks = [\"eth0\"]\nxdp = \"native\"", "", ""));
    assert_eq!((native.ports[0].attach, native.refusals.len()), (Attach::Native, 0));
    view.links[1].mtu = 9000;
    let jumbo = plan(&view, &veth, &config("uplinks = [\"eth0\"]\nxdp = \"native\"", "", ""));
    assert!(jumbo.refusals[0].contains("MTU 9000"), "{:?}", jumbo.refusals);
}

#[test]
fn generic_on_request_and_never_for_nat() {
    let generic = plan(&host(), &[], &config("xdp = \"generic\"", "", ""));
    assert_eq!(generic.ports[0].attach, Attach::Generic);
    let nat = plan(&host(), &[], &config("xdp = \"generic\"", "forward = \"nat\"", ""));
    assert!(nat.refusals[0].contains("service \"web\" is nat"), "{:?}", nat.refusals);
    assert!(nat.ports.iter().all(|port| port.role != Role::Uplink));
    let off = plan(&host(), &[], &config("xdp = \"off\"", "", ""));
    assert_eq!(off.ports[0].attach, Attach::Tc);
}

#[test]
fn a_bond_by_its_members() {
    let mut view = host();
    view.links[1].kind = Kind::Bond;
    view.links.push(link(7, "eth2", Kind::Physical, Some(2)));
    view.links.push(link(8, "eth3", Kind::Physical, Some(2)));
    let bond = ("eth0", driver("bonding", &[]));
    let good = ("eth2", driver("mlx5_core", &[]));
    let both = plan(&view, &[bond.clone(), good.clone(), ("eth3", driver("ice", &[]))], &config("", "", ""));
    assert_eq!(attached(&both)[0], ("eth0", Role::Uplink, Attach::Native));
    let one = plan(&view, &[bond, good, ("eth3", driver("tg3", &[]))], &config("", "", ""));
    assert_eq!(attached(&one)[..2], [("eth2", Role::Uplink, Attach::Tc), ("eth3", Role::Uplink, Attach::Tc)]);
    assert!(one.ports[0].reason.contains("eth3 of eth0 has driver tg3"), "{}", one.ports[0].reason);
}

#[test]
fn another_program_is_named_and_only_replaced_on_request() {
    let mut view = host();
    view.links[1].xdp = Some(42);
    let refused = plan(&view, &[("eth0", driver("ixgbe", &[]))], &config("", "", ""));
    assert!(refused.refusals[0].contains("eth0 already has the XDP program with id 42"));
    let config = config("", "", "");
    let replaced = attach_plan(&view, &BTreeMap::new(), &config.switches[0], &[], &[77], true);
    assert_eq!((replaced.ports[0].replaces, replaced.refusals.len()), (Some(42), 0));
    view.links[1].xdp = Some(77);
    let own = plan(&view, &[("eth0", driver("ixgbe", &[]))], &config);
    assert_eq!((own.ports[0].replaces, own.refusals.len()), (None, 0));
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let cases: &[(Kind, &str)] =
        &[(Kind::OpenVSwitch, "Open vSwitch"), (Kind::Macvtap, "macvtap"), (Kind::Macvlan, "macvlan")];
    for (kind, says) in cases {
        let mut view = host();
        view.links[0].kind = kind.clone();
        let plan = plan(&view, &[], &config("", "", ""));
        assert!(plan.refusals[0].contains(says) && plan.refusals[0].contains("br0"), "{:?}", plan.refusals);
        assert_eq!(plan.ports, []);
    }
    let mut view = host();
    view.links.remove(0);
    assert!(plan(&view, &[], &config("", "", "")).refusals[0].contains("no interface \"br0\""));
    let missing = plan(&host(), &[], &config("uplinks = [\"eth9\"]", "", ""));
    assert!(missing.refusals[0].contains("eth9 is not a port of br0"), "{:?}", missing.refusals);
}
