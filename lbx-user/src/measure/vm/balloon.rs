//! What the guest's balloon driver tells: `guest-stats` of the balloon device (QEMU's docs/interop/virtio-balloon-stats.rst).

use std::time::Instant;

use serde_json::Value;

use crate::measure::rate::Counters;

/// Statistics as the guest told them last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// When, in seconds of QEMU's wall clock; only compared for equality, so that a step of it changes nothing.
    pub told: u64,
    /// Memory of the guest, in bytes.
    pub total: Option<u64>,
    /// Of this, what programs could still get without swapping.
    pub available: Option<u64>,
    /// Swapped in and out since the guest booted, in bytes.
    pub swapped: Option<u64>,
}

/// Reads the answer to `qom-get`; none while the guest has not told anything.
pub fn stats(answer: &Value) -> Option<Stats> {
    let told = answer["last-update"].as_u64().filter(|told| *told > 0)?;
    // What a guest does not know is all ones.
    let of = |name: &str| answer["stats"][name].as_u64().filter(|value| *value != u64::MAX);
    let swapped = of("stat-swap-in").zip(of("stat-swap-out"));
    Some(Stats {
        told,
        total: of("stat-total-memory").filter(|total| *total > 0),
        // Guests before Linux 4.6 do not say what is available; free is less than that, never more.
        available: of("stat-available-memory").or_else(|| of("stat-free-memory")),
        swapped: swapped.map(|(r#in, out)| r#in.saturating_add(out)),
    })
}

impl Stats {
    /// The share of the memory in use.
    pub fn used(&self) -> Option<f64> {
        let (total, available) = (self.total?, self.available?);
        Some(1.0 - available.min(total) as f64 / total as f64)
    }
}

/// Follows the statistics of one guest: each is news once.
#[derive(Debug, Default)]
pub struct Follow {
    told: Option<u64>,
    counters: Counters,
}

impl Follow {
    /// What is new: share of memory in use, and bytes swapped per second.
    pub fn hear(&mut self, stats: &Stats, at: Instant) -> Option<(Option<f64>, Option<f64>)> {
        if self.told == Some(stats.told) {
            return None;
        }
        self.told = Some(stats.told);
        let paging = stats.swapped.and_then(|bytes| self.counters.per_second("swapped", at, bytes));
        Some((stats.used(), paging))
    }
}

/// The path of the balloon device among the children of a QOM container: `(name, type)`.
pub fn device<'a>(children: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<&'a str> {
    let mut children = children.into_iter();
    children.find(|(_, kind)| kind.starts_with("child<virtio-balloon")).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn answer(told: u64, swapped: u64) -> Value {
        json!({ "last-update": told, "stats": {
            "stat-total-memory": 1000, "stat-available-memory": 250, "stat-free-memory": 100,
            "stat-swap-in": swapped, "stat-swap-out": 0, "stat-disk-caches": u64::MAX,
        }})
    }

    #[test]
    fn each_report_of_a_guest_is_news_once() {
        let (mut follow, start) = (Follow::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(stats(&answer(0, 0)), None, "nothing told yet");
        let first = stats(&answer(5, 1000)).unwrap();
        assert_eq!(follow.hear(&first, at(0)), Some((Some(0.75), None)));
        assert_eq!(follow.hear(&first, at(1)), None);
        let second = stats(&answer(7, 3000)).unwrap();
        assert_eq!(follow.hear(&second, at(2)), Some((Some(0.75), Some(1000.0))));
    }

    #[test]
    fn a_guest_may_know_little() {
        let old = json!({ "last-update": 1, "stats": {
            "stat-total-memory": 1000, "stat-available-memory": u64::MAX, "stat-free-memory": 400 } });
        assert_eq!(stats(&old).unwrap().used(), Some(0.6));
        assert_eq!(stats(&old).unwrap().swapped, None);
        let nothing = stats(&json!({ "last-update": 1, "stats": {} })).unwrap();
        assert_eq!((nothing.used(), nothing.swapped), (None, None));
        assert_eq!(stats(&json!(null)), None);
        let lying =
            json!({ "last-update": 1, "stats": { "stat-total-memory": 5, "stat-available-memory": 9 } });
        assert_eq!(stats(&lying).unwrap().used(), Some(0.0));
    }

    #[test]
    fn the_balloon_is_found_by_its_type() {
        let children = [("net0", "child<virtio-net-pci>"), ("balloon0", "child<virtio-balloon-pci>")];
        assert_eq!(device(children), Some("balloon0"));
        assert_eq!(device(children[..1].iter().copied()), None);
    }
}
