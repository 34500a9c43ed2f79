//! What VMs are doing on this host, as their monitors said last.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lbx_common::migration::Here;

/// By process id and start time.
type Said = BTreeMap<(u32, u64), Fact>;

#[derive(Debug, Clone, Copy, Default)]
struct Fact {
    here: Option<Here>,
    has_run: bool,
}

/// What was said last, for everybody who wants to know. Whoever hears a monitor writes here before it says so.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<Mutex<Said>>);

impl Board {
    fn lock(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A monitor says what its VM is doing; `None`: it is not to be heard any more.
    pub fn set(&self, pid: u32, start_time: u64, here: Option<Here>) {
        let mut said = self.lock();
        let fact = said.entry((pid, start_time)).or_default();
        fact.here = here;
        fact.has_run |= here.and_then(Here::runs) == Some(true);
    }

    /// What a VM is doing, if its monitor says.
    pub fn get(&self, pid: u32, start_time: u64) -> Option<Here> {
        self.lock().get(&(pid, start_time)).and_then(|fact| fact.here)
    }

    /// Somebody else than its monitor knows that it runs.
    pub fn runs(&self, pid: u32, start_time: u64) {
        self.lock().entry((pid, start_time)).or_default().has_run = true;
    }

    /// Whether it has run here: a process that was started to be sent a VM has one by now.
    pub fn has_run(&self, pid: u32, start_time: u64) -> bool {
        self.lock().get(&(pid, start_time)).is_some_and(|fact| fact.has_run)
    }

    /// Forgets processes that are gone.
    pub fn keep(&self, is: impl Fn(u32, u64) -> bool) {
        self.lock().retain(|(pid, start_time), _| is(*pid, *start_time));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_run_is_remembered() {
        let board = Board::default();
        board.set(1, 7, Some(Here::Incoming));
        assert!(!board.has_run(1, 7));
        board.clone().set(1, 7, Some(Here::Running));
        board.set(1, 7, None);
        assert_eq!((board.get(1, 7), board.has_run(1, 7)), (None, true));
        assert!(!board.has_run(1, 8), "another process");
        board.keep(|pid, _| pid != 1);
        assert!(!board.has_run(1, 7));
    }
}
