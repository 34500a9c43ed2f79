//! VLANs on a bridge that filters them, with real sockets: one VIP on three VLANs, targets on access ports and
//! trunks. Runs in a guest (see `vm/vlan.rs`): its bridges must be able to filter.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use lbx_tests::guest::announce::mac_text;
use lbx_tests::lab::client::load::{Load, Report};
use lbx_tests::lab::config::{File, Service, Target};
use lbx_tests::lab::offload::Offloads;
use lbx_tests::lab::vm::Family;
use lbx_tests::lab::{ClientSpec, Lab, LabSpec, Lbx, VmKind, addr, tools};
use lbx_tests::scenario::sniff::{Frame, Sniffer};
use lbx_tests::scenario::{FAMILIES, Scenario, eventually, vip};

/// The VLANs; the client of the same number is in it. Without a tag that is the bridge's VLAN 1.
const VLANS: [Option<u16>; 3] = [None, Some(10), Some(20)];
/// The VMs: their VLAN, and whether their port carries its tag.
const VMS: [(Option<u16>, bool); 5] =
    [(None, false), (Some(10), false), (Some(10), true), (Some(20), false), (Some(20), true)];
/// Which VIP on which port: `dsr` and `nat`.
const SERVED: [(usize, u16); 2] = [(0, 80), (1, 8080)];
const CONNECTIONS: u64 = 16;

/// Client k in VLAN k, the VMs on their ports; `wire` is what the upstream switch does before the uplink.
fn lab(wire: Offloads) -> Lab {
    let mut spec = LabSpec::one_host(VMS.len(), VmKind::StandIn);
    spec.wire = wire;
    spec.hosts[0].vlan_filtering = true;
    // What a veth says of itself is not what it does: the sender decides where its tags are.
    spec.hosts[0].offloads.rxvlan = wire.rxvlan;
    spec.hosts[0].uplink_vlans = VLANS.into_iter().flatten().collect();
    for (vm, (vlan, tagged)) in spec.hosts[0].vms.iter_mut().zip(VMS) {
        (vm.vlan, vm.tagged) = (vlan, tagged);
    }
    spec.clients.extend(VLANS[1..].iter().map(|&vlan| ClientSpec { vlan, ..ClientSpec::default() }));
    for client in &mut spec.clients {
        client.offloads = Offloads::sender(false);
    }
    Lab::start(spec).unwrap()
}

/// Tags in the frame, as on a wire.
fn in_band() -> Offloads {
    Offloads::wire()
}

/// Tags beside the frame, as a NIC that strips them leaves them.
fn stripped() -> Offloads {
    Offloads { txvlan: Some(true), rxvlan: Some(true), ..Offloads::wire() }
}

fn targets(vlan: Option<u16>) -> Vec<Target> {
    let members = VMS.iter().enumerate().filter(|(_, vm)| vm.0 == vlan);
    members.map(|(n, _)| Target::stand_in(0, n)).collect()
}

/// One `dsr` and one `nat` service on every VLAN, all with the same VIPs and ports.
fn file(deliver: &'static str) -> File {
    let services = VLANS.iter().flat_map(|&vlan| {
        let name = |kind: &str| format!("{kind}{}", number(vlan));
        let dsr = Service::dsr(&name("dsr"), addr::vip(0), "tcp", 80, targets(vlan));
        let nat = Service::nat(&name("nat"), addr::vip(1), "tcp", 8080, 80, targets(vlan));
        [dsr, nat].map(|service| Service { vlan, deliver, ..service })
    });
    File::new(services.collect())
}

fn start(wire: Offloads, file: &File) -> Scenario {
    let lab = lab(wire);
    let lbx = Lbx::start(&lab, 0, &file.text()).unwrap();
    Scenario { lbx: vec![lbx], lab }
}

/// So many connections from one VLAN's client.
fn load(scenario: &Scenario, client: usize, at: SocketAddr, connections: u64) -> Report {
    let load = Load { threads: 4, limit: Duration::from_secs(5), ..Load::new(at, connections) };
    load.run(&scenario.lab.clients[client].ns).unwrap()
}

/// Waits until a VLAN's client is served at an address.
fn wait(scenario: &Scenario, client: usize, at: SocketAddr) {
    let probe = || {
        let load = Load { threads: 1, limit: Duration::from_millis(500), ..Load::new(at, 1) };
        Ok(load.run(&scenario.lab.clients[client].ns)?.total() == 1)
    };
    let served = eventually(Duration::from_secs(40), probe).unwrap();
    assert!(served, "{at} is not served in {:?}; {}", VLANS[client], scenario.story());
}

