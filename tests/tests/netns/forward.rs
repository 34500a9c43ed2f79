//! Both ways of forwarding carry real traffic between real sockets: TCP with and without offloads, UDP whole and
//! in fragments, path MTU, ICMP errors, and direct connections beside it all.

use std::time::Duration;

use lbx_tests::guest::echo;
use lbx_tests::lab::addr::{self, Pair};
use lbx_tests::lab::client::{http, load::Load, transfer, udp};
use lbx_tests::lab::config::{File, Service, stand_ins};
use lbx_tests::lab::offload::Offloads;
use lbx_tests::lab::vm::Family;
use lbx_tests::lab::{LabSpec, VmKind, tools};
use lbx_tests::scenario::{FAMILIES, Scenario, errors, need_root, vip};

/// Where `nat` services live: nobody holds it.
const NAT: usize = 1;
/// A port no stand-in listens on.
const CLOSED: u16 = 9;
/// What Must-show transfers move in each cell.
const LARGE: u64 = 100_000_000;

/// One of each kind, to `n` targets: `dsr` on VIP 0, `nat` on VIP 1.
fn services(n: usize) -> Vec<Service> {
    let (dsr, nat): (Pair, Pair) = (addr::vip(0), addr::vip(NAT));
    vec![
        Service::dsr("web", dsr, "tcp", 80, stand_ins(n)),
        Service::dsr("echo", dsr, "udp", echo::PORT, stand_ins(n)),
        Service::dsr("nobody", dsr, "udp", CLOSED, stand_ins(n)),
        Service::nat("nat-web", nat, "tcp", 8080, 80, stand_ins(n)),
        Service::nat("nat-echo", nat, "udp", 7007, echo::PORT, stand_ins(n)),
        Service::nat("nat-nobody", nat, "udp", 7009, CLOSED, stand_ins(n)),
    ]
}

/// The web service of a way of forwarding in a family.
fn web(forward: &str, family: Family) -> std::net::SocketAddr {
    match forward {
        "dsr" => (vip(0, family), 80).into(),
        _ => (vip(NAT, family), 8080).into(),
    }
}

/// The UDP echo of a way of forwarding in a family.
fn udp_echo(forward: &str, family: Family) -> std::net::SocketAddr {
    match forward {
        "dsr" => (vip(0, family), echo::PORT).into(),
        _ => (vip(NAT, family), 7007).into(),
    }
}

fn start(spec: LabSpec, xdp: &'static str) -> Scenario {
    need_root();
    let scenario = Scenario::start(spec, &[File::new(services(2)).xdp(xdp)]).unwrap();
    for family in FAMILIES {
        scenario.wait_for(web("dsr", family)).unwrap();
        scenario.wait_for(web("nat", family)).unwrap();
    }
    scenario
}

/// Two stand-ins; the sender's offloads and those of the wire on or off.
fn spec(offloads: bool) -> LabSpec {
    let mut spec = LabSpec::one_host(2, VmKind::StandIn);
    let side = Offloads { gro: Some(true), ..Offloads::sender(offloads) };
    spec.clients[0].offloads = side;
    spec.wire = Offloads { txvlan: Some(false), rxvlan: Some(false), ..side };
    spec
}

/// 100 MB up and down through every cell, hashed at both ends; then no checksum error anywhere.
fn large_transfers(scenario: &Scenario) {
    let before = scenario.checksum_errors().unwrap();
    for forward in ["dsr", "nat"] {
        for family in FAMILIES {
            let at = web(forward, family);
            let run = |what: &str, result: anyhow::Result<transfer::Transfer>| {
                let done = result.unwrap_or_else(|error| {
                    panic!("{forward} {family:?} {what}: {error:#}\n{}", scenario.story())
                });
                eprintln!("{forward} {family:?} {what}: {:?} with {}", done.took, done.vm);
            };
            run("up", transfer::upload(scenario.client(), at, None, LARGE));
            run("down", transfer::download(scenario.client(), at, None, LARGE));
        }
    }
    assert_eq!(scenario.checksum_errors().unwrap(), before, "checksum errors; {}", scenario.story());
}

#[test]
fn large_transfers_over_tc_with_offloads() {
    let scenario = start(spec(true), "auto");
    // The frames really are larger than the wire's: otherwise this would test what the next test tests.
    let tso = scenario.client().command("ethtool").args(["-k", "eth0"]).output().unwrap();
    assert!(String::from_utf8_lossy(&tso.stdout).contains("tcp-segmentation-offload: on"));
    large_transfers(&scenario);
}

#[test]
fn large_transfers_over_tc_with_checksums_completed_on_the_last_hop() {
    let scenario = start(spec(true), "auto");
    // A receiver trusts a checksum that is still to be filled in, and so hides a wrong one. With `tx off` the last
    // link fills it in and the receiver has to verify it: to the stand-ins, and back to the client.
    for vm in &scenario.lab.vms {
        Offloads::sender(false).apply(&vm.host_ns, &vm.port).unwrap();
    }
    Offloads::sender(false).apply(&scenario.lab.net, "c0").unwrap();
    large_transfers(&scenario);
}

