//! What the controller is held to: convergence, quiet, bounded answers to steps, recovery, fairness.

use super::World;
use super::workers::Workers;
use super::world::{Model, Server};
use crate::controller::limit::CEILING;

/// Four servers, one of a quarter, and the capacity of each in requests a second.
type Make = fn() -> (Vec<Server>, [f64; 4]);

fn waiting() -> (Vec<Server>, [f64; 4]) {
    let servers = [8, 8, 8, 2].map(|workers| Server::workers(workers, 0.02, false));
    (servers.into(), [400.0, 400.0, 400.0, 100.0])
}

fn random() -> (Vec<Server>, [f64; 4]) {
    let servers = [4, 4, 4, 1].map(|workers| Server::workers(workers, 0.02, true));
    (servers.into(), [200.0, 200.0, 200.0, 50.0])
}

fn sharing() -> (Vec<Server>, [f64; 4]) {
    let servers = [1.0, 1.0, 1.0, 0.25].map(|speed| Server::sharing(speed, 0.01));
    (servers.into(), [100.0, 100.0, 100.0, 25.0])
}

/// Sharing as seen without an eye on the CPUs.
fn unseen() -> (Vec<Server>, [f64; 4]) {
    let (mut servers, capacity) = sharing();
    for server in &mut servers {
        server.cpu = false;
    }
    (servers, capacity)
}

fn equal(workers: usize) -> Vec<Server> {
    (0..4).map(|_| Server::workers(workers, 0.02, false)).collect()
}

#[test]
fn it_converges_to_what_an_oracle_would_have_chosen() {
    for (name, make) in
        [("waiting", waiting as Make), ("random", random), ("sharing", sharing), ("unseen", unseen)]
    {
        for load in [0.4, 0.7, 0.9] {
            let arm = |change: fn(&mut World, [f64; 4])| {
                let (servers, capacity) = make();
                let mut world = World::new(servers, load * capacity.iter().sum::<f64>(), 7);
                change(&mut world, capacity);
                world.run(90.0);
                world.quantile(45.0, 0.99)
            };
            let adaptive = arm(|_, _| {});
            let oracle = arm(|world, capacity| (world.adaptive, world.weights) = (false, capacity.into()));
            let fixed = arm(|world, _| world.adaptive = false);
            let told =
                format!("{name} at {load}: adaptive {adaptive:.4} oracle {oracle:.4} static {fixed:.4}");
            assert!(adaptive <= 1.3 * oracle, "{told}");
            assert!(5.0 * adaptive <= fixed, "{told}");
        }
    }
}

/// What `bench balance` does with real guests: four workers each that only wait, the last guest four times as slow.
#[test]
fn the_guests_of_the_bench_are_served_as_by_an_oracle() {
    let world = |load: f64, seed| {
        let guests = [0.04, 0.04, 0.04, 0.16].map(|service| Server::workers(4, service, false));
        World::new(guests.into(), load * 325.0, seed)
    };
    for (load, worst) in [(0.4, 1.2), (0.7, 1.3)] {
        for seed in 1..=3 {
            let [mut adaptive, mut oracle, mut fixed] = [(); 3].map(|()| world(load, seed));
            (oracle.adaptive, oracle.weights) = (false, [100.0, 100.0, 100.0, 25.0].into());
            fixed.adaptive = false;
            let [adaptive, oracle, fixed] = [&mut adaptive, &mut oracle, &mut fixed].map(|world| {
                world.run(32.0);
                world.quantile(12.0, 0.99)
            });
            let told = format!(
                "at {load}, seed {seed}: adaptive {adaptive:.3} oracle {oracle:.3} static {fixed:.3}"
            );
            assert!(adaptive <= worst * oracle && 5.0 * adaptive <= fixed, "{told}");
        }
    }
}

/// Before more waits in it than it can do in the next seconds.
#[test]
fn a_guest_that_is_much_slower_is_left_within_two_seconds() {
    for seed in 1..=5 {
        let guests = [0.04, 0.04, 0.04, 0.16].map(|service| Server::workers(4, service, false));
        let mut world = World::new(guests.into(), 0.7 * 325.0, seed);
        world.run(2.0);
        // 25 of 325 is what it can do.
        assert!(world.shares()[3] < 0.08, "seed {seed}: {:?}", world.shares());
        world.run(10.0);
        assert!(world.quantile(6.0, 0.99) < 0.2, "seed {seed}: {}", world.quantile(6.0, 0.99));
    }
}

#[test]
fn constant_load_on_unequal_servers_settles_and_stays() {
    for (name, make) in [("waiting", waiting as Make), ("random", random), ("sharing", sharing)] {
        let (servers, capacity) = make();
        let mut world = World::new(servers, 0.7 * capacity.iter().sum::<f64>(), 3);
        world.run(600.0);
        // Within 10 s it is out of trouble, and then no share goes far from where it is in the long run.
        let late = &world.history[60..];
        for target in 0..4 {
            let mean = late.iter().map(|shares| shares[target]).sum::<f64>() / late.len() as f64;
            for (second, shares) in world.history.iter().enumerate().skip(10) {
                let off = (shares[target] - mean).abs();
                assert!(off < 0.05, "{name} second {second} target {target}: {} of {mean}", shares[target]);
            }
        }
        assert!(world.quantile(10.0, 0.99) < 1.0, "{name}: {}", world.quantile(10.0, 0.99));
    }
}

