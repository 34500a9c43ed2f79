//! Who is where in the kernel's tables: the queues of a device follow one another.

use lbx_common::queue::{MAX_RINGS, Run};

/// Places taken.
#[derive(Debug, Default)]
pub struct Places {
    taken: Vec<bool>,
}

impl Places {
    /// Takes the first `count` free places in a row.
    pub fn take(&mut self, count: u32) -> Option<Run> {
        let count = count.max(1);
        let mut free = 0;
        for place in 0..MAX_RINGS {
            free = if self.taken.get(place as usize).copied().unwrap_or(false) { 0 } else { free + 1 };
            if free == count {
                let end = place as usize + 1;
                let first = end - count as usize;
                self.taken.resize(self.taken.len().max(end), false);
                self.taken[first..end].fill(true);
                return Some(Run { first: first as u32, count });
            }
        }
        None
    }

    /// Gives them back.
    pub fn give_back(&mut self, run: Run) {
        self.taken[run.first as usize..(run.first + run.count) as usize].fill(false);
        while self.taken.last() == Some(&false) {
            self.taken.pop();
        }
    }

    /// Places up to the last one taken.
    pub fn len(&self) -> u32 {
        self.taken.len() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_do_not_overlap_and_gaps_are_used_again() {
        let mut places = Places::default();
        let all: Vec<Run> = (1..=8).map(|count| places.take(count).unwrap()).collect();
        assert_eq!(all.iter().map(|run| run.first).collect::<Vec<_>>(), [0, 1, 3, 6, 10, 15, 21, 28]);
        places.give_back(all[3]);
        assert_eq!(places.take(5).unwrap().first, 36, "the gap is too small");
        assert_eq!(places.take(3).unwrap().first, 6);
        assert_eq!((places.take(1).unwrap().first, places.len()), (9, 41));
    }

    #[test]
    fn there_is_an_end() {
        let mut places = Places::default();
        assert_eq!(places.take(MAX_RINGS + 1), None);
        let all = places.take(MAX_RINGS).unwrap();
        assert_eq!(places.take(1), None);
        places.give_back(all);
        assert_eq!(places.len(), 0);
        assert!(places.take(1).is_some());
    }
}
