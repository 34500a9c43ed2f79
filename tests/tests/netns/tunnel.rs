//! A VM that leaves for a host on another network, with a router between: its connections follow it through a tunnel,
//! and wait for as long as the router says nothing.
//!
//! First the kernel's own VXLAN device takes the frames out, as proof that they are what the standard says; then the
//! lbx of the other host does.

use std::time::Duration;

use lbx_tests::guest::echo;
use lbx_tests::lab::client::load::Load;
use lbx_tests::lab::client::long::{Long, Running};
use lbx_tests::lab::config::{File, Service, stand_ins};
use lbx_tests::lab::vm::Family;
use lbx_tests::lab::{Lab, LabSpec, Lbx, VmKind, addr, tools};
use lbx_tests::scenario::sniff::Sniffer;
use lbx_tests::scenario::{Scenario, eventually, need_root, vip};
use lbx_user::config::tunnel::VNI;

const WEB: u16 = 80;
const NAMES: [&str; 2] = ["kvm1", "kvm2"];
/// The second host's network, and who is who there.
const THERE: &str = "10.78.1.2";
const ROUTER_THERE: &str = "10.78.1.1";
/// The router on the first host's network.
const ROUTER_HERE: &str = "10.77.0.250";
/// How long anything may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// Ends of the tunnel.
fn end(host: usize) -> String {
    if host == 0 { addr::host(0).v4.to_string() } else { THERE.to_owned() }
}

/// Takes the second host off the first one's segment, and puts a router between them, which has no address there yet.
/// It answers on the second network for whoever is on the first, as the VM finds the client where it always was.
fn part(lab: &Lab) {
    tools::ip(&lab.net, &["link set h1 nomaster".into(), format!("addr add {ROUTER_THERE}/24 dev h1")])
        .unwrap();
    lab.net
        .sysctls(&[
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/h1/rp_filter", "0"),
            ("net/ipv4/conf/sw0/rp_filter", "0"),
            ("net/ipv4/conf/h1/proxy_arp", "1"),
            ("net/ipv4/neigh/h1/proxy_delay", "0"),
        ])
        .unwrap();
    let route = format!("route add 10.78.1.0/24 via {ROUTER_HERE}");
    tools::ip(&lab.hosts[0].ns, &[route]).unwrap();
    tools::ip(
        &lab.hosts[1].ns,
        &[
            format!("addr del {}/24 dev br0", addr::host(1).v4),
            format!("addr add {THERE}/24 dev br0"),
            format!("route add 10.77.0.0/24 via {ROUTER_THERE}"),
        ],
    )
    .unwrap();
}

fn config(lab: &Lab, host: usize, xdp: &'static str) -> String {
    let other = 1 - host;
    let dir = lab.record.dir().join("ca");
    let (dir, name) = (dir.display(), NAMES[host]);
    let top = format!(
        "[peers]\nname = \"{name}\"\nlisten = \"{}:9346\"\nca = \"{dir}/ca.pem\"\ncertificate = \"{dir}/{name}.pem\"\n\
         key = \"{dir}/{name}.key\"\ntunnel = \"{}\"\n[[peer]]\nname = \"{}\"\naddress = \"{}:9346\"\ntunnel = \"{}\"\n",
        end(host),
        end(host),
        NAMES[other],
        end(other),
        end(other),
    );
    let targets = stand_ins(2);
    let service = |name, port| Service::dsr(name, addr::vip(0), "tcp", port, targets.clone());
    File { top, ..File::new(vec![service("web", WEB), service("echo", echo::PORT)]).xdp(xdp) }.text()
}

/// Moves the cable of VM 1 to the other host. It forgets whom it knew: they are behind a router now.
fn carry(lab: &Lab) {
    let (here, there) = (&lab.hosts[0].ns, &lab.hosts[1].ns);
    tools::ip(here, &[format!("link set vif0 nomaster netns {}", there.name())]).unwrap();
    tools::ip(there, &["link set vif0 master br0 up".into()]).unwrap();
    tools::ip(lab.vm("vm1").unwrap().ns.as_ref().unwrap(), &["neigh flush all".into()]).unwrap();
}

/// Bytes of the outer IPv4 packet of a frame in the tunnel.
fn tunnelled(frame: &[u8]) -> Option<u16> {
    let ip = frame.get(14..50)?;
    let to = u16::from_be_bytes([ip[22], ip[23]]);
    (ip[0] == 0x45 && ip[9] == 17 && to == 4789).then(|| u16::from_be_bytes([ip[2], ip[3]]))
}

fn goes_on(scenario: &Scenario, long: &Running, what: &str) {
    let before = long.so_far().frames;
    let more = || Ok(long.so_far().frames > before + 400);
    assert!(eventually(LIMIT, more).unwrap(), "{what}: {:?}\n{}", long.so_far(), scenario.story());
}

