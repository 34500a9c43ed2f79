//! How frames get to the target's port: past the bridge's rules or through them, and what the switches learn.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use lbx_tests::guest::announce::mac_text;
use lbx_tests::guest::echo;
use lbx_tests::lab::addr;
use lbx_tests::lab::client::load::Load;
use lbx_tests::lab::client::udp;
use lbx_tests::lab::config::{File, Service, stand_ins};
use lbx_tests::lab::offload::Offloads;
use lbx_tests::lab::vm::Family;
use lbx_tests::lab::{LabSpec, Netns, VmKind, tools};
use lbx_tests::scenario::sniff::Sniffer;
use lbx_tests::scenario::{FAMILIES, Scenario, errors, eventually, need_root, vip};

/// The client's source address that the filter blocks.
const BLOCKED: usize = 0;

/// A bridge filter against one client, without conntrack.
fn block(ns: &Netns) {
    let who = addr::source(0, BLOCKED);
    let rules = format!(
        "add table bridge guard\n\
         add chain bridge guard forward {{ type filter hook forward priority 0; }}\n\
         add rule bridge guard forward ip saddr {} counter drop\n\
         add rule bridge guard forward ip6 saddr {} counter drop\n",
        who.v4, who.v6
    );
    nft(ns, &rules);
}

/// br_netfilter hands bridged packets to iptables' hooks, where conntrack drops what it does not understand.
fn invalid_drop(ns: &Netns) {
    ns.sysctls(&[
        ("net/bridge/bridge-nf-call-iptables", "1"),
        ("net/bridge/bridge-nf-call-ip6tables", "1"),
        // Conntrack must not adopt a connection in the middle, as a strict firewall's would not.
        ("net/netfilter/nf_conntrack_tcp_loose", "0"),
    ])
    .unwrap();
    nft(
        ns,
        "add table inet firewall\n\
         add chain inet firewall forward { type filter hook forward priority 0; }\n\
         add rule inet firewall forward ct state invalid counter drop\n",
    );
}

fn nft(ns: &Netns, rules: &str) {
    let file = std::env::temp_dir().join(format!("{}.nft", ns.name()));
    std::fs::write(&file, rules).unwrap();
    let done = tools::run(ns.command("nft").arg("-f").arg(&file));
    std::fs::remove_file(&file).unwrap();
    done.unwrap();
}

fn services(deliver: &'static str, bypass_filters: bool) -> Vec<Service> {
    [
        Service::dsr("web", addr::vip(0), "tcp", 80, stand_ins(2)),
        Service::nat("nat-web", addr::vip(1), "tcp", 8080, 80, stand_ins(2)),
    ]
    .map(|service| Service { deliver, bypass_filters, ..service })
    .to_vec()
}

/// A lab whose host has rules before lbx starts.
fn start(rules: impl FnOnce(&Netns), services: Vec<Service>) -> Scenario {
    need_root();
    let lab = lbx_tests::lab::Lab::start(LabSpec::one_host(2, VmKind::StandIn)).unwrap();
    rules(&lab.host().ns);
    let lbx = lbx_tests::lab::Lbx::start(&lab, 0, &File::new(services).text()).unwrap();
    Scenario { lbx: vec![lbx], lab }
}

const SERVED: [(usize, u16); 2] = [(0, 80), (1, 8080)];

/// 100 connections from every source but the blocked one, and none from that one.
fn filter_holds_and_connections_work(scenario: &Scenario, served: &[(usize, u16)]) {
    for &(k, port) in served {
        for family in FAMILIES {
            let at = (vip(k, family), port).into();
            scenario.wait_for(at).unwrap();
            let sources =
                scenario.lab.client().sources[BLOCKED + 1..].iter().flat_map(|s| s.both()).collect();
            let load = Load { sources, threads: 4, ..Load::new(at, 100) };
            let report = load.run(scenario.client()).unwrap();
            assert_eq!(
                (report.failed, report.total()),
                (0, 100),
                "{:?}\n{}",
                report.errors,
                scenario.story()
            );
            assert_eq!(reaches(scenario, at, BLOCKED), 0, "the filter was bypassed; {}", scenario.story());
        }
    }
}

