//! The last second of a queue: how fast it was emptied, what was refused, how deep it got.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Figures are of about this long.
const SPAN: Duration = Duration::from_secs(1);
/// In steps of this.
const STEP: Duration = Duration::from_millis(200);

/// A queue's counters at the start of a step, and its peak in it.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Instant,
    taken: u64,
    drops: u64,
    peak: u32,
}

/// The last second.
#[derive(Debug, Clone, Default)]
pub struct History {
    marks: VecDeque<Mark>,
}

impl History {
    /// Notes counters (growing) and the depth or peak at a time.
    pub fn note(&mut self, at: Instant, taken: u64, drops: u64, peak: u32) {
        if let Some(last) = self.marks.back_mut() {
            if taken < last.taken || drops < last.drops {
                // Counters that went back are those of another queue.
                self.marks.clear();
            } else if at.saturating_duration_since(last.at) < STEP {
                last.peak = last.peak.max(peak);
                return;
            }
        }
        self.marks.push_back(Mark { at, taken, drops, peak });
        // One mark is left that is as old as the span, or older.
        while self.marks.get(1).is_some_and(|second| at.saturating_duration_since(second.at) >= SPAN) {
            self.marks.pop_front();
        }
    }

    /// Frames taken and dropped per second, up to counters at a time. None while there is less than a step.
    pub fn rates(&self, at: Instant, taken: u64, drops: u64) -> Option<(f64, f64)> {
        let first = self.marks.front()?;
        let span = at.saturating_duration_since(first.at);
        if span < STEP {
            return None;
        }
        let per_second = |now: u64, then: u64| now.saturating_sub(then) as f64 / span.as_secs_f64();
        Some((per_second(taken, first.taken), per_second(drops, first.drops)))
    }

    /// The deepest it was.
    pub fn peak(&self) -> u32 {
        self.marks.iter().map(|mark| mark.peak).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_last_second() {
        let (mut history, start) = (History::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(history.rates(at(0), 0, 0), None);
        // 100 frames taken and 1 dropped in 10 ms, for 3 s; then nothing.
        for n in 0..300 {
            history.note(at(10 * n), 100 * n, n, if n == 50 { 900 } else { 20 });
            if n == 10 {
                assert_eq!(history.rates(at(100), 1000, 10), None, "too short to say");
            }
        }
        let (taken, drops) = history.rates(at(2990), 29_900, 299).unwrap();
        assert!((taken - 10_000.0).abs() < 1.0 && (drops - 100.0).abs() < 0.1, "{taken} {drops}");
        assert_eq!(history.peak(), 20, "the peak is long ago");
        for n in 300..450 {
            history.note(at(10 * n), 29_900, 299, 0);
        }
        assert_eq!(history.rates(at(4490), 29_900, 299), Some((0.0, 0.0)));
        assert_eq!(history.peak(), 0);
        assert!(history.marks.len() <= 7);
    }

    #[test]
    fn another_queue_begins_anew() {
        let (mut history, start) = (History::default(), Instant::now());
        history.note(start, 5000, 0, 10);
        history.note(start + STEP, 100, 0, 3);
        assert_eq!(history.rates(start + 2 * STEP, 300, 0), Some((1000.0, 0.0)));
        assert_eq!(history.peak(), 3);
    }
}
