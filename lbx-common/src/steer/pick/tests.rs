//! The choice against its definition in other arithmetic, and against what it is for: a queueing model.

use super::*;
use proptest::prelude::*;

/// The definition, by exact fractions.
fn model(first: &Load, second: &Load) -> bool {
    let known = first.depth.is_some() && second.depth.is_some();
    let length = |load: &Load| {
        let frames = if known { load.depth.unwrap() } else { 0 };
        (u128::from(load.open) + u128::from(frames)).min(u128::from(u32::MAX))
    };
    match (first.weight, second.weight) {
        (_, 0) => false,
        (0, _) => true,
        // a / v > b / w, each side times v * w.
        (v, w) => length(first) * u128::from(w) > length(second) * u128::from(v),
    }
}

fn load() -> impl Strategy<Value = Load> {
    let number = || prop_oneof![0..20_u32, any::<u32>()];
    (prop::option::of(number()), number(), number()).prop_map(|(depth, open, weight)| Load {
        depth,
        open,
        weight,
    })
}

proptest! {
    #[test]
    fn the_choice_is_its_definition(first in load(), second in load()) {
        prop_assert_eq!(second_is_shorter(&first, &second), model(&first, &second));
        // Never both ways: whoever is asked first, one of the two is not preferred.
        prop_assert!(!(second_is_shorter(&first, &second) && second_is_shorter(&second, &first)));
    }
}

#[test]
fn lengths_are_per_weight_and_need_both_depths() {
    let load = |depth, open, weight| Load { depth, open, weight };
    let shorter = |first, second| second_is_shorter(&first, &second);
    assert!(!shorter(load(Some(0), 0, 1), load(Some(0), 0, 9)), "equal: the weights decide");
    assert!(!shorter(load(Some(10), 0, 2), load(Some(5), 0, 1)), "twice the weight, twice the length");
    assert!(shorter(load(Some(11), 0, 2), load(Some(5), 0, 1)));
    assert!(shorter(load(Some(0), 8, 1), load(Some(3), 4, 1)), "frames and flows together");
    assert!(!shorter(load(Some(500), 3, 1), load(None, 3, 1)), "one depth is none");
    assert!(shorter(load(None, 4, 1), load(Some(500), 3, 1)));
    assert!(!shorter(load(Some(9), 9, 1), load(Some(0), 0, 0)), "no weight, no flow");
    assert!(shorter(load(Some(0), 0, 0), load(Some(9), 9, 1)));
}

/// Uniform numbers (splitmix64, Steele and others 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, end: f64) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) as f64 / 2_f64.powi(64) * end
    }
}

/// Requests in the system, seen by each arrival, of servers with these rates and weights: Poisson arrivals at `load` of
/// what they can serve, exponential service. Answers the 99th percentile of the length (per rate) an arrival joins.
fn waiting(rates: &[f64], weights: &[u32], load: f64, choices: bool) -> f64 {
    let (mut random, total) = (Random(7), rates.iter().sum::<f64>());
    let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    let mut open = vec![0_u32; rates.len()];
    let mut joined = Vec::new();
    let draw = |random: &mut Random| {
        let mut at = random.below(sum);
        weights
            .iter()
            .position(|weight| {
                at -= f64::from(*weight);
                at < 0.0
            })
            .unwrap_or(weights.len() - 1)
    };
    for _ in 0..400_000 {
        // Uniformisation: an event is an arrival, or the end of a service if that server is busy.
        let mut event = random.below(total * (1.0 + load));
        if event < total * load {
            let first = draw(&mut random);
            let second = draw(&mut random);
            let of = |n: usize| Load { depth: Some(0), open: open[n], weight: weights[n] };
            let to = if choices && second_is_shorter(&of(first), &of(second)) { second } else { first };
            joined.push(f64::from(open[to]) / rates[to]);
            open[to] += 1;
            continue;
        }
        event -= total * load;
        for (server, rate) in rates.iter().enumerate() {
            if event < *rate {
                open[server] = open[server].saturating_sub(1);
                break;
            }
            event -= rate;
        }
    }
    joined.sort_by(f64::total_cmp);
    joined[joined.len() * 99 / 100]
}

#[test]
fn two_choices_shorten_the_queues_that_one_leaves() {
    // Theory: with n equal servers at load p, one choice has lengths above k with p^k, two with p^(2^k - 1).
    let equal = [1.0; 16];
    let (one, two) = (waiting(&equal, &[1; 16], 0.9, false), waiting(&equal, &[1; 16], 0.9, true));
    assert!(one > 25.0 && two < 8.0, "99 of 100 join at most {one} with one choice, {two} with two");
    // One server has a quarter of its speed, and nobody told the weights.
    let (rates, weights) = ([1.0, 1.0, 1.0, 0.25], [1; 4]);
    let (one, two) = (waiting(&rates, &weights, 0.7, false), waiting(&rates, &weights, 0.7, true));
    assert!(one > 10.0 * two, "a slow server: {one} with one choice, {two} with two");
}