/// Nobody knows the way to the other host yet: packets are dropped, no connection is broken or goes to the other VM, and
/// whoever looks is told.
fn held_up(scenario: &Scenario) {
    let dropped = || Ok(scenario.count(0, "blackholed")? > 0);
    assert!(eventually(LIMIT, dropped).unwrap(), "{}", scenario.story());
    let target = scenario.target(0, "echo/vif0").unwrap();
    assert_eq!(target["effective"], "blackholed", "{target}");
    let out = |words: &[&str]| {
        let out = scenario.lbx().output(words).unwrap();
        [out.stdout, out.stderr].map(|part| String::from_utf8_lossy(&part).into_owned()).concat()
    };
    for words in [&["targets"][..], &["status"], &["doctor"]] {
        let text = out(words);
        let said = text.contains("echo/vif0") && text.contains(&format!("{ROUTER_HERE} has not answered"));
        assert!(said, "{words:?}: {text}");
    }
    assert_eq!(scenario.count(0, "tunnel_sent").unwrap(), 0);
}

fn connections_follow(xdp: &'static str) {
    need_root();
    let lab = Lab::start(LabSpec::hosts(&[2, 0], VmKind::StandIn)).unwrap();
    part(&lab);
    let mut lbx: Vec<Lbx> =
        (0..2).map(|host| Lbx::new(&lab, host, &config(&lab, host, xdp)).unwrap()).collect();
    let dir = lab.record.dir().join("ca");
    lbx[0].cli(&["peers", "init", dir.to_str().unwrap(), NAMES[0], NAMES[1]]).unwrap();
    lbx[0].run().unwrap();
    let mut scenario = Scenario { lbx, lab };
    scenario.wait_for((vip(0, Family::V4), WEB).into()).unwrap();

    // Frames of many segments: some are larger than the tunnel, until the client is told.
    let long = Long::new((vip(0, Family::V4), echo::PORT).into(), 20);
    let long = Long { sources: scenario.sources(), limit: LIMIT, frame: 20_000, ..long };
    let long = long.start(scenario.client()).unwrap();
    assert!(long.so_far().opened.get("vm1").copied().unwrap_or(0) > 0, "{:?}", long.so_far());

    let there = scenario.lab.hosts[1].ns.clone();
    let device = format!("link add vx0 type vxlan id {VNI} local {THERE} dstport 4789 nolearning");
    tools::ip(&there, &[device, "link set vx0 master br0 up".into()]).unwrap();
    let sniffer = Sniffer::start(&scenario.lab.net, "h1").unwrap();
    for service in ["web", "echo"] {
        let said = scenario.lbx().cli(&["set", "state", &format!("{service}/vif0"), "moved"]).unwrap();
        assert!(said.contains("dropped until they can follow it"), "{said}");
    }
    carry(&scenario.lab);
    held_up(&scenario);
    // The router comes up, and nobody says so.
    tools::ip(&scenario.lab.net, &[format!("addr add {ROUTER_HERE}/24 dev sw0")]).unwrap();
    let moved = || {
        let target = scenario.target(0, "echo/vif0")?;
        Ok(target["effective"] == "moved" && target.get("held_up").is_none())
    };
    assert!(eventually(LIMIT, moved).unwrap(), "{}", scenario.story());
    goes_on(&scenario, &long, "out of the kernel's own device");
    assert!(scenario.count(0, "tunnel_sent").unwrap() > 0, "{}", scenario.story());
    assert!(scenario.count(0, "too_big_answered").unwrap() > 0, "{}", scenario.story());
    let frames = sniffer.stop().unwrap();
    let lengths: Vec<u16> = frames.iter().filter_map(|frame| tunnelled(&frame.bytes)).collect();
    let longest = lengths.iter().max();
    assert!(
        longest.is_some_and(|longest| (1400..=1500).contains(longest)),
        "{longest:?} of {}",
        lengths.len()
    );

    // The other host's lbx takes over from the device.
    tools::ip(&there, &["link del vx0".into()]).unwrap();
    scenario.lbx[1].run().unwrap();
    let received = || Ok(scenario.count(1, "tunnel_received")? > 0);
    assert!(eventually(LIMIT, received).unwrap(), "{}", scenario.story());
    goes_on(&scenario, &long, "out of the other lbx");
    // New connections are for the one that is here.
    let report = Load::new((vip(0, Family::V4), WEB).into(), 20).run(scenario.client()).unwrap();
    assert_eq!((report.failed, report.connections.get("vm2")), (0, Some(&20)), "{report:?}");
    long.stop().unwrap().check(20).unwrap();
}

#[test]
fn connections_follow_by_tc() {
    connections_follow("auto");
}

#[test]
fn connections_follow_by_xdp() {
    connections_follow("native");
}
