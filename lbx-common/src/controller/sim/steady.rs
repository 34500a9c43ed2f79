//! Constant load, for ten minutes: weights settle within ten seconds, and then stay.

use super::World;
use super::world::Server;

/// When weights have settled, seconds.
const SETTLED: usize = 10;
/// By how much of itself a share may move then.
const STILL: f64 = 0.05;

/// The largest distance of a target's share from its median, as a share of that, over ten minutes.
fn movements(servers: Vec<Server>, rate: f64, seed: u64) -> Vec<f64> {
    let targets = servers.len();
    let mut world = World::new(servers, rate, seed);
    world.run(600.0);
    (0..targets).map(|target| world.movement(target, SETTLED)).collect()
}

#[test]
fn equal_servers_keep_their_shares() {
    for load in [0.4, 0.7, 0.9] {
        for seed in 1..=3 {
            let servers = (0..4).map(|_| Server::workers(8, 0.02, false)).collect();
            let moved = movements(servers, load * 1600.0, seed);
            assert!(moved.iter().all(|moved| *moved < STILL), "load {load}, seed {seed}: {moved:?}");
        }
    }
}

/// Times that vary, and few workers: what is measured of them varies far more.
#[test]
fn servers_that_vary_keep_their_shares() {
    for load in [0.4, 0.7] {
        for seed in 1..=3 {
            let servers = (0..4).map(|_| Server::workers(4, 0.02, true)).collect();
            let moved = movements(servers, load * 800.0, seed);
            assert!(moved.iter().all(|moved| *moved < STILL), "load {load}, seed {seed}: {moved:?}");
        }
    }
}

/// What `bench steady` does with real guests.
#[test]
fn guests_of_which_one_is_slow_keep_their_shares() {
    for load in [0.4, 0.7] {
        for seed in 1..=3 {
            let guests = [0.04, 0.04, 0.04, 0.16].map(|service| Server::workers(4, service, false));
            let mut world = World::new(guests.into(), load * 325.0, seed);
            world.run(600.0);
            let moved: Vec<f64> = (0..4).map(|target| world.movement(target, SETTLED)).collect();
            assert!(moved[..3].iter().all(|moved| *moved < STILL), "load {load}, seed {seed}: {moved:?}");
            // The slow one is left with next to nothing, of which a little is much.
            let slow = world.history[SETTLED..].iter().map(|shares| shares[3]);
            let (low, high) = slow.fold((1.0_f64, 0.0_f64), |(low, high), one| (low.min(one), high.max(one)));
            assert!(high - low < STILL, "load {load}, seed {seed}: from {low} to {high}");
        }
    }
}
