//! Real clients: blocking sockets on threads inside a client's namespace.

pub mod http;
pub mod load;
pub mod long;
pub mod socket;
pub mod transfer;
pub mod udp;

use std::collections::BTreeMap;

/// How many of something each VM got, by the name the VM gave.
pub type PerVm = BTreeMap<String, u64>;

/// The share of each VM in a count, 0 to 1.
pub fn shares(counts: &PerVm) -> BTreeMap<String, f64> {
    let total: u64 = counts.values().sum();
    counts.iter().map(|(vm, n)| (vm.clone(), *n as f64 / total.max(1) as f64)).collect()
}

/// The largest difference, in percentage points, between measured shares and those that `weights` ask for.
/// A VM that only one side knows counts as 0 on the other.
pub fn worst_deviation(counts: &PerVm, weights: &BTreeMap<String, u32>) -> f64 {
    let got = shares(counts);
    let total: f64 = weights.values().map(|w| f64::from(*w)).sum();
    let wanted = |vm: &str| weights.get(vm).map_or(0.0, |w| f64::from(*w) / total);
    let vms = got.keys().chain(weights.keys());
    vms.map(|vm| (got.get(vm).copied().unwrap_or(0.0) - wanted(vm)).abs() * 100.0).fold(0.0, f64::max)
}

/// Keeps the first few messages of many, so that a report stays readable.
pub(crate) fn note(errors: &mut Vec<String>, message: String) {
    if errors.len() < 10 {
        errors.push(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviation_is_in_points() {
        let counts = PerVm::from([("a".into(), 100), ("b".into(), 300)]);
        let weights = BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 2), ("c".to_owned(), 1)]);
        assert!((worst_deviation(&counts, &weights) - 25.0).abs() < 1e-9);
        assert!((shares(&counts)["b"] - 0.75).abs() < 1e-9);
    }
}