/// Of three attempts from one source, how many were served.
fn reaches(scenario: &Scenario, at: std::net::SocketAddr, source: usize) -> u64 {
    let sources = scenario.lab.client().sources[source].both().to_vec();
    let limit = Duration::from_millis(400);
    let load = Load { sources, threads: 3, limit, ..Load::new(at, 3) };
    load.run(scenario.client()).unwrap().total()
}

/// Conntrack sees both ways of a connection with the same addresses: by `dsr` as they are, by `nat` with the
/// target's.
fn with_conntrack(deliver: &'static str) -> Scenario {
    let rules = |ns: &Netns| {
        block(ns);
        invalid_drop(ns);
    };
    start(rules, services(deliver, false))
}

/// How many packets the "invalid" rule dropped.
fn invalid(scenario: &Scenario) -> String {
    let rules = scenario.lab.host().ns.command("nft").args(["list", "table", "inet", "firewall"]).output();
    String::from_utf8_lossy(&rules.unwrap().stdout).into_owned()
}

#[test]
fn bridge_delivery_stays_behind_the_filter() {
    let scenario = start(block, services("bridge", false));
    filter_holds_and_connections_work(&scenario, &SERVED);
}

#[test]
fn bridge_delivery_goes_well_with_conntrack() {
    let scenario = with_conntrack("bridge");
    filter_holds_and_connections_work(&scenario, &SERVED);
    assert!(invalid(&scenario).contains("counter packets 0"), "{}", invalid(&scenario));
}

#[test]
fn auto_delivery_finds_the_filter_and_stays_behind_it() {
    let scenario = start(block, services("auto", false));
    filter_holds_and_connections_work(&scenario, &SERVED);
    let target = scenario.target(0, "web/vif0").unwrap();
    assert_eq!(target["deliver"], "bridge", "{target}");
    assert!(target["deliver_reason"].as_str().unwrap().contains("guard"), "{target}");
}

#[test]
fn auto_delivery_finds_conntrack_alone_and_goes_well_with_it() {
    let scenario = start(invalid_drop, services("auto", false));
    for (k, port) in SERVED {
        for family in FAMILIES {
            let at = (vip(k, family), port).into();
            scenario.wait_for(at).unwrap();
            let report = Load { threads: 4, ..Load::new(at, 100) }.run(scenario.client()).unwrap();
            assert_eq!(report.failed, 0, "{at}: {:?}\n{}", report.errors, scenario.story());
        }
    }
    for name in ["web/vif0", "nat-web/vif0:80"] {
        let target = scenario.target(0, name).unwrap();
        assert_eq!(target["deliver"], "bridge", "{target}");
        assert!(target["deliver_reason"].as_str().unwrap().contains("invalid"), "{target}");
    }
}

/// Whoever the client of a nat service is: on another machine, another VM of the bridge, or the host itself. Each
/// with datagrams in fragments and errors beside the connections, behind conntrack.
#[test]
fn nat_behind_conntrack_serves_clients_wherever_they_are() {
    need_root();
    let lab = lbx_tests::lab::Lab::start(LabSpec::one_host(3, VmKind::StandIn)).unwrap();
    invalid_drop(&lab.host().ns);
    let mut services = services("bridge", false)[1..].to_vec();
    let nat = |name, port, to| Service {
        deliver: "bridge",
        ..Service::nat(name, addr::vip(1), "udp", port, to, stand_ins(2))
    };
    services.extend([nat("nat-echo", 7007, echo::PORT), nat("nat-nobody", 7009, 9)]);
    let lbx = lbx_tests::lab::Lbx::start(&lab, 0, &File::new(services).text()).unwrap();
    let scenario = Scenario { lbx: vec![lbx], lab };
    let neighbour = scenario.lab.vms[2].ns.as_ref().unwrap();
    for family in FAMILIES {
        scenario.wait_for((vip(1, family), 8080).into()).unwrap();
        for (who, ns) in [("client", scenario.client()), ("VM", neighbour), ("host", &scenario.lab.host().ns)]
        {
            let at = (vip(1, family), 8080).into();
            let report = Load { threads: 4, ..Load::new(at, 100) }.run(ns).unwrap();
            assert_eq!((report.failed, report.total()), (0, 100), "{who} {family:?}: {report:?}");
            assert_eq!(report.connections.len(), 2, "{report:?}");
            for size in [100, 4000] {
                let report = udp::run(ns, (vip(1, family), 7007).into(), 10, 3, size).unwrap();
                assert_eq!((report.answered, report.lost), (30, 0), "{who} {family:?} {size}: {report:?}");
            }
            let error = ns.run(|| {
                let socket = udp::socket((vip(1, family), 7009).into(), None, Duration::from_secs(1))?;
                errors::keep(&socket, family == Family::V4)?;
                socket.send(b"is anybody there")?;
                errors::next(&socket, Duration::from_secs(2))
            });
            let error = error.unwrap().unwrap_or_else(|e| panic!("{who} {family:?}: {e:#}"));
            assert_eq!((error.errno, error.from), (libc::ECONNREFUSED, vip(1, family)), "{who}");
        }
    }
    assert!(invalid(&scenario).contains("counter packets 0"), "{}", invalid(&scenario));
}

