//! Into a certain queue of a tap, whatever CPU a frame comes in on: live frames, and what a process finds in the queues.

use std::time::{Duration, Instant};

use lbx_common::flow::TargetWord;
use lbx_common::key::{FlowKey, ports, scope};
use lbx_common::service::Service;
use lbx_common::target::{Weight, flags};
use lbx_tests::bpf::tap::Tap;
use lbx_tests::bpf::world::{CLIENT4, UPLINK, VIP4, tcp_packet, vm_mac};
use lbx_tests::bpf::{Bench, Hook, World, run};
use lbx_tests::packets::tcp::{ACK, SYN};
use nix::sched::{CpuSet, sched_setaffinity};

const HOOK: Hook = Hook::Xdp(UPLINK);
const QUEUES: u8 = 2;
/// Frames of a run.
const FRAMES: u32 = 32;

fn on(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).unwrap();
    sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).unwrap();
}

/// How many frames are in each queue, once there are `most` or nothing comes any more.
fn taken(tap: &mut Tap, most: usize) -> [usize; 2] {
    let (mut taken, deadline) = ([0; 2], Instant::now() + Duration::from_secs(30));
    while taken.iter().sum::<usize>() < most && Instant::now() < deadline {
        for (queue, sum) in taken.iter_mut().enumerate() {
            *sum += tap.take(queue, 1000);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    taken
}

#[test]
fn frames_land_in_the_queue_their_flow_is_bound_to() {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    assert!(cpus >= 2, "a queue is chosen by the CPU: this test needs two");
    let mut bench = Bench::ready(World::dsr());
    let mut tap = Tap::new("vm1", QUEUES.into(), 500).unwrap();
    let port = lbx_common::port::Port { ifindex: tap.ifindex, ..bench.maps().port(1).unwrap() };
    bench.maps().write_port(1, &port).unwrap();
    bench.change_target(0, |target| {
        target.ifindex = tap.ifindex;
        target.queues = QUEUES;
        target.flags |= flags::QUEUES;
    });
    // All flows to the first VM, half of them to each of its queues.
    let words: Vec<TargetWord> = (0..250).map(|n| TargetWord::new(0, n % QUEUES, 1)).collect();
    let (table, _) = bench.maps().place_table(0, &words).unwrap();
    for queue in 0..QUEUES {
        let weight = Weight { weight: 1, configured: 1 };
        bench.maps().write_weight(0, queue.into(), weight).unwrap();
    }
    let old = bench.maps().service(0).unwrap();
    bench.maps().write_service(0, &Service { table_base: table.base, table_len: table.len, ..old }).unwrap();
    bench.maps().choose_queues(&[(vm_mac(1), 1)]).unwrap();

    let mut seen = [0; 2];
    for client in 1000..1008 {
        bench.run(HOOK, &tcp_packet(true, client, SYN).build());
        let frame = tcp_packet(true, client, ACK).build();
        let key = FlowKey {
            src: std::net::IpAddr::V4(CLIENT4).into(),
            dst: std::net::IpAddr::V4(VIP4).into(),
            ports: ports(client, 80),
            scope: scope(6, 0, 0),
        };
        let word = bench.maps().flow(&key).unwrap().expect("it was recorded").target;
        let queue = usize::from(word.queue());
        for cpu in [0, 1] {
            on(cpu);
            run::live(bench.runner(HOOK).program(), &frame, FRAMES).unwrap();
            let mut expected = [0; 2];
            expected[queue] = FRAMES as usize;
            assert_eq!(taken(&mut tap, FRAMES as usize), expected, "flow {client} from CPU {cpu}");
        }
        seen[queue] += 1;
    }
    assert!(seen.iter().all(|n| *n > 0), "flows of both queues: {seen:?}");

    // Nobody is handed over any more: the CPU decides.
    bench.maps().choose_queues(&[]).unwrap();
    bench.change_target(0, |target| target.flags &= !flags::QUEUES);
    for cpu in [0, 1] {
        on(cpu);
        run::live(bench.runner(HOOK).program(), &tcp_packet(true, 1000, ACK).build(), FRAMES).unwrap();
        assert_eq!(taken(&mut tap, FRAMES as usize)[cpu], FRAMES as usize, "from CPU {cpu}");
    }
}
