//! What looks at the queues cost, and how often they are made therefore.

use std::time::{Duration, Instant};

/// Looks take at most one part in this of a core: with many queues they are made less often. A queue that is not looked at
/// for long is cold: 0.2 µs and more each, several times what it takes in a loop.
const SPARING: u32 = 50;
/// They are made at most this many times less often.
const SELDOM: u32 = 4;
/// What they take is taken over so long.
const SPAN: Duration = Duration::from_secs(2);

/// What looks cost.
#[derive(Debug, Default)]
pub struct Looks {
    // CPU time of one, in the mean over the last whole span: now and then one does more than the others.
    mean: Duration,
    since: Option<Instant>,
    spent: Duration,
    count: u32,
}

impl Looks {
    /// Another one was made, and took so much CPU time.
    pub fn add(&mut self, now: Instant, spent: Duration) {
        let since = *self.since.get_or_insert(now);
        self.spent += spent;
        self.count += 1;
        if now.saturating_duration_since(since) >= SPAN {
            *self = Self { mean: self.spent / self.count, ..Self::default() };
        }
    }

    /// Time from one to the next, where `wanted` is wanted.
    pub fn interval(&self, wanted: Duration) -> Duration {
        (self.mean * SPARING).clamp(wanted, wanted * SELDOM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_queues_are_looked_at_less_often() {
        let (ms, us) = (Duration::from_millis, Duration::from_micros);
        let stretched = |wanted, mean| Looks { mean, ..Looks::default() }.interval(wanted);
        assert_eq!(stretched(ms(5), us(20)), ms(5));
        assert_eq!(stretched(ms(5), us(160)), ms(8));
        assert_eq!(stretched(ms(5), ms(3)), ms(20), "but not for ever");
        assert_eq!(stretched(ms(100), us(160)), ms(100));
    }

    #[test]
    fn a_look_that_does_more_now_and_then_makes_none_rare() {
        let (start, mut looks, wanted) = (Instant::now(), Looks::default(), Duration::from_millis(5));
        for n in 0..2000 {
            let spent = Duration::from_micros(if n % 200 == 0 { 3000 } else { 20 });
            looks.add(start + wanted * n, spent);
            assert_eq!(looks.interval(wanted), wanted, "{looks:?}");
        }
        assert!(looks.mean > Duration::from_micros(30), "{looks:?}");
    }
}
