//! Two CPUs open and close flows in the same few buckets of the flow table, as fast as they can: an update that races
//! may cost a flow its record, but no packet ever goes to a target that is not its own.

use std::os::fd::AsFd;
use std::thread;

use lbx_common::flow::{bucket_one, bucket_two};
use lbx_common::key::{FlowKey, ports, scope, slot};
use lbx_common::measure::{RACE_FLOWS, RACE_STATE};
use lbx_common::reason::Reason;
use lbx_tests::bench::programs::Programs;
use lbx_tests::bpf::bench::{Bench, Hook};
use lbx_tests::bpf::run;
use lbx_tests::bpf::world::{UPLINK, VIP4, World, tcp_packet};
use lbx_tests::packets::tcp;
use lbx_user::datapath;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// Buckets that all flows of the race share.
const BUCKETS: u32 = 4;
/// Packets of each CPU.
const PACKETS: u32 = 3_000_000;

/// A flow of the race: client address and port, as they lie in the packet.
fn packed(client: u32, port: u16) -> u64 {
    u64::from(client.to_be()) | u64::from(port.to_be()) << 32
}

/// Flows that the table binds to a target, and whose first and second bucket are among the few.
fn flows_of(bench: &Bench, target: u32) -> Vec<u64> {
    let control = bench.maps().control().unwrap();
    let service = bench.maps().service(0).unwrap();
    let table = bench.maps().table(datapath::table_of(&service)).unwrap();
    let mut found = Vec::new();
    for client in 0x0a00_0000_u32.. {
        let key = FlowKey {
            src: std::net::IpAddr::V4(client.into()).into(),
            dst: std::net::IpAddr::V4(VIP4).into(),
            ports: ports(5000, 80),
            scope: scope(6, 0, 0),
        };
        let hash = key.hash(&control.secret);
        let mask = control.bucket_mask;
        let near = bucket_one(hash, mask) < BUCKETS && bucket_two(hash, mask) < 256;
        if near && table[slot(hash, service.table_len) as usize].target() == target {
            found.push(packed(client, 5000));
            if found.len() == RACE_FLOWS as usize {
                return found;
            }
        }
    }
    unreachable!("2^32 clients are enough")
}

fn stay_on(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).unwrap();
    sched_setaffinity(Pid::from_raw(0), &set).unwrap();
}

#[test]
fn a_race_never_sends_a_packet_to_a_wrong_target() {
    let cpus = thread::available_parallelism().unwrap().get();
    assert!(cpus >= 2, "this test needs two CPUs, this machine has {cpus}");
    let mut bench = Bench::new(World::dsr());
    let programs = Programs::load(1 << 14).unwrap();
    programs.jump_to(bench.runner(Hook::Xdp(UPLINK)).program()).unwrap();
    for cpu in 0..2 {
        let first = cpu * (RACE_FLOWS + 1);
        for (n, flow) in (0..).zip(flows_of(&bench, cpu)) {
            programs.race(first + n, flow).unwrap();
        }
        programs.race(first + RACE_STATE, 0x9e37_79b9_7f4a_7c15 + u64::from(cpu)).unwrap();
    }
    bench.settle();
    let frame = tcp_packet(true, 5000, tcp::SYN).build();
    let program = programs.xdp("bench_race").unwrap();
    thread::scope(|scope| {
        for cpu in 0..2 {
            let frame = &frame;
            scope.spawn(move || {
                stay_on(cpu);
                // In pieces, so that both are at it at the same time.
                for _ in 0..30 {
                    run::repeat(program.as_fd(), frame, None, PACKETS / 30).unwrap();
                }
            });
        }
    });
    let by_target = [0, 1, 2].map(|target| bench.maps().target_packets_by_cpu(target).unwrap());
    let counters = bench.counters();
    let event = |reason: Reason| counters.reason(reason);
    println!(
        "packets by target and CPU {by_target:?}; recorded {}, closed {}, no room {}, raced {}",
        event(Reason::FlowRecorded),
        event(Reason::FlowClosed),
        event(Reason::FlowUnrecorded),
        event(Reason::FlowRaced)
    );
    let packets = u64::from(PACKETS);
    assert_eq!((by_target[0][0], by_target[0][1]), (packets, 0), "flows of target 0, by CPU");
    assert_eq!((by_target[1][0], by_target[1][1]), (0, packets), "flows of target 1, by CPU");
    assert_eq!(by_target[2].iter().sum::<u64>(), 0, "nobody's flows");
    // It was a race: entries were made and given up all the time, and one CPU met the other at it.
    assert!(event(Reason::FlowRecorded) > 100_000 && event(Reason::FlowClosed) > 100_000);
    assert!(event(Reason::FlowRaced) > 0, "the CPUs never met");
}
