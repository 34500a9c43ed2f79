//! Ways to peers on hosts as tables.

use std::collections::BTreeMap;

use super::*;
use crate::control::resolve::resolve;
use crate::host::testing::{bridge, link, tap};
use crate::host::{Address, FdbEntry, Kind, Neighbour, Route};

const CONFIG: &str = r#"
[peers]
name = "kvm1"
listen = "10.0.0.1:9346"
ca = "/a/ca.pem"
certificate = "/a/kvm1.pem"
key = "/a/kvm1.key"
tunnel = "10.0.0.1"
[[peer]]
name = "kvm2"
address = "10.1.0.2:9346"
tunnel = "10.1.0.2"
tunnel_mtu = 1400
[[peer]]
name = "kvm3"
address = "10.0.0.3:9346"
[[peer]]
name = "kvm4"
address = "10.0.0.4:9346"
tunnel = "10.0.0.4"
[[switch]]
name = "br0"
uplinks = ["up0"]
[[service]]
name = "web"
switch = "br0"
vip = "192.0.2.10"
protocol = "tcp"
port = 80
forward = "dsr"
[[service.target]]
nic = "va"
"#;
const VM: Mac = [2, 0, 0, 0, 1, 3];
const ROUTER: Mac = [2, 0, 0, 0, 9, 9];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// br0 with up0 and va, eth9 aside; 10.0.0.0/24 on br0, a default route by 10.0.0.254 that is known.
fn view() -> View {
    let route = |index, destination: Option<(&str, u8)>, gateway: Option<&str>| Route {
        index: Some(index),
        destination: destination.map(|(network, prefix)| (ip(network), prefix)),
        gateway: gateway.map(ip),
        table: 254,
    };
    View {
        links: vec![
            link(1, "br0", bridge(false), None),
            link(2, "up0", Kind::Physical, Some(1)),
            link(3, "va", tap(), Some(1)),
            link(9, "eth9", Kind::Physical, None),
        ],
        addresses: vec![Address { index: 1, address: ip("10.0.0.1"), prefix: 24 }],
        routes: vec![
            route(1, None, Some("10.0.0.254")),
            route(1, Some(("10.0.0.0", 24)), None),
            route(9, Some(("10.7.0.0", 16)), None),
            Route { table: 7, ..route(9, Some(("10.1.0.2", 32)), None) },
        ],
        neighbours: vec![Neighbour { index: 1, address: ip("10.0.0.254"), mac: Some(ROUTER) }],
        fdb: vec![FdbEntry { index: 3, master: Some(1), mac: VM, vlan: None, permanent: false }],
    }
}

fn config() -> Config {
    Config::parse("test", CONFIG).unwrap()
}

fn found(config: &Config, view: &View) -> Vec<Found> {
    resolve(config, view, &[], &BTreeMap::new())
}

#[test]
fn the_longest_prefix_of_the_main_table() {
    let view = view();
    let hop = |to: &str| next(&view, ip(to)).map(|next| (next.index, next.address));
    assert_eq!(hop("10.0.0.9"), Some((1, ip("10.0.0.9"))));
    assert_eq!(hop("10.1.0.2"), Some((1, ip("10.0.0.254"))), "not by another table");
    assert_eq!(hop("10.7.1.1"), Some((9, ip("10.7.1.1"))));
    assert_eq!(hop("2001:db8::1"), None);
}

#[test]
fn a_way_leaves_by_the_switch_or_says_why_not() {
    let mut view = view();
    let go = |view: &View, to: &str| way(view, "br0", &[2], ip(to));
    assert_eq!(go(&view, "10.1.0.2"), Ok(Way { port: 2, hop: ROUTER, mtu: 1500 }));
    assert!(go(&view, "10.0.0.4").unwrap_err().contains("10.0.0.4 has not answered on br0"));
    view.neighbours.push(Neighbour { index: 9, address: ip("10.7.0.2"), mac: Some(ROUTER) });
    assert!(go(&view, "10.7.0.2").unwrap_err().contains("leaves by eth9"));
    assert!(go(&view, "2001:db8::1").unwrap_err().contains("no route"));
    // Of several uplinks the one the next hop was heard behind.
    view.fdb.push(FdbEntry { index: 9, master: Some(1), mac: ROUTER, vlan: None, permanent: false });
    assert_eq!(way(&view, "br0", &[2, 9], ip("10.1.0.2")).unwrap().port, 9);
    view.links[1].mtu = 1300;
    assert_eq!(way(&view, "br0", &[2], ip("10.1.0.2")).unwrap().mtu, 1300);
}