/// Every client is served by every VM of its VLAN and by no other, and no frame is seen where it does not belong.
fn every_vlan_is_served_by_its_own(scenario: &Scenario) {
    let all = || VLANS.iter().enumerate().flat_map(|(k, vlan)| SERVED.map(|served| (k, *vlan, served)));
    for (k, _, (v, port)) in all() {
        for family in FAMILIES {
            wait(scenario, k, (vip(v, family), port).into());
        }
    }
    let listening = Listening::start(&scenario.lab);
    for (k, vlan, (v, port)) in all() {
        for family in FAMILIES {
            let at = SocketAddr::new(vip(v, family), port);
            let report = load(scenario, k, at, CONNECTIONS);
            let story = || format!("{at} in {vlan:?}: {report:?}\n{}", scenario.story());
            assert_eq!((report.failed, report.total()), (0, CONNECTIONS), "{}", story());
            let expected: Vec<_> = (0..VMS.len()).filter(|&n| VMS[n].0 == vlan).collect();
            let names: Vec<_> = expected.iter().map(|&n| scenario.lab.vms[n].spec.name.clone()).collect();
            assert_eq!(report.requests.keys().cloned().collect::<Vec<_>>(), names, "{}", story());
        }
    }
    listening.nothing_strayed(&scenario.lab);
    let errors = scenario.checksum_errors().unwrap();
    assert!(errors.values().all(|&n| n == 0), "{errors:?}");
}

/// Sniffers on the VMs' devices and on the upstream switch's port.
struct Listening {
    vms: Vec<Sniffer>,
    upstream: Sniffer,
}

impl Listening {
    fn start(lab: &Lab) -> Self {
        let vm = |vm: &lbx_tests::lab::Vm| Sniffer::start(vm.ns.as_ref().unwrap(), "eth0").unwrap();
        Self { vms: lab.vms.iter().map(vm).collect(), upstream: Sniffer::start(&lab.net, "h0").unwrap() }
    }

    fn nothing_strayed(self, lab: &Lab) {
        for ((n, sniffer), (vlan, tagged)) in self.vms.into_iter().enumerate().zip(VMS) {
            let frames: Vec<_> =
                sniffer.stop().unwrap().into_iter().filter(|frame| !frame.outgoing).collect();
            let strayed: Vec<_> = frames
                .iter()
                .filter(|frame| {
                    let foreign = home(lab, frame).is_some_and(|home| home != number(vlan));
                    foreign || frame.vlan != vlan.filter(|_| tagged)
                })
                .map(describe)
                .collect();
            assert!(strayed.is_empty(), "vm{} in {vlan:?} saw {strayed:#?}", n + 1);
            let own =
                frames.iter().filter(|frame| home(lab, frame) == Some(number(vlan)) && frame.is_unicast());
            assert!(own.count() as u64 > CONNECTIONS, "vm{} was hardly asked", n + 1);
        }
        // What the host sends out carries the tag of the VLAN it comes from.
        let sent: Vec<_> =
            self.upstream.stop().unwrap().into_iter().filter(|frame| !frame.outgoing).collect();
        for vlan in VLANS {
            let own: Vec<_> = sent.iter().filter(|frame| home(lab, frame) == Some(number(vlan))).collect();
            let wrong: Vec<_> = own.iter().filter(|frame| frame.vlan != vlan).map(|f| describe(f)).collect();
            assert!(own.len() as u64 > CONNECTIONS && wrong.is_empty(), "of {vlan:?}: {wrong:#?}");
        }
    }
}

/// The VLAN of the VM or client that sent a frame, 1 where it has no tag; none if it was another.
fn home(lab: &Lab, frame: &Frame) -> Option<u16> {
    let vm = lab.vms.iter().position(|vm| vm.mac == frame.from()).map(|n| VMS[n].0);
    let client = (0..VLANS.len()).find(|&k| addr::mac(0x0c, 0, k) == frame.from()).map(|k| VLANS[k]);
    vm.or(client).map(number)
}

fn number(vlan: Option<u16>) -> u16 {
    vlan.unwrap_or(1)
}

fn describe(frame: &Frame) -> String {
    let (from, to) = (mac_text(frame.from()), mac_text(frame.to()));
    format!("{from} to {to}, VLAN {:?}, type {:04x}", frame.vlan, frame.ether_type())
}

/// Has another file in force.
fn reload(scenario: &Scenario, file: &File) {
    scenario.lbx().write_config(&file.text()).unwrap();
    scenario.lbx().cli(&["reload"]).unwrap();
}

