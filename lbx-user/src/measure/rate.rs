//! Counters become rates.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Two looks closer together than this say nothing about a rate.
const CLOSE: Duration = Duration::from_millis(1);

/// Remembers what counters stood at, by name.
#[derive(Debug, Clone, Default)]
pub struct Counters(BTreeMap<String, (Instant, u64)>);

impl Counters {
    /// How much a counter grew per second since it was last seen. Nothing the first time, and nothing if it went
    /// backwards: then it is another counter by the same name, and counting starts anew.
    pub fn per_second(&mut self, name: &str, at: Instant, value: u64) -> Option<f64> {
        let Some((seen, before)) = self.0.get_mut(name) else {
            self.0.insert(name.to_owned(), (at, value));
            return None;
        };
        let passed = at.saturating_duration_since(*seen);
        if passed < CLOSE {
            return None;
        }
        let grown = value.checked_sub(*before);
        (*seen, *before) = (at, value);
        Some(grown? as f64 / passed.as_secs_f64())
    }

    /// Forgets every counter.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_two_looks_and_a_counter_that_grows() {
        let (mut counters, start) = (Counters::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(counters.per_second("a", at(0), 100), None);
        assert_eq!(counters.per_second("b", at(0), 7), None);
        assert_eq!(counters.per_second("a", at(500), 150), Some(100.0));
        assert_eq!(counters.per_second("a", at(500), 151), None, "no time has passed");
        assert_eq!(counters.per_second("a", at(1_500), 160), Some(10.0));
        assert_eq!(counters.per_second("a", at(2_500), 3), None, "it was reset");
        assert_eq!(counters.per_second("a", at(3_500), 5), Some(2.0));
        assert_eq!(counters.per_second("b", at(2_000), 7), Some(0.0));
        counters.clear();
        assert_eq!(counters.per_second("b", at(3_000), 9), None);
    }
}
