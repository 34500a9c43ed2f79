//! What a config becomes on a host.

use lbx_common::target::State;
use lbx_common::wish::Owner;

use super::*;
use crate::control::resolve::resolve;
use crate::host::links::{Address, PortVlan};
use crate::host::plan::{PortPlan, SwitchKind};
use crate::host::testing;

const CONFIG: &str = r#"
[[switch]]
name = "br0"
uplinks = ["up0"]
[[service]]
name = "web"
switch = "br0"
vip = ["192.0.2.10", "2001:db8::10"]
protocol = "tcp"
port = 80
forward = "dsr"
answer = "probe"
[[service.target]]
nic = "va"
weight = 100
[[service.target]]
nic = "gone"
weight = 200
[[service.target]]
mac = "02:00:00:00:00:99"
"#;

fn link(index: u32, name: &str, master: Option<u32>) -> Link {
    let vlans = vec![PortVlan { id: 10, pvid: true, untagged: true }];
    Link { vlans, ..testing::link(index, name, Kind::Tap { queues: 2 }, master) }
}

fn view(filtering: bool) -> View {
    let mut bridge = link(1, "br0", None);
    bridge.kind = testing::bridge(filtering);
    let mut view =
        View { links: vec![bridge, link(2, "up0", Some(1)), link(3, "va", Some(1))], ..View::default() };
    view.fdb.push(crate::host::FdbEntry {
        index: 3,
        master: Some(1),
        mac: [2, 0, 0, 0, 1, 3],
        vlan: None,
        permanent: false,
    });
    view
}

fn plan() -> Plan {
    let port = |index, name: &str, role| PortPlan {
        index,
        name: name.to_owned(),
        role,
        attach: Attach::Tc,
        reason: String::new(),
        replaces: None,
    };
    Plan {
        switch: "br0".to_owned(),
        index: 1,
        kind: SwitchKind::Bridge,
        ports: vec![port(2, "up0", Role::Uplink), port(3, "va", Role::Vnic), port(1, "br0", Role::Switch)],
        refusals: Vec::new(),
    }
}

fn run(view: &View, config: &str, book: &WishBook, answers: &BTreeMap<Key, Phase>) -> Desired {
    let config = Config::parse("test", config).unwrap();
    let found = resolve(&config, view, &[], &BTreeMap::new());
    let plans = [plan()];
    desired(&Input {
        weigher: &Weigher::default(),
        config: &config,
        view,
        plans: &plans,
        found: &found,
        findings: &[],
        refusals: &[],
        book,
        answers,
        hosts: &BTreeMap::new(),
        rate: Rate::new(250),
    })
}

#[test]
fn targets_are_local_gone_or_behind_the_uplink() {
    let mut book = WishBook::default();
    book.set_state("web/gone", Owner::Presence, Some(State::Down));
    book.set_weight("web/va", Some(7));
    let desired = run(&view(false), CONFIG, &book, &BTreeMap::new());
    let [va, gone, remote] = &desired.services[0].targets[..] else { panic!("three targets") };
    assert_eq!((va.ifindex, va.mac, va.deliver), (3, [2, 0, 0, 0, 1, 3], Deliver::Redirect));
    assert_eq!(va.weights.iter().map(|weight| weight.weight).sum::<u32>(), 14, "7 on each of two queues");
    assert_eq!((gone.ifindex, gone.state.state), (0, State::Down));
    assert_eq!((remote.ifindex, remote.deliver), (2, Deliver::Uplink));
    assert_eq!(remote.mac, [2, 0, 0, 0, 0, 0x99]);
}

#[test]
fn untagged_frames_of_a_filtering_bridge_belong_to_its_pvid() {
    let desired = run(&view(true), CONFIG, &WishBook::default(), &BTreeMap::new());
    assert_eq!(desired.services[0].vlan, 10);
    assert_eq!(desired.services[0].targets[0].vlan, 0, "the port takes them untagged");
    let uplink = &desired.ports[0].entry;
    assert_eq!(uplink.pvid, 10);
    assert!(uplink.is_member(10) && !uplink.is_member(11));
    let desired = run(&view(false), CONFIG, &WishBook::default(), &BTreeMap::new());
    assert_eq!(desired.services[0].vlan, 0);
}

#[test]
fn a_vip_is_answered_for_only_once_probing_said_so() {
    let addr: IpAddr = "192.0.2.10".parse().unwrap();
    let key = Key { switch: "br0".to_owned(), vlan: 0, addr };
    let taken = BTreeMap::from([(key.clone(), Phase::Taken { by: [2; 6] })]);
    let answered = |answers: &BTreeMap<Key, Phase>| -> Vec<bool> {
        let desired = run(&view(false), CONFIG, &WishBook::default(), answers);
        desired.services[0].vips.iter().map(|vip| vip.answer).collect()
    };
    assert_eq!(answered(&taken), [false, false]);
    assert_eq!(answered(&BTreeMap::from([(key, Phase::Answering)])), [true, false]);
}

#[test]
fn link_follows_the_address_that_keepalived_moves() {
    let vip: IpAddr = "192.0.2.10".parse().unwrap();
    let mut view = view(false);
    assert!(!holds(&view, "up0", vip) && !holds(&view, "198.51.100.1", vip));
    view.addresses.push(Address { index: 2, address: vip, prefix: 32 });
    assert!(holds(&view, "up0", vip) && !holds(&view, "va", vip));
    view.addresses.push(Address { index: 3, address: "198.51.100.1".parse().unwrap(), prefix: 32 });
    assert!(holds(&view, "198.51.100.1", vip));
    view.links[2].up = false;
    assert!(!holds(&view, "198.51.100.1", vip));
}
