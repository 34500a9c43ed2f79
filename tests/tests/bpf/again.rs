//! That a datapath that was used before is as one just loaded.

use lbx_tests::bpf::world::{FAMILIES, UPLINK, tcp_packet, udp_packet};
use lbx_tests::bpf::{Bench, Hook, World};
use lbx_tests::packets::tcp::{ACK, SYN};
use lbx_user::datapath::RawMap;

#[test]
fn every_map_is_put_back_to_what_it_was_after_loading() {
    let mut bench = Bench::ready(World::nat());
    for hook in [Hook::Xdp(UPLINK), Hook::Tc(UPLINK)] {
        for v4 in FAMILIES {
            bench.run(hook, &tcp_packet(v4, 1000, SYN).build());
            bench.run(hook, &tcp_packet(v4, 1000, ACK).build());
            bench.run(hook, &udp_packet(v4, 1000).build());
        }
    }
    bench.maps().set_bypass(true).unwrap();
    let macs = RawMap::open(&bench.instance().map("macs")).unwrap().expect("a map");
    let [key, value] = [macs.info().key_size, macs.info().value_size].map(|size| vec![7; size as usize]);
    macs.set(&key, &value).unwrap();
    let [changed, left] = bench.put_back();
    // Arrays, with a value for each CPU and without, a hash, one that forgets, devices, a section of data.
    for map in
        ["control", "absent", "flows", "flows_cold", "slots", "targets", "reasons", "port_of", "macs", "tx"]
    {
        assert!(changed.iter().any(|name| name == map), "{map} was not changed: {changed:?}");
    }
    assert_eq!(left, Vec::<String>::new());
}
