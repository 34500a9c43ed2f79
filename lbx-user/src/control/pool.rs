//! Runs of a pool: which part of an array belongs to whom.

use std::ops::Range;

/// A pool of `len` elements handed out in runs, first fit. It is rebuilt from the maps at every pass, so there
/// is nothing to leak.
#[derive(Debug, Clone)]
pub struct Pool {
    len: u32,
    /// Taken runs, sorted by their start.
    taken: Vec<Range<u32>>,
}

impl Pool {
    /// A pool with nothing taken.
    pub const fn new(len: u32) -> Self {
        Self { len, taken: Vec::new() }
    }

    /// Marks a run as taken; `false` if it overlaps another or leaves the pool, so it cannot be trusted.
    pub fn take(&mut self, first: u32, len: u32) -> bool {
        let Some(end) = first.checked_add(len).filter(|end| *end <= self.len) else { return false };
        if len == 0 {
            return true;
        }
        let at = self.taken.partition_point(|run| run.start < first);
        let clear_before = at == 0 || self.taken[at - 1].end <= first;
        let clear_after = self.taken.get(at).is_none_or(|run| end <= run.start);
        if clear_before && clear_after {
            self.taken.insert(at, first..end);
        }
        clear_before && clear_after
    }

    /// Takes the first gap that is large enough.
    pub fn allocate(&mut self, len: u32) -> Option<u32> {
        let mut start = 0;
        for run in &self.taken {
            if run.start - start >= len {
                break;
            }
            start = run.end;
        }
        (start.checked_add(len)? <= self.len && self.take(start, len)).then_some(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_found_and_overlaps_refused() {
        let mut pool = Pool::new(100);
        assert!(pool.take(10, 20));
        assert!(!pool.take(29, 5));
        assert!(!pool.take(5, 6));
        assert!(!pool.take(90, 11));
        assert!(pool.take(30, 10));
        assert_eq!(pool.allocate(10), Some(0));
        assert_eq!(pool.allocate(60), Some(40));
        assert_eq!(pool.allocate(1), None);
    }

    #[test]
    fn an_empty_run_takes_nothing() {
        let mut pool = Pool::new(4);
        assert!(pool.take(2, 0));
        assert_eq!(pool.allocate(4), Some(0));
    }
}
