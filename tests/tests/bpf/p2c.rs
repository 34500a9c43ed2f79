//! Power of two choices as the kernel makes them: by queues that really fill, and by flows that open and close.

use std::time::{Duration, Instant};

use lbx_common::flow::TargetWord;
use lbx_common::service::algorithm;
use lbx_common::target::State;
use lbx_tests::bpf::tap::Tap;
use lbx_tests::bpf::wire::Wire;
use lbx_tests::bpf::world::{UPLINK, tcp_packet, udp_packet};
use lbx_tests::bpf::{Bench, Hook, World};
use lbx_tests::packets::tcp::{ACK, FIN, RST, SYN};
use lbx_user::api::model::WhyFlowQuery;
use lbx_user::datapath::Queues;
use lbx_user::view::View;

const HOOK: Hook = Hook::Xdp(UPLINK);

fn world() -> World {
    let mut world = World::dsr();
    for svc in &mut world.services {
        svc.algorithm = algorithm::P2C;
    }
    world
}

/// Taps with room for 500 frames, in place of the VMs' devices for all that looks at their queues, and as many frames
/// in each.
fn fill(bench: &Bench, queues: &Queues, frames: [u32; 3]) -> Vec<Tap> {
    let mut frame = vec![0_u8; 60];
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    (0..3)
        .map(|target| {
            let tap = Tap::new(&format!("vm{target}"), 1, 500).unwrap();
            let found = queues.find(Some(std::process::id())).unwrap();
            let own = found.iter().find(|one| one.at.ifindex == tap.ifindex).unwrap();
            bench.change_target(target, |entry| {
                (entry.ring, entry.ifindex) = (queues.ring_of(&own.at), tap.ifindex);
            });
            let wire = Wire::on(&tap.name).unwrap();
            (0..frames[target as usize]).for_each(|_| assert!(wire.send(&frame).is_ok()));
            tap
        })
        .collect()
}

/// New flows by the VM they went to.
fn open(bench: &mut Bench, ports: std::ops::Range<u16>) -> [u32; 3] {
    let mut seen = [0; 3];
    for port in ports {
        let ran = bench.run(HOOK, &tcp_packet(true, port, SYN).build());
        seen[usize::from(ran.vm()) - 1] += 1;
    }
    seen
}

fn held(bench: &Bench) -> [i64; 3] {
    [0, 1, 2].map(|target| bench.maps().live(target, 0).unwrap().held)
}

#[test]
fn new_flows_avoid_the_deep_queue() {
    let mut bench = Bench::ready(world());
    let queues = Queues::load().unwrap();
    let mut taps = fill(&bench, &queues, [200, 0, 0]);
    assert!(bench.maps().sees_depth());
    let depth = |bench: &Bench| bench.maps().depth(TargetWord::new(0, 0, 1)).unwrap();
    assert_eq!(depth(&bench), Some(200));
    let seen = open(&mut bench, 1000..1200);
    assert_eq!(seen[0], 0, "{seen:?}: the others have at most 200 flows open");
    // Emptied, it is the shortest by far; every pair it is in is decided for it.
    assert_eq!(taps[0].take(0, 500), 200);
    assert_eq!(depth(&bench), Some(0));
    let seen = open(&mut bench, 2000..2090);
    assert!(seen[0] > 40, "{seen:?}: in two of three pairs");
    // Its address leads nowhere once its process is gone: open flows alone are compared.
    bench.settle();
    taps[0].close(0);
    assert_eq!(depth(&bench), None);
    let before = held(&bench);
    open(&mut bench, 3000..3100);
    assert!(bench.counters().reason(lbx_common::reason::Reason::RingStale) > 0);
    let after = held(&bench);
    assert!(after[0] > before[0], "{before:?} {after:?}: the one with the fewest flows");
}

