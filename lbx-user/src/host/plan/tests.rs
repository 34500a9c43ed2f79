//! Hosts as tables: what is there, and what lbx decides about it.

use std::collections::BTreeMap;

use super::*;
use crate::config::{Config, Switch};
use crate::host::filters::{Finding, Source};
use crate::host::links::{Address, Kind, Link, PortVlan, Route, View};
use crate::host::offload::Offloads;

fn link(index: u32, name: &str, kind: Kind, master: Option<u32>) -> Link {
    Link {
        index,
        name: name.to_owned(),
        kind,
        master,
        parent: None,
        mac: [2, 0, 0, 0, 0, index as u8],
        mtu: 1500,
        up: true,
        xdp: None,
        vlans: Vec::new(),
        learning: true,
    }
}

fn bridge(vlan_filtering: bool) -> Kind {
    Kind::Bridge { vlan_filtering, default_pvid: 1, calls_iptables: false }
}

fn tap() -> Kind {
    Kind::Tap { queues: 1 }
}

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

/// `drops`: what the VIP sends is dropped by it.
fn finding(source: Source, drops: bool) -> Finding {
    let rule = "bridge guard fwd: ip saddr 203.0.113.9 drop".to_owned();
    let drops = if drops { senders(&config("", "", TARGET).services[0]) } else { Vec::new() };
    Finding { port: "tap0".to_owned(), source, rule, drops }
}

#[test]
fn auto_delivers_through_the_bridge_where_something_would_be_lost() {
    assert_eq!(delivery_auto(&[]).0, Delivered::Redirect);
    let (how, why) = delivery_auto(&[finding(Source::Shaping, false), finding(Source::NftBridge, false)]);
    assert_eq!(how, Delivered::Bridge);
    assert_eq!(
        why,
        "a redirected frame would not meet: nft rule on tap0: bridge guard fwd: ip saddr 203.0.113.9 drop \
         (and 1 more)"
    );
}

#[test]
fn what_cannot_be_redirected_into_goes_by_the_bridge_or_not_at_all() {
    use crate::host::filters::redirect_finding;
    let veth = link(3, "tap0", Kind::Veth { peer: None }, Some(1));
    assert_eq!(redirect_finding(&veth, Some(true)), None);
    assert_eq!(redirect_finding(&link(3, "tap0", tap(), Some(1)), None), None);
    assert!(redirect_finding(&veth, None).is_some(), "better slow than lost");
    let deaf = redirect_finding(&veth, Some(false)).unwrap();
    let (how, why) = delivery_auto(&[finding(Source::NftBridge, false), deaf.clone()]);
    assert_eq!(how, Delivered::Bridge);
    assert!(why.contains("does no NAPI"), "{why}");
    let targets = [resolved("tap0", Some(3), 1)];
    for more in ["", "\nbypass_filters = true"] {
        let redirect = config("", &format!("deliver = \"redirect\"{more}"), TARGET);
        let found = refusals(&host(), &redirect, &targets, &[deaf.clone()]);
        refused(&found, Some("tap0"), "does not reach it");
        assert!(found[0].hint.contains("gro on"), "{}", found[0].hint);
    }
}

const TARGET: &str = "[[service.target]]\nnic = \"tap0\"\n";

fn resolved(target: &str, link: Option<u32>, mac: u8) -> ResolvedTarget {
    ResolvedTarget {
        service: "web".to_owned(),
        target: target.to_owned(),
        link,
        mac: Some([0x52, 0x54, 0, 0, 0, mac]),
        queues: 1,
        error: None,
    }
}

fn refusals(view: &View, config: &Config, targets: &[ResolvedTarget], findings: &[Finding]) -> Vec<Refusal> {
    guard_rails(&GuardInput { config, view, targets, findings })
}

/// Exactly one refusal, of a target (`Some`) or the service, that says so.
fn refused(found: &[Refusal], target: Option<&str>, says: &str) {
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].target.as_deref(), target);
    assert!(found[0].reason.contains(says), "{:?} says not {says:?}", found[0].reason);
}

#[test]
fn a_host_that_fits_is_not_refused() {
    let found = refusals(&host(), &config("", "", TARGET), &[resolved("tap0", Some(3), 1)], &[]);
    assert_eq!(found, []);
}

#[test]
fn a_vip_belongs_to_no_machine() {
    let with = |vip: &str| config("", &format!("vip = \"{vip}\""), TARGET);
    refused(&refusals(&host(), &with("192.0.2.1"), &[], &[]), None, "address of this host, on br0");
    refused(&refusals(&host(), &with("198.51.100.1"), &[], &[]), None, "gateway");
    refused(&refusals(&host(), &with("192.0.2.255"), &[], &[]), None, "broadcast address of 192.0.2.0/24");
    refused(&refusals(&host(), &with("192.0.2.0"), &[], &[]), None, "network 192.0.2.0/24 itself");
    let held = config("", "vip = \"192.0.2.1\"\nanswer = \"link:br0\"", TARGET);
    assert_eq!(refusals(&host(), &held, &[], &[]), []);
    let elsewhere = config("", "vip = \"192.0.2.1\"\nanswer = \"link:eth1\"", TARGET);
    refused(&refusals(&host(), &elsewhere, &[], &[]), None, "address of this host");
}

#[test]
fn two_targets_with_one_mac() {
    let two = [resolved("tap0", Some(3), 1), resolved("other", None, 1)];
    let dsr = config("", "", TARGET);
    refused(
        &refusals(&host(), &dsr, &two, &[]),
        Some("other"),
        "same MAC address 52:54:00:00:00:01 as target tap0",
    );
    let ports = [resolved("tap0:1", Some(3), 1), resolved("tap0:2", Some(3), 1)];
    let nat = config("", "forward = \"nat\"", TARGET);
    assert_eq!(refusals(&host(), &nat, &ports, &[]), [], "two ports of one VM");
}