#[test]
fn flows_go_through_the_tunnel_of_the_host_that_was_named() {
    let (config, mut view) = (config(), view());
    let found = found(&config, &view);
    let go = |view: &View, host| moves(&config, view, &found[0], 0, host);
    let Some(Moves::To(place)) = go(&view, Some("kvm2")) else { panic!("no place") };
    let through = place.through.unwrap();
    assert_eq!((place.ifindex, place.mac, place.mtu), (2, VM, 1350), "1400 of the peer less 50");
    assert_eq!((through.hop, through.own, through.end), (ROUTER, ip("10.0.0.1"), ip("10.1.0.2")));
    let Some(Moves::To(tagged)) = moves(&config, &view, &found[0], 10, Some("kvm2")) else { panic!() };
    assert_eq!((tagged.vlan, tagged.mtu), (10, 1346));
    // On the common segment, unknown, and not said among several: as without tunnels.
    for host in [Some("kvm3"), Some("kvm9"), None] {
        assert_eq!(go(&view, host), None, "{host:?}");
    }
    let mut left = Found { was: Some(VM), ..found[0].clone() };
    left.base.mac = None;
    let after = moves(&config, &view, &left, 0, Some("kvm2"));
    assert_eq!(after, Some(Moves::To(place)), "it has left, and who it was is remembered");
    let waits = |view: &View, host| match go(view, Some(host)) {
        Some(Moves::Waiting { end, why }) => (end, why),
        other => panic!("{host}: {other:?}"),
    };
    let (end, why) = waits(&view, "kvm4");
    assert_eq!(end, ip("10.0.0.4"));
    assert!(why.contains("kvm4") && why.contains("has not answered"), "{why}");
    view.neighbours.clear();
    assert_eq!(waits(&view, "kvm2").0, ip("10.1.0.2"), "the router is not known any more");
    let mut only = config.clone();
    only.peers.as_mut().unwrap().others.truncate(1);
    view.neighbours.push(Neighbour { index: 1, address: ip("10.0.0.254"), mac: Some(ROUTER) });
    assert!(matches!(moves(&only, &view, &found[0], 0, None), Some(Moves::To(_))), "who else");
}

#[test]
fn what_comes_out_is_for_targets_here() {
    let (config, view) = (config(), view());
    let found = found(&config, &view);
    let want = want(&config, &found, |_| true).unwrap();
    assert_eq!(want.own, ip("10.0.0.1"));
    assert_eq!(want.peers, [ip("10.1.0.2"), ip("10.0.0.4")]);
    let vm = |straight| [TunnelVm { switch: "br0".to_owned(), mac: VM, ifindex: 3, straight }];
    assert_eq!(want.vms, vm(true));
    let twice = [found[0].clone(), found[0].clone()];
    let nth = std::cell::Cell::new(0);
    let one_of_two = super::want(&config, &twice, |_| nth.replace(nth.get() + 1) == 0).unwrap();
    assert_eq!(one_of_two.vms, vm(false), "the stricter of two services");
    let hops: Vec<IpAddr> = hops(&config, &view).into_iter().map(|(next, _)| next.address).collect();
    assert_eq!(hops, [ip("10.0.0.254"), ip("10.0.0.4")]);
    let problems = problems(&config, &view, &[("br0".to_owned(), vec![2])]);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].0, "kvm4");
    let without = Config { peers: None, ..config };
    assert!(super::want(&without, &found, |_| true).is_none() && super::hops(&without, &view).is_empty());
}