#[test]
fn an_address_that_is_wrong_is_found_out() {
    let mut bench = Bench::ready(world());
    let queues = Queues::load().unwrap();
    let _taps = fill(&bench, &queues, [100, 0, 0]);
    let right = bench.maps().target(0).unwrap();
    for ring in [1, right.ring + 64, right.ring - 8, 0xdead_beef_0000_0000, u64::MAX, 1 << 47] {
        bench.change_target(0, |target| target.ring = ring);
        assert_eq!(bench.maps().depth(TargetWord::new(0, 0, 1)).unwrap(), None, "{ring:x}");
    }
    // The right queue of another device.
    bench.change_target(0, |target| (target.ring, target.ifindex) = (right.ring, right.ifindex + 1));
    assert_eq!(bench.maps().depth(TargetWord::new(0, 0, 1)).unwrap(), None);
    let seen = open(&mut bench, 1000..1090);
    assert!(seen.iter().all(|n| *n >= 20), "{seen:?}: as if no queue were known");
    bench.change_target(0, |target| *target = right);
    assert_eq!(bench.maps().depth(TargetWord::new(0, 0, 1)).unwrap(), Some(100));
}

#[test]
fn shares_are_those_of_the_weights() {
    let mut world = world();
    world.options.flows = 1 << 17;
    for (target, weight) in world.services[0].targets.iter_mut().zip(1..) {
        target.weight = weight;
    }
    let mut bench = Bench::ready(world);
    let mut seen = [0_u32; 3];
    let all = 12_000;
    // Each is closed before the next opens: queues are equal, and only the table decides.
    for port in 1000..1000 + all {
        let runner = bench.runner(HOOK);
        let (_, out) = runner.run(&tcp_packet(true, port, SYN).build(), 0).unwrap();
        seen[usize::from(out[5]) - 1] += 1;
        runner.run(&tcp_packet(true, port, RST).build(), 0).unwrap();
    }
    assert_eq!(held(&bench), [0; 3]);
    for (n, seen) in seen.iter().enumerate() {
        let share = f64::from(*seen) / f64::from(all);
        let wanted = (n + 1) as f64 / 6.0;
        // Four standard deviations of 12,000 flows are 1.8 points.
        assert!((share - wanted).abs() < 0.018, "VM {}: {share:.3} for {wanted:.3}", n + 1);
    }
    // All stay open: lengths per weight keep them equal, closer than chance would.
    let seen = open(&mut bench, 20_000..23_000);
    for (n, seen) in seen.iter().enumerate() {
        let wanted = 500.0 * (n + 1) as f64;
        assert!((f64::from(*seen) / wanted - 1.0).abs() < 0.03, "VM {}: {seen} for {wanted}", n + 1);
    }
    assert_eq!(held(&bench).map(|n| n as u32), seen);
}

