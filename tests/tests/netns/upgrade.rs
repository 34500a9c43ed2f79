//! Another version of the programs, another size of the flow table: all of it, or everything as it was.

use std::fs;
use std::net::IpAddr;
use std::process::Command;

use lbx_common::control::{Control, flags};
use lbx_common::flow::{self, Bucket, ColdFlow, FlowEntry, IdleClass, TargetWord};
use lbx_common::key::{FlowKey, ports, scope};
use lbx_common::port::Port;
use lbx_tests::lab::tools;
use lbx_tests::scenario::place::{Place, prog_of, small};
use lbx_user::datapath::{Array, Datapath, Direction, Error, Maps, Options, Point, TcMode, XdpMode};

/// The flow of a client's port.
fn key(port: u16) -> FlowKey {
    FlowKey {
        src: IpAddr::from([203, 0, 113, 7]).into(),
        dst: IpAddr::from([192, 0, 2, 10]).into(),
        ports: ports(port, 80),
        scope: scope(6, 0, 0),
    }
}

/// Records nearly 500 flows, as the programs would.
fn fill(place: &Place, datapath: &Datapath) {
    let Control { secret, bucket_mask: mask, .. } = datapath.maps().control().unwrap();
    let epoch = datapath.maps().clock().unwrap().epoch_now().unwrap();
    let flows: Array<Bucket> = Array::new("flows", &place.instance.open_map("flows").unwrap(), true).unwrap();
    let cold = place.instance.open_map("flows_cold").unwrap();
    let cold: Array<ColdFlow> = Array::new("flows_cold", &cold, true).unwrap();
    for n in 1..=500u16 {
        let hash = key(n).hash(&secret);
        let bucket = flow::bucket_one(hash, mask);
        let mut line = flows.get(bucket).unwrap();
        let Some(way) = line.ways.iter().position(|entry| entry.seal == 0) else { continue };
        let target = TargetWord::new(n % 3, 0, 1);
        let flags = flow::with_class(flow::flags::CONFIRMED, IdleClass::Established);
        line.ways[way] = FlowEntry { seal: flow::seal(hash, target), target, epoch, flags };
        flows.set(bucket, &line).unwrap();
        cold.set(bucket * 4 + way as u32, &ColdFlow { key: key(n), service: 5, ..ColdFlow::default() })
            .unwrap();
    }
}

#[test]
fn maps_of_another_shape_or_abi_are_refused_by_name() {
    let place = Place::new();
    drop(place.load(&small()).unwrap());
    let pin = place.instance.map("targets");
    fs::remove_file(&pin).unwrap();
    let mut make = Command::new("bpftool");
    make.args(["map", "create"]).arg(&pin);
    make.args([
        "type", "array", "key", "4", "value", "32", "entries", "4096", "name", "targets", "flags", "1024",
    ]);
    tools::run(&mut make).unwrap();
    let refused = place.load(&small()).err().unwrap().to_string();
    assert!(refused.contains("targets") && refused.contains("its value size is 32"), "{refused}");
    assert!(refused.contains("lbx detach"), "{refused}");
    assert!(Maps::open_pinned(&place.instance).is_err());
    assert_eq!(place.instance.versions(), [1], "the version in force stays");
    place.detach_all();

    let datapath = place.load(&small()).unwrap();
    let pin = place.instance.map("control");
    let bytes = tools::run(Command::new("bpftool").args(["-j", "map", "dump", "pinned"]).arg(&pin)).unwrap();
    assert!(bytes.contains("key"), "{bytes}");
    drop(datapath);
    let mut value: Vec<String> = vec!["0".into(); 192];
    value[4] = "99".into();
    let mut update = Command::new("bpftool");
    update.args(["map", "update", "pinned"]).arg(&pin).args(["key", "0", "0", "0", "0", "value"]).args(value);
    tools::run(&mut update).unwrap();
    let refused = place.load(&small()).err().unwrap();
    assert!(matches!(refused, Error::Abi { found: 99, .. }), "{refused}");
}

