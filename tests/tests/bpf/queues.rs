//! The programs that read queues, on taps that the test itself holds: what they say against what was put in, taken
//! out and refused.

use lbx_common::queue::{Found, Ring};
use lbx_tests::bpf::tap::Tap;
use lbx_tests::bpf::wire::Wire;
use lbx_user::datapath::Queues;
use nix::sched::{CloneFlags, unshare};

/// A namespace for the calling thread.
fn here() {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root: it makes taps and loads BPF programs");
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
}

fn queues_of(queues: &Queues, tap: &Tap) -> Vec<Found> {
    let mut found = queues.find(Some(std::process::id())).unwrap();
    found.retain(|one| one.at.ifindex == tap.ifindex);
    found
}

fn watch(queues: &Queues, found: &[Found]) {
    for (index, one) in found.iter().enumerate() {
        queues.watch(index as u32, &one.at).unwrap();
    }
}

fn rings(queues: &Queues, count: u32) -> Vec<Ring> {
    queues.read(count, None).unwrap();
    (0..count).map(|index| queues.ring(index).unwrap()).collect()
}

/// Frames of `n` flows, so that a tap with several queues spreads them.
fn send(wire: &Wire, flows: std::ops::Range<u16>) -> u32 {
    let mut frame = vec![0_u8; 60];
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame[12..15].copy_from_slice(&[8, 0, 0x45]);
    frame[23] = 17;
    let mut taken = 0;
    for flow in flows {
        frame[34..36].copy_from_slice(&flow.to_be_bytes());
        // A ring that is full refuses: ENOBUFS.
        taken += u32::from(wire.send(&frame).is_ok());
    }
    taken
}

#[test]
fn the_depth_is_what_was_sent_and_not_yet_taken() {
    here();
    let mut tap = Tap::new("q0", 1, 100).unwrap();
    let wire = Wire::on("q0").unwrap();
    let queues = Queues::load().unwrap();
    let found = queues_of(&queues, &tap);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].queues, found[0].pid, found[0].ring.size), (1, std::process::id(), 100));
    watch(&queues, &found);
    let depth = || {
        let (read, found) = (rings(&queues, 1)[0], queues_of(&queues, &tap)[0].ring);
        assert!(read.is_valid());
        assert_eq!(read, found, "both readers");
        read.depth()
    };
    assert_eq!(depth(), 0);
    for n in 0..100 {
        assert_eq!(send(&wire, n..n + 1), 1);
        assert_eq!(depth(), u32::from(n) + 1);
    }
    send(&wire, 0..20);
    let full = rings(&queues, 1)[0];
    assert_eq!((full.depth(), full.is_full()), (100, true));
    for left in (0..100).rev() {
        assert_eq!(tap.take(0, 1), 1);
        let ring = rings(&queues, 1)[0];
        assert_eq!(ring.depth(), left);
        assert_eq!(ring.taken_since(&full).unwrap(), (100 - left) % 100);
    }
    // Around the ring many times, by amounts that do not divide it.
    for round in 0..40 {
        assert_eq!(send(&wire, 0..37), 37);
        assert_eq!(rings(&queues, 1)[0].depth(), 37, "round {round}");
        assert_eq!(tap.take(0, 37), 37);
        assert_eq!(rings(&queues, 1)[0].depth(), 0, "round {round}");
    }
}

#[test]
fn queues_come_and_go() {
    here();
    let mut tap = Tap::new("q1", 3, 500).unwrap();
    let wire = Wire::on("q1").unwrap();
    let queues = Queues::load().unwrap();
    let found = queues_of(&queues, &tap);
    let numbers: Vec<u32> = found.iter().map(|one| one.at.queue).collect();
    assert_eq!((numbers, found[0].queues), (vec![0, 1, 2], 3));
    assert_eq!(queues.find(None).unwrap().len(), 3, "those of this namespace, whoever holds them");
    watch(&queues, &found);
    let sent = send(&wire, 0..300);
    let depths: Vec<u32> = rings(&queues, 3).iter().map(Ring::depth).collect();
    assert_eq!(depths.iter().sum::<u32>(), sent);
    for (queue, depth) in depths.iter().enumerate() {
        assert_eq!(tap.take(queue, 1000) as u32, *depth, "queue {queue}");
    }

    // The guest uses fewer queues: the last takes the place of one that is detached.
    tap.attach(0, false).unwrap();
    let after = queues_of(&queues, &tap);
    assert_eq!(after.iter().map(|one| (one.at.queue, one.queues)).collect::<Vec<_>>(), [(0, 2), (1, 2)]);
    let valid = |rings: &[Ring]| rings.iter().map(Ring::is_valid).collect::<Vec<_>>();
    assert_eq!(valid(&rings(&queues, 3)), [false, true, false], "0 is detached, and 2 has become 0");
    tap.attach(0, true).unwrap();
    assert_eq!(queues_of(&queues, &tap).len(), 3);

    // Closed: its memory may be anything, and says nothing.
    watch(&queues, &queues_of(&queues, &tap));
    assert_eq!(valid(&rings(&queues, 3)), [true; 3]);
    (0..3).for_each(|queue| tap.close(queue));
    assert_eq!(valid(&rings(&queues, 3)), [false; 3]);
    assert_eq!(queues_of(&queues, &tap), []);
    queues.forget(0).unwrap();
    assert_eq!(valid(&rings(&queues, 3)), [false; 3]);
    assert_eq!(queues.find(Some(u32::MAX >> 2)).unwrap(), [], "no such process");
}