#[test]
fn auto_delivery_takes_the_short_way_where_nothing_is_filtered() {
    let scenario = start(|_| {}, services("auto", false));
    scenario.wait_for((vip(0, Family::V4), 80).into()).unwrap();
    let target = scenario.target(0, "web/vif0").unwrap();
    assert_eq!(target["deliver"], "redirect", "{target}");
}

#[test]
fn redirect_onto_a_filtered_port_is_refused_by_name_unless_told_otherwise() {
    let scenario = start(block, services("redirect", false));
    let at = (vip(0, Family::V4), 80).into();
    // Nothing is steered past the filter: there is no target left, and that is said at once.
    let refused = eventually(Duration::from_secs(10), || {
        let error = scenario.get(at, Duration::from_secs(1));
        Ok(error.is_err_and(|error| format!("{error:#}").contains("refused")))
    });
    assert!(refused.unwrap(), "{}", scenario.story());
    let target = scenario.target(0, "web/vif0").unwrap();
    assert_eq!(target["effective"], "down", "{target}");
    let problem = target["problem"].as_str().unwrap_or_default();
    assert!(problem.contains("guard") && problem.contains("bridge"), "the rule is not named: {target}");

    scenario.lbx().write_config(&File::new(services("redirect", true)).text()).unwrap();
    scenario.lbx().cli(&["reload"]).unwrap();
    scenario.wait_for(at).unwrap();
    // The operator asked for it: the filter does not see steered frames any more.
    assert_eq!(reaches(&scenario, at, BLOCKED), 3, "{}", scenario.story());
}