#[test]
fn the_flow_table_is_resized_with_its_flows() {
    let place = Place::new();
    let p0 = place.device("p0");
    let mut datapath = place.load(&small()).unwrap();
    let port = Port { ifindex: p0.ifindex, ..Port::default() };
    place.inside(|| datapath.maps().write_port(0, &port)).unwrap();
    place.inside(|| datapath.attach_xdp(&p0, 0, XdpMode::Native, false)).unwrap();
    datapath.maps().set_observe(true).unwrap();
    let control = datapath.maps().control().unwrap();
    assert_eq!((control.bucket_mask, datapath.maps().flow_capacity()), (1023, 4096));
    fill(&place, &datapath);
    let before = datapath.maps().flows().unwrap().count();
    assert!(before > 490, "{before}");
    assert_eq!(datapath.maps().flows_by_target().unwrap().len(), 3);
    let old = prog_of(&place, "p0", Point::Xdp);
    drop(datapath);

    let datapath = place.load(&Options { flows: 60_000, ..small() }).unwrap();
    let note = &datapath.notes()[0];
    assert!(note.contains(&format!("65536 slots: {before} carried over, 0 had no room")), "{note}");
    assert_ne!(prog_of(&place, "p0", Point::Xdp), old);
    let now = datapath.maps().control().unwrap();
    assert_eq!((now.bucket_mask, now.secret), (16_383, control.secret));
    assert_eq!(now.flags, flags::OBSERVE);
    assert_eq!(datapath.maps().flows().unwrap().count(), before);
    let row = datapath.maps().flow(&key(7)).unwrap().unwrap();
    assert_eq!((row.target.target(), row.tuple.unwrap().service), (1, 5));
    let of_two = datapath.maps().flows_by_target().unwrap()[&TargetWord::new(2, 0, 1)].recorded;
    assert_eq!(datapath.maps().clear_flows_of(2).unwrap(), of_two);
    assert_eq!(datapath.maps().flows().unwrap().count() as u64, before as u64 - of_two);
    let names = fs::read_dir(place.instance.dir()).unwrap();
    let names: Vec<_> = names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().all(|n| !n.ends_with("-new")), "{names:?}");
}

#[test]
fn an_upgrade_that_fails_midway_leaves_everything_as_it_was() {
    let place = Place::new();
    let (p0, t0) = (place.device("p0"), place.device("t0"));
    let mut datapath = place.load(&small()).unwrap();
    for (index, device) in [(0, &p0), (1, &t0)] {
        let port = Port { ifindex: device.ifindex, ..Port::default() };
        place.inside(|| datapath.maps().write_port(index, &port)).unwrap();
    }
    place.inside(|| datapath.attach_xdp(&p0, 0, XdpMode::Native, false)).unwrap();
    let point = place.inside(|| datapath.attach_tc(&t0, Direction::Ingress, TcMode::Auto)).unwrap();
    fill(&place, &datapath);
    let flows = datapath.maps().flows().unwrap().count();
    drop(datapath);
    let programs = || (prog_of(&place, "p0", Point::Xdp), prog_of(&place, "t0", point));
    let before = programs();

    // What an upgrade comes to last is no link at all.
    let broken = place.instance.links().join("zz-tcx-in");
    let control = place.instance.map("control");
    tools::run(Command::new("bpftool").args(["map", "pin", "pinned"]).arg(control).arg(&broken)).unwrap();
    for options in [small(), Options { flows: 60_000, ..small() }] {
        let error = place.load(&options).err().unwrap().to_string();
        assert!(error.contains("zz"), "{error}");
        assert_eq!(programs(), before, "the programs before are back");
        assert_eq!(place.instance.versions(), [1], "with their tail calls");
        let names = fs::read_dir(place.instance.dir()).unwrap();
        let names: Vec<_> = names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        assert!(names.iter().all(|n| !n.ends_with("-new")), "{names:?}");
        let maps = Maps::open_pinned(&place.instance).unwrap();
        assert_eq!((maps.flow_capacity(), maps.flows().unwrap().count()), (4096, flows));
    }

    fs::remove_file(&broken).unwrap();
    let datapath = place.load(&Options { flows: 60_000, ..small() }).unwrap();
    assert_ne!(programs(), before);
    assert_eq!((datapath.maps().flow_capacity(), datapath.maps().flows().unwrap().count()), (65_536, flows));
    drop(datapath);
    assert_eq!(place.detach_all().len(), 2);
    place.assert_clean();
}