#[test]
fn a_target_on_another_bridge() {
    let found = refusals(&host(), &config("", "", TARGET), &[resolved("tap1", Some(5), 1)], &[]);
    refused(&found, Some("tap1"), "tap1 is on br1, not on br0");
    let found = refusals(&host(), &config("", "", TARGET), &[resolved("eth1", Some(6), 1)], &[]);
    refused(&found, Some("eth1"), "on no bridge");
}

#[test]
fn a_target_outside_the_vlan() {
    let mut view = host();
    view.links[0].kind = bridge(true);
    view.links[2].vlans = vec![PortVlan { id: 20, pvid: false, untagged: false }];
    let targets = [resolved("tap0", Some(3), 1)];
    let found = refusals(&view, &config("", "vlan = 10", TARGET), &targets, &[]);
    refused(&found, Some("tap0"), "not a member of VLAN 10");
    assert_eq!(refusals(&view, &config("", "vlan = 20", TARGET), &targets, &[]), []);
    refused(&refusals(&view, &config("", "", TARGET), &targets, &[]), Some("tap0"), "no untagged frames");
}

#[test]
fn redirect_past_a_rule_needs_bypass_filters() {
    let targets = [resolved("tap0", Some(3), 1)];
    let rule = [finding(Source::NftBridge, false)];
    let redirect = config("", "deliver = \"redirect\"", TARGET);
    refused(&refusals(&host(), &redirect, &targets, &rule), Some("tap0"), "bridge guard fwd");
    let bypass = config("", "deliver = \"redirect\"\nbypass_filters = true", TARGET);
    assert_eq!(refusals(&host(), &bypass, &targets, &rule), []);
    assert_eq!(refusals(&host(), &config("", "", TARGET), &targets, &rule), [], "auto goes by the bridge");
    assert_eq!(refusals(&host(), &redirect, &targets, &[finding(Source::Vlan, false)]), []);
}

#[test]
fn dsr_behind_a_source_filter() {
    let targets = [resolved("tap0", Some(3), 1)];
    let filter = [finding(Source::Nwfilter, true)];
    refused(
        &refusals(&host(), &config("", "", TARGET), &targets, &filter),
        Some("tap0"),
        "answers from the VIP",
    );
    let nat = config("", "forward = \"nat\"", TARGET);
    assert_eq!(refusals(&host(), &nat, &targets, &filter), []);
}

#[test]
fn a_target_that_was_not_found_says_why() {
    let mut lost = resolved("tap0", None, 1);
    lost.error = Some("no process of that name".to_owned());
    refused(
        &refusals(&host(), &config("", "", TARGET), &[lost], &[]),
        Some("tap0"),
        "no process of that name",
    );
}

#[test]
fn the_way_out_and_the_callers_session_are_not_cut() {
    let view = host();
    assert_eq!(lockout(&view, "br0", None), None);
    let ssh = "203.0.113.5 50000 192.0.2.1 22";
    assert!(lockout(&view, "br0", Some(ssh)).unwrap().contains("from 203.0.113.5 comes in over br0"));
    let through = "192.0.2.99 50000 198.51.100.7 22";
    assert!(lockout(&view, "br0", Some(through)).unwrap().contains("replies"));
    assert!(lockout(&view, "eth1", None).unwrap().contains("default route goes out over eth1"));
    assert_eq!(lockout(&view, "br1", Some(ssh)), None);

    // The default route on a VLAN on top of the bridge, and on the bridge whose port is attached.
    let mut view = host();
    let mut vlan = link(9, "br0.5", Kind::Vlan { id: 5 }, None);
    vlan.parent = Some(1);
    view.links.push(vlan);
    view.routes[0].index = Some(9);
    assert!(lockout(&view, "br0", None).unwrap().contains("br0.5"));
    assert_eq!(lockout(&view, "br1", None), None);
}

#[test]
fn targets_are_found_on_the_host() {
    use crate::host::vm::{Process, TapFds, identity};
    let args =
        ["qemu", "-name", "a", "-netdev", "tap,id=n,fd=9", "-device", "x,netdev=n,mac=52:54:00:00:00:01"];
    let tap = |name: &str, fd| TapFds { name: name.to_owned(), fds: vec![fd] };
    let process = |taps| Process {
        pid: 1,
        start_time: 1,
        uid: 0,
        user: None,
        identity: identity(&args.map(ToOwned::to_owned)),
        taps,
    };
    let targets = "[[service.target]]\nvm = \"a\"\n[[service.target]]\nnic = \"tap9\"\n\
                   [[service.target]]\nmac = \"52:54:00:00:00:03\"\n";
    let config = config("", "", targets);
    // tap1 is on br1: the one on the service's switch counts.
    let found = resolve(&config, &host(), &[process(vec![tap("tap1", 8), tap("tap0", 9)])]);
    assert_eq!((found[0].link, found[0].mac), (Some(3), Some([0x52, 0x54, 0, 0, 0, 1])));
    assert_eq!(found[1].error.as_deref(), Some("there is no interface \"tap9\""));
    assert_eq!((found[2].link, found[2].mac), (None, Some([0x52, 0x54, 0, 0, 0, 3])));
    let elsewhere = resolve(&config, &host(), &[process(vec![tap("tap1", 8)])]);
    assert_eq!(elsewhere[0].link, Some(5), "refused later, by the bridge it is on");
    let gone = resolve(&config, &host(), &[]);
    assert!(gone[0].error.as_ref().unwrap().contains("no process of that name"));
}
