//! Loading, attaching, adopting, replacing, detaching: against the real kernel, in a namespace of its own.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use lbx_common::addresses::{AddressSpec, RuleSpec};
use lbx_common::control::flags;
use lbx_common::flow::TargetWord;
use lbx_common::port::Port;
use lbx_common::service::{Rule, Service, address_flags};
use lbx_common::target::{State, StateWord, Target};
use lbx_tests::scenario::place::{Place, prog_of, small};
use lbx_user::datapath::{self, Datapath, Direction, Error, Instance, Maps, Point, TcMode, XdpMode};

#[test]
fn attach_list_upgrade_detach_and_nothing_is_left() {
    let place = Place::new();
    let (p0, t0) = (place.device("p0"), place.device("t0"));
    let mut datapath = place.load(&small()).unwrap();
    assert!(datapath.notes().is_empty(), "{:?}", datapath.notes());
    for (index, device) in [(0, &p0), (1, &t0)] {
        let port = Port { ifindex: device.ifindex, ..Port::default() };
        place.inside(|| datapath.maps().write_port(index, &port)).unwrap();
    }
    assert_eq!(datapath.maps().port_of(t0.ifindex).unwrap(), Some(1));

    place.inside(|| datapath.attach_xdp(&p0, 0, XdpMode::Native, false)).unwrap();
    let point = place.inside(|| datapath.attach_tc(&t0, Direction::Ingress, TcMode::Auto)).unwrap();
    let expected = [("p0".into(), Point::Xdp, false), ("t0".into(), point, false)];
    assert_eq!(place.list(), expected);
    let state = place.inside(|| datapath::xdp_state(p0.ifindex)).unwrap().unwrap();
    assert_eq!((state.mode, state.prog_id), (1, prog_of(&place, "p0", Point::Xdp)));

    // The same again changes nothing but the program.
    place.inside(|| datapath.attach_xdp(&p0, 0, XdpMode::Native, false)).unwrap();
    assert_eq!(place.list(), expected);

    // A restart: state stays, the secret stays, the links get new programs, the old version goes.
    let secret = datapath.maps().control().unwrap().secret;
    datapath.maps().set_state(3, StateWord::new(State::Draining)).unwrap();
    let before = (prog_of(&place, "p0", Point::Xdp), prog_of(&place, "t0", point));
    drop(datapath);
    assert_eq!(place.list(), expected, "attached without a process");
    let datapath = place.load(&small()).unwrap();
    let after = (prog_of(&place, "p0", Point::Xdp), prog_of(&place, "t0", point));
    assert!(before.0 != after.0 && before.1 != after.1, "{before:?} {after:?}");
    assert_eq!(datapath.maps().control().unwrap().secret, secret);
    assert_eq!(datapath.maps().target(3).unwrap().state.stored(), State::Draining);
    assert_eq!(place.instance.versions(), [2]);

    // Another mode is another link.
    let mut datapath = datapath;
    place.inside(|| datapath.attach_xdp(&p0, 0, XdpMode::Generic, false)).unwrap();
    let state = place.inside(|| datapath::xdp_state(p0.ifindex)).unwrap().unwrap();
    assert_eq!(state.mode, 2);
    drop(datapath);

    assert_eq!(place.detach_all().len(), 2);
    place.assert_clean();
    assert!(place.detach_all().is_empty(), "a second time is fine");
}

#[test]
fn clsact_stands_in_and_only_our_own_filter_and_qdisc_go() {
    let place = Place::new();
    let (p0, t0) = (place.device("p0"), place.device("t0"));
    // Somebody else's clsact with a filter of theirs on p0; none on t0.
    place.tc("qdisc add dev p0 clsact");
    place.tc("filter add dev p0 ingress prio 7 u32 match u32 0 0 flowid 1:1");
    let mut datapath = place.load(&small()).unwrap();
    for device in [&p0, &t0] {
        for _ in 0..2 {
            let point =
                place.inside(|| datapath.attach_tc(device, Direction::Ingress, TcMode::Clsact)).unwrap();
            assert_eq!(point, Point::Clsact(Direction::Ingress));
        }
        let filters = place.tc(&format!("filter show dev {} ingress", device.name));
        assert_eq!(filters.matches("lbx_tc direct-action").count(), 1, "{filters}");
    }
    let before = prog_of(&place, "t0", Point::Clsact(Direction::Ingress));
    drop(datapath);
    drop(place.load(&small()).unwrap());
    assert_ne!(prog_of(&place, "t0", Point::Clsact(Direction::Ingress)), before, "taken over by a restart");

    assert_eq!(place.detach_all().len(), 2);
    assert!(!place.tc("qdisc show dev t0").contains("clsact"));
    assert!(place.tc("qdisc show dev p0").contains("clsact"), "not ours");
    let filters = place.tc("filter show dev p0 ingress");
    assert!(filters.contains("u32") && !filters.contains("lbx"), "{filters}");
    place.tc("qdisc del dev p0 clsact");
    place.assert_clean();
}

