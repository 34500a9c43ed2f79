//! A queue that grows is told of by the kernel: the weight follows at once, not at the next look.

use std::thread::sleep;
use std::time::{Duration, Instant};

use lbx_tests::scenario::need_root;
use lbx_tests::unread::{SHALLOW, Unread, name, send};
use serde_json::Value;

/// Looks that nobody asks for are this far apart: the longest that the config allows.
const EVERY: Duration = Duration::from_secs(10);
/// Far more than it takes, for machines that have other things to do.
const PATIENCE: Duration = Duration::from_mins(1);
/// Frames sent at once: more than a burst.
const FRAMES: usize = 3 * SHALLOW;

/// What `lbx queues` says, and the row of one target.
fn queues(place: &Unread, n: usize) -> (Value, Value) {
    let all = place.scenario.lbx().json(&["queues"]).unwrap();
    let row = all["queues"].as_array().unwrap().iter().find(|row| row["nic"] == name(n).as_str()).cloned();
    (all, row.unwrap_or_default())
}

/// Milliseconds since the last look.
fn age(place: &Unread) -> Duration {
    let age = queues(place, 0).1["age_ms"].as_f64().unwrap();
    Duration::from_secs_f64(age / 1000.0)
}

#[test]
fn a_queue_that_the_kernel_tells_of_costs_weight_before_the_next_look() {
    need_root();
    let top = "[measure]\nqueues = \"10s\"\n";
    let mut place = Unread::start(2, top).unwrap();
    let flows = place.flows().unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Just after a look, so that the next one is far.
        while age(&place) > EVERY / 2 {
            sleep(Duration::from_millis(100));
        }
        let begin = Instant::now();
        let next = begin + EVERY.saturating_sub(age(&place));
        let (before, told) = (place.weight(0).unwrap(), queues(&place, 0).0["told"].as_u64().unwrap());
        for _ in 0..FRAMES {
            send(&flows[0]).unwrap();
        }
        while Instant::now() < next && place.weight(0).unwrap() > 0.98 * before {
            sleep(Duration::from_millis(1));
        }
        let (after, in_time) = (place.weight(0).unwrap(), Instant::now() < next);
        let (all, row) = queues(&place, 0);
        let more = all["told"].as_u64().unwrap() - told;
        let says = format!("weight {before} then {after}, told {more} times, {row}");
        // A machine that stands still for seconds has another try.
        if in_time && after <= 0.98 * before && more > 0 {
            assert!(row["depth"].as_u64().unwrap() > SHALLOW as u64, "{says}");
            break;
        }
        assert!(Instant::now() < deadline, "nothing came of a queue: {says}\n{}", place.scenario.story());
        place.take(0);
    }
    let shown = place.scenario.lbx().cli(&["queues"]).unwrap();
    assert!(shown.contains("when the kernel tells of one that grows"), "{shown}");
    assert_eq!(place.take(0), FRAMES);
}