#[test]
fn availability_alone_does_not_swing_near_saturation() {
    // Readings of use are up to a second old, and no response time helps.
    let (mut servers, capacity) = sharing();
    for server in &mut servers {
        server.timed = false;
    }
    let mut world = World::new(servers, 0.85 * capacity.iter().sum::<f64>(), 5);
    world.run(300.0);
    let weak: Vec<f64> = world.history[60..].iter().map(|shares| shares[3]).collect();
    let (low, high) =
        weak.iter().fold((1.0f64, 0.0f64), |(low, high), share| (low.min(*share), high.max(*share)));
    assert!(low > 0.04 && high < 0.14, "the share of the weak one went from {low} to {high}");
}

#[test]
fn a_step_is_answered_soon_and_no_faster_than_allowed() {
    let mut world = World::new(equal(8), 1000.0, 2);
    world.run(30.0);
    if let Model::Workers(queue, ..) = &mut world.servers[1].model {
        *queue = Workers::new(2);
    }
    let mut before: Vec<f64> = world.told.iter().map(|told| told.limited).collect();
    for tenth in 0..100 {
        world.run(0.1);
        for (told, before) in world.told.iter().zip(&mut before) {
            // A second's worth at once, at most; then a tenth of it in each tenth.
            let most = 1.0 + world.settings.step * 1.1;
            assert!(
                told.limited <= *before * most && told.limited >= *before / most,
                "tenth {tenth}: {told:?}"
            );
            *before = told.limited;
        }
    }
    assert!(world.shares()[1] < 0.12, "after 10 s: {:?}", world.shares());
    world.run(30.0);
    assert!(world.quantile(55.0, 0.99) < 0.1, "{}", world.quantile(55.0, 0.99));

    // It gets well again, and its share back.
    if let Model::Workers(queue, ..) = &mut world.servers[1].model {
        *queue = Workers::new(8);
    }
    world.run(60.0);
    assert!(world.shares()[1] > 0.21, "{:?}", world.shares());
}

#[test]
fn a_burst_is_forgotten() {
    let mut world = World::new(equal(8), 800.0, 4);
    world.run(20.0);
    world.rate = 2400.0;
    world.run(5.0);
    world.rate = 800.0;
    world.run(30.0);
    for told in &world.told {
        assert!((told.limited - 1.0).abs() < 0.1, "{told:?}");
    }
    assert!(world.quantile(world.now - 5.0, 0.99) < 0.05);
}

#[test]
fn equal_servers_get_equal_shares() {
    for seed in 1..=4 {
        let mut world = World::new(equal(4), 560.0, seed);
        world.run(120.0);
        let mean = |n: usize| world.history[60..].iter().map(|shares| shares[n]).sum::<f64>() / 60.0;
        let shares: Vec<f64> = (0..4).map(mean).collect();
        // Jain's index of fairness.
        let index = 1.0 / (4.0 * shares.iter().map(|share| share * share).sum::<f64>());
        assert!(index > 0.995, "{index}: {shares:?}");
    }
}

#[test]
fn a_queue_that_grows_is_answered_in_the_same_tick() {
    let mut world = World::new(equal(8), 100.0, 1);
    world.run(5.0);
    assert!(world.told.iter().all(|told| told.depth == 0.0));
    let before = world.shares()[2];
    // Nobody takes anything out for a while: its ring fills.
    let now = world.now;
    if let Model::Workers(queue, ..) = &mut world.servers[2].model {
        for _ in 0..8 + 256 + 300 {
            queue.arrive(now, 2.0);
        }
    }
    world.run(0.01);
    assert!(world.told[2].inputs.fill.unwrap().value > 0.2);
    assert!(world.shares()[2] < 0.75 * before, "{:?}", world.shares());
    assert!(world.told.iter().all(|told| told.factor <= CEILING));
}

/// What the kernel tells of is looked at while the frames still come: of the queue there is hardly one frame too many.
#[test]
fn the_first_frame_too_many_is_written() {
    for targets in 2..=4 {
        let mut world = World::new(equal(8).into_iter().take(targets).collect(), 100.0, 1);
        world.run(20.0);
        let (before, writes, now) = (world.shares()[1], world.writes, world.now);
        if let Model::Workers(queue, ..) = &mut world.servers[1].model {
            for _ in 0..8 + 256 + 51 {
                queue.arrive(now, 2.0);
            }
        }
        world.run(0.01);
        let fill = world.told[1].inputs.fill.unwrap().value;
        assert!(fill > 0.05 && fill < 0.053, "{fill}");
        assert!(
            world.writes > writes && world.shares()[1] < 0.98 * before,
            "{targets}: {:?}",
            world.shares()
        );
    }
}

#[test]
fn nobody_told_anything_means_the_configured_weights() {
    let (servers, _) = waiting();
    let mut world = World::new(servers, 900.0, 9);
    world.run(40.0);
    let before = world.shares();
    assert!(before[3] < 0.15, "{before:?}");
    for server in &mut world.servers {
        server.told = false;
    }
    world.run(4.0);
    for (now, before) in world.shares().iter().zip(&before) {
        assert!((now / before - 1.0).abs() < 0.06, "held: {:?} {before:?}", world.shares());
    }
    world.run(80.0);
    assert!(world.shares().iter().all(|share| (share - 0.25).abs() < 0.005), "{:?}", world.shares());
}
