//! Two CPUs on the same few buckets of the flow table: an update that races with another may cost a flow its record,
//! never its target.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lbx_common::reason::Reason;
use lbx_tests::bench::clock;
use lbx_tests::bpf::bench::hex;
use lbx_tests::bpf::run::Runner;
use lbx_tests::bpf::world::{tcp_packet, udp_packet};
use lbx_tests::bpf::{Bench, Hook, Verdict, World};
use lbx_tests::packets::tcp::{ACK, SYN};

/// Flows; many more than there are slots, so that they take each other's all the time.
const FLOWS: u16 = 256;
/// Slots: four buckets, every one of them both CPUs' at every moment.
const SLOTS: u32 = 16;
const TIME: Duration = Duration::from_secs(6);

/// The first packet of a flow, and a later one.
fn frames(flow: u16) -> [Vec<u8>; 2] {
    let (v4, port) = (flow.is_multiple_of(2), 2000 + flow);
    if flow % 4 < 2 {
        [tcp_packet(v4, port, SYN).build(), tcp_packet(v4, port, ACK).build()]
    } else {
        [udp_packet(v4, port).build(), udp_packet(v4, port).build()]
    }
}

#[test]
fn two_cpus_on_the_same_buckets_never_choose_a_wrong_target() {
    let mut world = World::dsr();
    world.options.flows = SLOTS;
    let mut bench = Bench::ready(world);
    let hook = Hook::Xdp(0);
    // The table does not change: where a flow went when nobody disturbed it, it has to go always.
    let expected: Vec<u8> = (0..FLOWS).map(|flow| bench.run(hook, &frames(flow)[0]).vm()).collect();
    assert!((1..=3).all(|vm| expected.contains(&vm)), "every target has flows");
    let program = bench.runner(hook).program().try_clone_to_owned().unwrap();
    let packets: Vec<_> = (0..FLOWS).map(frames).collect();
    let (stop, ran) = (AtomicBool::new(false), AtomicU64::new(0));
    bench.settle();
    std::thread::scope(|scope| {
        for cpu in 0..2 {
            let (program, packets, expected) = (program.try_clone().unwrap(), &packets, &expected);
            let (stop, ran) = (&stop, &ran);
            scope.spawn(move || {
                // On a machine with one core the two still interrupt each other.
                let _ = clock::pin(cpu);
                let mut runner = Runner::xdp(program);
                let mut state = 0x9e37_79b9_u32 + cpu as u32;
                while !stop.load(Ordering::Relaxed) {
                    for _ in 0..1000 {
                        // xorshift (Marsaglia 2003).
                        state ^= state << 13;
                        state ^= state >> 17;
                        state ^= state << 5;
                        let flow = usize::from((state >> 8) as u16 % FLOWS);
                        let frame = &packets[flow][usize::from(state & 3 != 0)];
                        let (verdict, out) = runner.run(frame, 0).unwrap();
                        assert_eq!(verdict, Verdict::Redirect, "flow {flow}");
                        assert_eq!(out[5], expected[flow], "flow {flow} went elsewhere: {}", hex(out));
                    }
                    ran.fetch_add(1000, Ordering::Relaxed);
                }
            });
        }
        // Live flows give way to nobody: somebody has to make room, as the daemon does.
        let (begin, targets) = (Instant::now(), bench.world.targets().count() as u32);
        while begin.elapsed() < TIME {
            (0..targets).for_each(|target| _ = bench.maps().clear_flows_of(target).unwrap());
            std::thread::sleep(Duration::from_micros(100));
        }
        stop.store(true, Ordering::Relaxed);
    });
    // Otherwise the test shows nothing: many packets, many of which wrote.
    let ran = ran.load(Ordering::Relaxed);
    let (counted, _) = bench.counted();
    let recorded = counted.get(Reason::FlowRecorded.name()).copied().unwrap_or(0);
    assert!(ran > 20_000 && recorded > ran / 100, "{ran} packets, {counted:?}");
}
