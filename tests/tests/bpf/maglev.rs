//! Shares of new flows as the kernel deals them out: the weights, within 1 % of each.

use lbx_tests::bpf::world::{UPLINK, tcp_packet};
use lbx_tests::bpf::{Bench, Hook, Verdict, World};
use lbx_tests::packets::tcp::SYN;

/// New flows of a family.
const FLOWS: u32 = 1_000_000;

#[test]
fn new_flows_are_shared_by_the_weights() {
    let mut world = World::dsr();
    world.options.flows = 1 << 20;
    world.options.table_pool = 1 << 18;
    for svc in &mut world.services {
        svc.table = lbx_common::limits::TABLE_SIZE;
        for (target, weight) in svc.targets.iter_mut().zip(1..) {
            target.weight = weight;
        }
    }
    let mut bench = Bench::ready(world);
    let hook = Hook::Xdp(UPLINK);
    bench.runner(hook);
    for v4 in [true, false] {
        let packet = tcp_packet(v4, 0, SYN);
        let mut frame = packet.build();
        let (src, port) = (packet.l3() + if v4 { 12 } else { 20 }, packet.l4());
        let mut seen = [0u32; 3];
        let start = std::time::Instant::now();
        // Clients of one network, ports in sequence: what a real load looks like, and what a hash may stumble on.
        for n in 0..FLOWS {
            frame[src..src + 4].copy_from_slice(&(0x0a01_0000 + n / 1000).to_be_bytes());
            frame[port..port + 2].copy_from_slice(&(1024 + (n % 1000) as u16).to_be_bytes());
            let (verdict, out) = bench.runner(hook).run(&frame, 0).unwrap();
            assert_eq!(verdict, Verdict::Redirect);
            seen[usize::from(out[5]) - 1] += 1;
        }
        println!("{FLOWS} new flows, v4 {v4}, in {:.1?}", start.elapsed());
        for (n, (seen, weight)) in seen.iter().zip([1.0, 2.0, 3.0]).enumerate() {
            let share = f64::from(*seen) / f64::from(FLOWS);
            let off = share / (weight / 6.0) - 1.0;
            println!(
                "  VM {}: {seen} flows, {:.3} % (weight {weight}/6, off by {:+.3} %)",
                n + 1,
                share * 100.0,
                off * 100.0
            );
            assert!(off.abs() < 0.01, "more than 1 % off the weight");
        }
        let (counted, targets) = bench.counted();
        assert_eq!(targets[..3].iter().sum::<u64>(), u64::from(FLOWS));
        let unrecorded = counted.get("flow_unrecorded").copied().unwrap_or(0);
        println!("  recorded {}, unrecorded {unrecorded}", counted["flow_recorded"]);
        assert_eq!(counted["flow_recorded"] + unrecorded, u64::from(FLOWS));
    }
}