#[test]
fn open_flows_are_those_that_began_and_did_not_end() {
    for nat in [false, true] {
        let mut world = if nat { World::nat() } else { World::dsr() };
        world.services.iter_mut().for_each(|svc| svc.algorithm = algorithm::P2C);
        world.options.idle.datagram = Duration::from_secs(1);
        let mut bench = Bench::ready(world);
        let all = |bench: &Bench| held(bench).iter().sum::<i64>();
        let send = |bench: &mut Bench, port, flags| {
            bench.run(HOOK, &tcp_packet(true, port, flags).build());
            all(bench)
        };
        assert_eq!(send(&mut bench, 1, SYN), 1);
        assert_eq!(send(&mut bench, 1, SYN), 1, "again");
        assert_eq!(send(&mut bench, 1, ACK), 1);
        assert_eq!(send(&mut bench, 2, SYN), 2);
        assert_eq!(send(&mut bench, 3, RST), 2, "of nothing");
        if !nat {
            assert_eq!(send(&mut bench, 1, FIN | ACK), 1);
            assert_eq!(send(&mut bench, 1, ACK), 1, "the last packets of a closed one");
            assert_eq!(send(&mut bench, 1, SYN), 2, "the same ports again");
            assert_eq!(send(&mut bench, 1, ACK), 2);
        }
        assert_eq!(send(&mut bench, 1, RST), 1);
        assert_eq!(send(&mut bench, 1, RST), 1, "again");
        assert_eq!(send(&mut bench, 2, RST | ACK), 0);
        // A target that is down gives its flows to others.
        let vm = bench.run(HOOK, &tcp_packet(true, 9, SYN).build()).vm();
        bench.run(HOOK, &tcp_packet(true, 9, ACK).build());
        assert_eq!(held(&bench)[usize::from(vm) - 1], 1);
        bench.set_state(u32::from(vm) - 1, State::Down);
        bench.run(HOOK, &tcp_packet(true, 9, ACK).build());
        assert_eq!((held(&bench)[usize::from(vm) - 1], all(&bench)), (0, 1));
        bench.set_state(u32::from(vm) - 1, State::Active);

        // What the kernel cannot see: counts that are off, and flows that fell silent.
        let maps = bench.maps();
        let corrected = maps.correct_open_flows(6).unwrap();
        assert_eq!((corrected.open, corrected.drift), (1, 0));
        for port in 1..=5 {
            bench.run(HOOK, &udp_packet(true, port).build());
            bench.run(HOOK, &udp_packet(true, port).build());
        }
        let sum =
            |bench: &Bench| (3..6).map(|target| bench.maps().live(target, 0).unwrap().open()).sum::<u32>();
        assert_eq!(sum(&bench), 5);
        let deadline = Instant::now() + Duration::from_secs(30);
        while bench.maps().correct_open_flows(6).unwrap().open > 1 {
            assert!(Instant::now() < deadline, "UDP flows are idle after a second");
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(sum(&bench), 0, "idle flows are not open");
        // Their records go to others one day, and take the mark with them.
        bench.maps().free_expired().unwrap();
        let corrected = bench.maps().correct_open_flows(6).unwrap();
        assert_eq!((corrected.drift, sum(&bench)), (0, 0));
    }
}

#[test]
fn without_sight_of_queues_open_flows_decide() {
    let mut world = world();
    world.options.live_depth = false;
    let mut bench = Bench::ready(world);
    let queues = Queues::load().unwrap();
    let _taps = fill(&bench, &queues, [300, 0, 0]);
    assert!(!bench.maps().sees_depth());
    assert_eq!(bench.maps().depth(TargetWord::new(0, 0, 1)).unwrap(), None);
    let seen = open(&mut bench, 1000..1090);
    assert!(seen.iter().all(|n| (25..=35).contains(n)), "{seen:?}: flows are shared evenly");
    assert_eq!(bench.counters().reason(lbx_common::reason::Reason::RingStale), 0);
}

#[test]
fn who_takes_no_new_flow_is_no_candidate() {
    let mut bench = Bench::ready(world());
    bench.set_state(1, State::Draining);
    assert_eq!(open(&mut bench, 1000..1040)[1], 0);
    bench.set_state(2, State::Down);
    assert_eq!(open(&mut bench, 2000..2040), [40, 0, 0]);
    bench.set_state(0, State::Down);
    bench
        .run(HOOK, &tcp_packet(true, 3000, SYN).build())
        .dropped("nobody", &[lbx_common::reason::Reason::NoTarget]);
}

#[test]
fn what_is_told_of_a_choice_is_what_comes() {
    let mut bench = Bench::ready(world());
    for (index, name) in ["web/a", "web/b", "web/c"].into_iter().enumerate() {
        bench.maps().write_target_name(index as u32, name).unwrap();
    }
    bench.maps().write_service_name(0, "web").unwrap();
    let queues = Queues::load().unwrap();
    let _taps = fill(&bench, &queues, [10, 0, 5]);
    let (mut second, mut told) = (0, String::new());
    for port in 1000..1060_u16 {
        let query = WhyFlowQuery {
            protocol: "tcp".to_owned(),
            client: (lbx_tests::bpf::world::CLIENT4, port).into(),
            vip: (lbx_tests::bpf::world::VIP4, 80).into(),
            vlan: None,
            switch: None,
        };
        let instance = bench.instance().clone();
        let why = View::new(bench.maps(), &instance).unwrap().why_flow(&query).unwrap();
        assert_eq!(why.algorithm.as_deref(), Some("p2c"));
        let step = why.steps.iter().find(|step| step.step == "choose").expect("a choice");
        second += u32::from(step.text.ends_with("is shorter"));
        told.clone_from(&step.text);
        let vm = bench.run(HOOK, &tcp_packet(true, port, SYN).build()).vm();
        let expected = ["web/a", "web/b", "web/c"][usize::from(vm) - 1];
        assert_eq!(why.target.as_deref(), Some(expected), "{}", step.text);
    }
    assert!(second > 5 && second < 55, "{second} times the second: {told}");
}