#[test]
fn large_transfers_over_native_xdp() {
    let scenario = start(spec(false), "native");
    large_transfers(&scenario);
}

/// Datagrams that fit, that just do not, and that take three fragments, there and back.
fn datagrams(scenario: &Scenario) {
    let before = scenario.checksum_errors().unwrap();
    for forward in ["dsr", "nat"] {
        for family in FAMILIES {
            for size in [1, 1200, 1472, 4096] {
                let at = udp_echo(forward, family);
                let report = udp::run(scenario.client(), at, 20, 3, size).unwrap();
                assert_eq!(
                    (report.answered, report.lost, report.moved),
                    (60, 0, 0),
                    "{forward} {family:?} {size} bytes: {:?}\n{}",
                    report.errors,
                    scenario.story()
                );
                assert_eq!(report.flows.len(), 2, "20 flows over 2 targets: {:?}", report.flows);
            }
        }
    }
    assert_eq!(scenario.checksum_errors().unwrap(), before);
    assert!(scenario.count(0, "fragment_followed").unwrap() > 0, "{}", scenario.story());
}

#[test]
fn udp_whole_and_in_fragments_over_tc() {
    let scenario = start(spec(true), "auto");
    datagrams(&scenario);
    port_unreachable(&scenario);
    direct_connections(&scenario);
}

#[test]
fn udp_whole_and_in_fragments_over_native_xdp() {
    let scenario = start(spec(false), "native");
    datagrams(&scenario);
    port_unreachable(&scenario);
    direct_connections(&scenario);
}

/// What a closed port says reaches the client's socket, and it comes from the VIP.
fn port_unreachable(scenario: &Scenario) {
    for (k, port) in [(0, CLOSED), (NAT, 7009)] {
        for family in FAMILIES {
            let at = (vip(k, family), port).into();
            let error = scenario.client().run(|| {
                let socket = udp::socket(at, None, Duration::from_secs(1))?;
                errors::keep(&socket, family == Family::V4)?;
                socket.send(b"is anybody there")?;
                errors::next(&socket, Duration::from_secs(2))
            });
            let error = error.unwrap().unwrap_or_else(|e| panic!("{at}: {e:#}\n{}", scenario.story()));
            let kind = if family == Family::V4 { (3, 3) } else { (1, 4) };
            assert_eq!((error.errno, error.kind, error.from), (libc::ECONNREFUSED, kind, vip(k, family)));
        }
    }
}

/// A connection to a target's own address and port is nobody's business, while `nat` translates others.
fn direct_connections(scenario: &Scenario) {
    for family in FAMILIES {
        let sources = scenario.sources();
        let through = Load { threads: 4, sources, ..Load::endless(web("nat", family)) };
        let through = through.start(scenario.client());
        for vm in &scenario.lab.vms {
            let report =
                Load { threads: 2, ..Load::new(vm.http(family), 200) }.run(scenario.client()).unwrap();
            assert_eq!((report.failed, report.connections.get(&vm.spec.name)), (0, Some(&200)), "{report:?}");
            let at = vm.http(family);
            let answer = scenario.client().run(|| http::request(at, "GET", "/", b"")).unwrap().unwrap();
            assert!(answer.text().contains(&format!("\"server\":\"{at}\"")), "{}", answer.text());
        }
        let through = through.stop().unwrap();
        assert_eq!(through.failed, 0, "{:?}\n{}", through.errors, scenario.story());
        assert!(through.total() > 100, "{through:?}");
    }
    assert!(scenario.count(0, "not_translated").unwrap() > 0);
}

/// The link to one target takes 1,300 bytes and nobody but lbx knows: the client has to be told.
fn path_mtu(offloads: bool, xdp: &'static str) {
    let mut spec = spec(offloads);
    spec.hosts[0].vms.truncate(1);
    need_root();
    let scenario = Scenario::start(spec, &[File::new(services(1)).xdp(xdp)]).unwrap();
    tools::ip(&scenario.lab.host().ns, &["link set vif0 mtu 1300".into()]).unwrap();
    for family in FAMILIES {
        for forward in ["dsr", "nat"] {
            scenario.wait_for(web(forward, family)).unwrap();
            let before = scenario.count(0, "too_big_answered").unwrap();
            let done = transfer::upload(scenario.client(), web(forward, family), None, 5_000_000);
            done.unwrap_or_else(|error| panic!("{forward} {family:?}: {error:#}\n{}", scenario.story()));
            assert!(scenario.count(0, "too_big_answered").unwrap() > before, "{}", scenario.story());
            // The client's kernel believed it.
            let to = web(forward, family).ip().to_string();
            let route = scenario.client().command("ip").args(["route", "get", &to]).output().unwrap();
            let route = String::from_utf8_lossy(&route.stdout).into_owned();
            assert!(route.contains("mtu 1300"), "{forward} {family:?}: {route}");
        }
    }
}

#[test]
fn a_smaller_link_is_told_to_the_client_over_tc() {
    path_mtu(true, "auto");
}

#[test]
fn a_smaller_link_is_told_to_the_client_over_native_xdp() {
    path_mtu(false, "native");
}