/// The switches' tables while lbx steers, and what an idle VM gets to hear.
#[test]
fn switches_learn_nothing_wrong_and_replies_do_not_flood() {
    need_root();
    // vm3 is no target of anything.
    let lab = lbx_tests::lab::Lab::start(LabSpec::one_host(3, VmKind::StandIn)).unwrap();
    let client_mac = mac_text(addr::mac(0x0c, 0, 0));
    // The host's bridge knows the client from the lab's start. From here on it learns only what lbx lets it see.
    tools::bridge(&lab.host().ns, &[format!("fdb del {client_mac} dev up0 master")]).unwrap();
    // The bridge would forget the client while lbx steers, twice over, unless it is reminded.
    tools::ip(&lab.host().ns, &["link set br0 type bridge ageing_time 800".into()]).unwrap();
    let file = File { learn: Some("2s"), ..File::new(services("redirect", false)) };
    let lbx = lbx_tests::lab::Lbx::start(&lab, 0, &file.text()).unwrap();
    let scenario = Scenario { lbx: vec![lbx], lab };
    let client_port = || scenario.lab.upstream_port_of(&client_mac).unwrap();
    assert_eq!(client_port().as_deref(), Some("c0"), "before");
    let idle = &scenario.lab.vms[2];
    let sniffer = Sniffer::start(idle.ns.as_ref().unwrap(), "eth0").unwrap();
    for (k, port) in SERVED {
        for family in FAMILIES {
            scenario.wait_for((vip(k, family), port).into()).unwrap();
        }
    }

    let loads: Vec<_> = SERVED
        .iter()
        .flat_map(|&(k, port)| FAMILIES.map(|family| (vip(k, family), port).into()))
        // Slow enough for no client port to be used twice: a stand-in may reset such a connection, with or without lbx.
        .map(|at| Load { threads: 2, pause: Duration::from_millis(10), ..Load::endless(at) })
        .map(|load| load.start(scenario.client()))
        .collect();
    let learned = || scenario.count(0, "learned").unwrap();
    let before = learned();
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        assert_eq!(client_port().as_deref(), Some("c0"), "while steering; {}", scenario.story());
        std::thread::sleep(Duration::from_millis(100));
    }
    for load in loads {
        let report = load.stop().unwrap();
        assert_eq!(report.failed, 0, "{:?}\n{}", report.errors, scenario.story());
        assert!(report.total() > 200, "{report:?}");
    }
    assert_eq!(client_port().as_deref(), Some("c0"), "after");
    // Every two seconds or so: an epoch is about a second.
    assert!((5..=30).contains(&(learned() - before)), "{} in 20 s; {}", learned() - before, scenario.story());

    let own = idle.mac;
    let foreign: BTreeSet<_> = sniffer
        .stop()
        .unwrap()
        .into_iter()
        .filter(|frame| !frame.outgoing && frame.is_unicast() && frame.to() != own)
        .map(|frame| (mac_text(frame.from()), mac_text(frame.to()), frame.ether_type()))
        .collect();
    assert!(foreign.is_empty(), "an idle VM saw {foreign:?}; {}", scenario.story());
}

/// A veth gives frames that XDP redirects into it to nobody unless its other end runs NAPI.
#[test]
fn a_port_that_takes_no_redirects_is_reached_by_the_bridge_or_refused() {
    need_root();
    let mut spec = LabSpec::one_host(2, VmKind::StandIn);
    spec.clients[0].offloads = Offloads { gro: Some(true), ..Offloads::sender(false) };
    let lab = lbx_tests::lab::Lab::start(spec).unwrap();
    let deaf = lab.vm("vm1").unwrap().ns.clone().unwrap();
    let gro = |on| Offloads { gro: Some(on), ..Offloads::default() }.apply(&deaf, "eth0").unwrap();
    gro(false);
    let file = |deliver| File::new(services(deliver, false)[..1].to_vec()).xdp("native").text();
    let lbx = lbx_tests::lab::Lbx::start(&lab, 0, &file("auto")).unwrap();
    let scenario = Scenario { lbx: vec![lbx], lab };
    let at = (vip(0, Family::V4), 80).into();
    let served_by = |n: usize| {
        let report = Load { threads: 4, ..Load::new(at, 60) }.run(scenario.client()).unwrap();
        assert_eq!(report.failed, 0, "{:?}\n{}", report.errors, scenario.story());
        assert_eq!(report.connections.len(), n, "{:?}\n{}", report.connections, scenario.story());
    };
    scenario.wait_for(at).unwrap();
    let target = scenario.target(0, "web/vif0").unwrap();
    assert_eq!(target["deliver"], "bridge", "{target}");
    assert!(target["deliver_reason"].as_str().unwrap().contains("NAPI"), "{target}");
    served_by(2);

    scenario.lbx().write_config(&file("redirect")).unwrap();
    scenario.lbx().cli(&["reload"]).unwrap();
    let target = scenario.target(0, "web/vif0").unwrap();
    assert_eq!(target["effective"], "down", "{target}");
    assert!(target["problem"].as_str().unwrap().contains("does not reach it"), "{target}");
    assert!(scenario.lbx().cli(&["status"]).unwrap().contains("gro on"), "no hint");
    served_by(1);

    // With NAPI it takes what it is given, and lbx notices by itself.
    gro(true);
    let back = || Ok(scenario.target(0, "web/vif0")?["effective"] == "active");
    assert!(eventually(Duration::from_secs(20), back).unwrap(), "{}", scenario.story());
    served_by(2);
}