/// With both ways of delivery; `native`: by XDP on the uplink.
fn served_both_ways(scenario: &Scenario, xdp: &'static str, native: bool) {
    for deliver in ["redirect", "bridge"] {
        reload(scenario, &file(deliver).xdp(xdp));
        let status = scenario.lbx().cli(&["status"]).unwrap();
        let uplink = status.lines().find(|line| line.contains("up0")).unwrap_or_default();
        assert_eq!(uplink.contains("xdp native"), native, "{status}");
        every_vlan_is_served_by_its_own(scenario);
    }
}

/// One after the other with one daemon: loading its programs takes longer than all the rest.
#[test]
fn one_vip_on_three_vlans() {
    let mut some = file("redirect").xdp("off");
    some.services.retain(|service| service.vlan == Some(10));
    let scenario = start(in_band(), &some);
    a_vlan_without_the_service_hears_nothing_of_it(&scenario);
    served_both_ways(&scenario, "off", false);
    served_both_ways(&scenario, "native", true);
    a_port_outside_the_vlan_gets_nothing(&scenario);
}

#[test]
fn one_vip_on_three_vlans_with_tags_beside_the_frames() {
    let scenario = start(stripped(), &file("redirect"));
    served_both_ways(&scenario, "auto", false);
}

/// A target outside the service's VLAN gets nothing, before and after its port leaves it.
fn a_port_outside_the_vlan_gets_nothing(scenario: &Scenario) {
    let mut file = file("redirect");
    let service = file.services.iter_mut().find(|service| service.name == "dsr10").unwrap();
    // vm4 is in VLAN 20.
    service.targets.push(Target::stand_in(0, 3));
    reload(scenario, &file);
    let at: SocketAddr = (vip(0, Family::V4), 80).into();
    wait(scenario, 1, at);
    let outside = scenario.target(0, "dsr10/vif3").unwrap();
    assert_eq!(outside["effective"], "down", "{outside}");
    assert!(outside["problem"].as_str().unwrap_or_default().contains("VLAN 10"), "{outside}");
    let report = load(scenario, 1, at, 4 * CONNECTIONS);
    assert_eq!(report.failed, 0, "{report:?}");
    assert!(!report.requests.contains_key("vm4"), "{report:?}");

    // The access port of vm2 moves to VLAN 20 while lbx steers.
    let sniffer = Sniffer::start(scenario.lab.vms[1].ns.as_ref().unwrap(), "eth0").unwrap();
    let moved = ["vlan del dev vif1 vid 10", "vlan add dev vif1 vid 20 pvid untagged"].map(String::from);
    tools::bridge(&scenario.lab.host().ns, &moved).unwrap();
    let left =
        eventually(Duration::from_secs(10), || Ok(scenario.target(0, "dsr10/vif1")?["effective"] == "down"));
    assert!(left.unwrap(), "{}", scenario.story());
    sniffer.clear();
    let after = Instant::now();
    let report = load(scenario, 1, at, 4 * CONNECTIONS);
    assert_eq!(report.failed, 0, "{report:?}");
    assert_eq!(report.requests.keys().collect::<Vec<_>>(), ["vm3"], "{report:?}");
    let client = addr::mac(0x0c, 0, 1);
    let strayed: Vec<_> = sniffer
        .stop()
        .unwrap()
        .into_iter()
        .filter(|frame| frame.at >= after && !frame.outgoing && frame.from() == client)
        .map(|frame| describe(&frame))
        .collect();
    assert!(strayed.is_empty(), "{strayed:#?}");
}

/// Nobody answers for the VIP where no service has it.
fn a_vlan_without_the_service_hears_nothing_of_it(scenario: &Scenario) {
    for family in FAMILIES {
        let at = SocketAddr::new(vip(0, family), 80);
        wait(scenario, 1, at);
        for other in [0, 2] {
            let load = Load { threads: 2, limit: Duration::from_millis(600), ..Load::new(at, 2) };
            let report = load.run(&scenario.lab.clients[other].ns).unwrap();
            assert_eq!((report.failed, report.total()), (2, 0), "{:?}: {report:?}", VLANS[other]);
        }
    }
    let IpAddr::V4(address) = vip(0, Family::V4) else { unreachable!("asked for IPv4") };
    let known =
        tools::run(scenario.lab.clients[2].ns.command("ip").args(["neigh", "show", &address.to_string()]));
    assert!(!known.as_ref().unwrap().contains("lladdr"), "{known:?}");
}