#[test]
fn a_foreign_xdp_program_is_named_and_replaced_only_on_request() {
    let place = Place::new();
    let p0 = place.device("p0");
    // Of the same number, in a namespace that is none of our business.
    let away = Place::new();
    let same = away.device("p0");
    assert_eq!(same.ifindex, p0.ifindex);
    let mut elsewhere = away.load(&small()).unwrap();
    away.inside(|| elsewhere.attach_xdp(&same, 0, XdpMode::Native, false)).unwrap();
    // A program of another instance is as foreign as any, and it is attached by a link.
    let other = Place::new();
    let object = datapath::ebpf_object().unwrap();
    let mut foreign = place.inside(|| Datapath::load(&other.instance, object, &small())).unwrap();
    place.inside(|| foreign.attach_xdp(&p0, 0, XdpMode::Native, false)).unwrap();

    let mut datapath = place.load(&small()).unwrap();
    let refused = place.inside(|| datapath.attach_xdp(&p0, 0, XdpMode::Native, false)).unwrap_err();
    let Error::ForeignXdp { id, name, .. } = &refused else { panic!("{refused}") };
    assert_eq!(name, "lbx_xdp");
    assert!(*id != 0 && refused.to_string().contains(&format!("XDP program {id} (lbx_xdp)")), "{refused}");
    assert!(place.list().is_empty());

    place.inside(|| datapath.attach_xdp(&p0, 0, XdpMode::Native, true)).unwrap();
    assert_eq!(place.list(), [("p0".into(), Point::Xdp, false)]);
    assert_eq!(
        away.list(),
        [("p0".into(), Point::Xdp, false)],
        "another namespace's interface keeps its program"
    );
    away.detach_all();
    drop(elsewhere);
    drop(foreign);
    place.inside(|| datapath::detach_all(&other.instance)).unwrap();
    assert_eq!(place.list(), [("p0".into(), Point::Xdp, false)], "the other's detach leaves ours alone");

    // The old way without a link, as `ip link set xdp` attaches.
    place.detach_all();
    drop(datapath);
    let mut datapath = place.load(&small()).unwrap();
    place.inside(|| datapath.attach_tc(&p0, Direction::Ingress, TcMode::Auto)).unwrap();
    let pin = place.instance.progs(1).join("lbx_clock");
    place.ip(&format!("link set dev p0 xdpgeneric pinned {}", pin.display()));
    let refused = place.inside(|| datapath.attach_xdp(&p0, 0, XdpMode::Generic, false)).unwrap_err();
    assert!(refused.to_string().contains("lbx_clock"), "{refused}");
    place.inside(|| datapath.attach_xdp(&p0, 0, XdpMode::Native, true)).unwrap();
    let state = place.inside(|| datapath::xdp_state(p0.ifindex)).unwrap().unwrap();
    assert_eq!(state.mode, 1);
}

#[test]
fn tables_and_addresses_are_written_beside_what_is_in_force() {
    let place = Place::new();
    let datapath = place.load(&small()).unwrap();
    let maps = datapath.maps();
    let word = |n: u16| TargetWord::new(n, 0, 1);

    // Two services, each with a table; a longer one of the first finds its place behind both.
    let mut services = [Service::default(); 2];
    for (n, service) in services.iter_mut().enumerate() {
        let (region, written) = maps.place_table(n as u32, &vec![word(n as u16 + 1); 100]).unwrap();
        assert_eq!((region.base, region.len, written), (n as u32 * 100, 100, 100));
        (service.table_base, service.table_len) = (region.base, region.len);
        let members = maps.place_members(n as u32, &[7, 8, 9]).unwrap();
        (service.members_first, service.members) = (members.base, members.len as u16);
        maps.write_service(n as u32, service).unwrap();
        assert_eq!(maps.service(n as u32).unwrap(), *service);
        assert_eq!(maps.members(datapath::members_of(service)).unwrap(), [7, 8, 9]);
    }
    let mut table = vec![word(1); 100];
    table[41] = word(5);
    let (region, written) = maps.place_table(0, &table).unwrap();
    assert_eq!((region.base, written), (0, 1), "in place, one slot");
    assert_eq!(maps.table(region).unwrap(), table);
    for _ in 0..2 {
        let (region, _) = maps.place_table(0, &vec![word(3); 150]).unwrap();
        assert_eq!(region.base, 200, "what was placed and never named is given up");
    }
    assert_eq!(maps.table(datapath::table_of(&services[1])).unwrap(), vec![word(2); 100]);
    let too_long = maps.place_table(0, &vec![word(3); 65_530]).unwrap_err();
    assert!(matches!(too_long, Error::TablePool { len: 65_530, used: 200, .. }), "{too_long}");

    let spec = |n: u8| AddressSpec {
        addr: IpAddr::from([192, 0, 2, n]).into(),
        flags: address_flags::VIP,
        rules: vec![
            RuleSpec::Service(Rule { protocol: 6, port_last: 80, index: n.into(), ..Rule::default() });
            5
        ],
    };
    let specs: Vec<_> = (1..=9).map(spec).collect();
    assert!(maps.write_addresses(&specs).unwrap());
    let first = maps.control().unwrap().addresses;
    assert!(!maps.write_addresses(&specs).unwrap(), "the same again changes nothing");
    assert_eq!(maps.control().unwrap().addresses, first);
    assert!(maps.write_addresses(&specs[1..]).unwrap());
    assert_ne!(maps.control().unwrap().addresses.base(), first.base());
    assert_eq!(maps.address(specs[0].addr).unwrap(), None);
    let entry = maps.address(specs[8].addr).unwrap().unwrap();
    assert_eq!(maps.rules(&entry).unwrap().len(), 5);
    assert!(maps.rules(&entry).unwrap().iter().all(|rule| rule.index == 9));
}

