//! Two CPUs open and close flows in the same few buckets of the flow table, as fast as they can: an update that races
//! may cost a flow its record, but no packet ever goes to a target that is not its own.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Barrier;
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
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Buckets that all flows of the race share.
const BUCKETS: u32 = 2;
/// Packets of each CPU, before they are asked whether they met.
const PACKETS: u32 = 3_000_000;
/// In so many pieces.
const PIECES: u32 = 30;
/// How often they are sent at it again if they never did: a busy machine may run the two one after the other.
const ROUNDS: u64 = 20;

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
        let near = bucket_one(hash, mask) < BUCKETS && bucket_two(hash, mask) < 512;
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

/// An even and an odd CPU that this test may use: the program takes the flows of one list on each.
fn two_cpus() -> [usize; 2] {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let first =
        |rest: usize| (rest..CpuSet::count()).step_by(2).find(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    [0, 1].map(|rest| first(rest).expect("this test needs two CPUs, an even and an odd one"))
}

/// Runs the program on both CPUs at a time, in pieces that both begin together.
fn both(cpus: [usize; 2], program: BorrowedFd<'_>, frame: &[u8]) {
    let start = Barrier::new(2);
    thread::scope(|scope| {
        for cpu in cpus {
            let start = &start;
            scope.spawn(move || {
                stay_on(cpu);
                for _ in 0..PIECES {
                    start.wait();
                    run::repeat(program, frame, None, PACKETS / PIECES).unwrap();
                }
            });
        }
    });
}

#[test]
fn a_race_never_sends_a_packet_to_a_wrong_target() {
    let cpus = two_cpus();
    let mut bench = Bench::ready(World::dsr());
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
    let mut packets = 0;
    while packets == 0 || bench.counters().reason(Reason::FlowRaced) == 0 {
        packets += u64::from(PACKETS);
        assert!(packets <= ROUNDS * u64::from(PACKETS), "the CPUs never met in {packets} packets each");
        both(cpus, program.as_fd(), &frame);
    }
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
    let on = |target: usize| cpus.map(|cpu| by_target[target][cpu]);
    assert_eq!(on(0), [packets, 0], "flows of target 0, by CPU");
    assert_eq!(on(1), [0, packets], "flows of target 1, by CPU");
    assert_eq!(by_target[2].iter().sum::<u64>(), 0, "nobody's flows");
    // It was a race: entries were made and given up all the time.
    assert!(event(Reason::FlowRecorded) > 100_000 && event(Reason::FlowClosed) > 100_000);
}