#[test]
fn the_clock_is_the_kernels() {
    let place = Place::new();
    let datapath = place.load(&small()).unwrap();
    let clock = datapath.maps().clock().unwrap();
    let hz = clock.rate().hz;
    assert!([100, 250, 300, 1000].contains(&hz), "{hz}");
    // Somebody else may run between a look at one clock and that at the other, but not every time.
    let off = || {
        let (before, start) = (clock.jiffies_now().unwrap(), Instant::now());
        std::thread::sleep(Duration::from_millis(300));
        let (after, took) = (clock.jiffies_now().unwrap(), start.elapsed());
        ((after - before) as f64 / f64::from(hz) - took.as_secs_f64()).abs()
    };
    assert!((0..5).any(|_| off() < 0.05), "five times more than 50 ms of 300 apart");
    let after = clock.jiffies_now().unwrap();
    let deadline = clock.deadline(Duration::from_secs(5)).unwrap();
    let left = clock.remaining(deadline & ((1 << 40) - 1)).unwrap();
    assert!(left > Duration::from_secs(4) && left <= Duration::from_millis(5020), "{left:?}");

    // A reader without the daemon sees the same, and cannot write.
    let maps = Maps::open_pinned(&place.instance).unwrap();
    assert!(maps.clock().unwrap().jiffies_now().unwrap() >= after);
    assert!(matches!(maps.set_bypass(true), Err(Error::ReadOnly)));
    assert!(matches!(maps.write_target(0, &Target::default()), Err(Error::ReadOnly)));
    Maps::open_pinned_writable(&place.instance).unwrap().set_bypass(true).unwrap();
    assert_eq!(datapath.maps().control().unwrap().flags, flags::BYPASS);
}

#[test]
fn the_pins_of_a_vanished_interface_are_swept() {
    let place = Place::new();
    let (p0, t0) = (place.device("p0"), place.device("t0"));
    let mut datapath = place.load(&small()).unwrap();
    place.inside(|| datapath.attach_xdp(&p0, 0, XdpMode::Native, false)).unwrap();
    place.inside(|| datapath.attach_tc(&t0, Direction::Ingress, TcMode::Auto)).unwrap();
    place.inside(|| datapath.attach_tc(&t0, Direction::Ingress, TcMode::Clsact)).unwrap();
    let p1 = place.device("p1");
    assert!(matches!(
        place.inside(|| datapath.attach_tc(&p1, Direction::Ingress, TcMode::Auto)).unwrap(),
        Point::Tcx(_)
    ));
    place.ip("link del p0"); // and p1 with it
    place.ip("link del t0");
    assert!(place.list().iter().all(|(_, _, dead)| *dead), "{:?}", place.list());
    let swept = place.inside(|| datapath::sweep(&place.instance)).unwrap();
    assert_eq!(swept.len(), 3, "{swept:?}");
    assert!(place.list().is_empty());
    assert!(fs::read_dir(place.instance.links()).unwrap().next().is_none());

    // An interface of that name is another one: attaching works as if nothing had been.
    place.ip("link add p0 type veth peer name p1");
    let p0 = place.device("p0");
    place.inside(|| datapath.attach_xdp(&p0, 0, XdpMode::Native, false)).unwrap();
    assert_eq!(place.list(), [("p0".into(), Point::Xdp, false)]);
}

#[test]
fn an_instance_that_is_not_loaded_says_so() {
    let instance = Instance::new(Some("never-loaded")).unwrap();
    let error = Maps::open_pinned(&instance).err().unwrap();
    assert!(matches!(error, Error::NotLoaded(_)) && error.to_string().contains("lbx run"), "{error}");
    assert!(datapath::list(&instance).unwrap().is_empty());
    assert!(datapath::detach_all(&instance).unwrap().is_empty());
    assert!(!Path::new("/sys/fs/bpf/lbx-never-loaded").exists());
}
