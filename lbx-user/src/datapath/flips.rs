//! State words of targets, and the one way past the writer: a monitor that hears STOP stores them at once.
//!
//! What it stored is held until the writer has heard of it too; till then the writer's own stores of that word,
//! which rest on older news, are passed over.

use super::clock::Clock;
use super::error::Result;
use super::mmap::Array;
use lbx_common::target::{State, StateWord, Target};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The targets, and how many stores past the writer each index still waits for it.
pub(super) struct Words {
    pub(super) targets: Array<Target>,
    held: Mutex<BTreeMap<u32, u32>>,
}

impl Words {
    pub(super) fn new(targets: Array<Target>) -> Self {
        Self { targets, held: Mutex::default() }
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<u32, u32>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self, index: u32, state: StateWord) -> Result<()> {
        self.targets.word64(index, 0)?.store(state.0, Ordering::Release);
        Ok(())
    }

    /// The writer's store: one word.
    pub(super) fn set_state(&self, index: u32, state: StateWord) -> Result<()> {
        let held = self.held();
        if held.contains_key(&index) { Ok(()) } else { self.store(index, state) }
    }

    /// The writer's store of everything. If the index passes to another target (another generation), it is down
    /// meanwhile, and nobody holds it any more.
    pub(super) fn write_target(&self, index: u32, target: &Target) -> Result<()> {
        let mut held = self.held();
        let now = self.targets.get(index)?;
        if now.generation != target.generation {
            held.remove(&index);
            self.store(index, StateWord::new(State::Down))?;
        }
        let state = if held.contains_key(&index) { now.state } else { target.state };
        self.targets.set(index, &Target { state, ..*target })
    }
}

/// What is to be stored when something happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flip {
    /// The target's index.
    pub index: u32,
    /// Its generation: another target of that index is left alone.
    pub generation: u8,
    /// The state.
    pub state: State,
    /// What it falls back to.
    pub fallback: State,
    /// When.
    pub deadline: Option<Duration>,
}

/// The way past the writer.
#[derive(Clone)]
pub struct Flips {
    words: Arc<Words>,
    clock: Arc<Clock>,
}

impl std::fmt::Debug for Flips {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Flips")
    }
}

impl Flips {
    pub(super) fn new(words: Arc<Words>, clock: Clock) -> Self {
        Self { words, clock: Arc::new(clock) }
    }

    /// Stores all of them; the indices that were, which have to be released once the writer knows.
    ///
    /// # Errors
    /// The clock could not be read. Nothing was stored then.
    pub fn flip(&self, flips: &[Flip]) -> Result<Vec<u32>> {
        let deadlines = flips.iter().any(|flip| flip.deadline.is_some());
        let now = if deadlines { self.clock.jiffies_now()? } else { 0 };
        let mut held = self.words.held();
        let mut stored = Vec::with_capacity(flips.len());
        for flip in flips {
            if self.words.targets.get(flip.index)?.generation != flip.generation {
                continue;
            }
            let word = match flip.deadline {
                None => StateWord::new(flip.state),
                Some(after) => {
                    let deadline = now.wrapping_add(self.clock.rate().jiffies(after).max(1));
                    StateWord::until(flip.state, flip.fallback, deadline)
                }
            };
            self.words.store(flip.index, word)?;
            *held.entry(flip.index).or_default() += 1;
            stored.push(flip.index);
        }
        Ok(stored)
    }

    /// The writer knows of what was stored.
    pub fn release(&self, indices: &[u32]) {
        let mut held = self.words.held();
        for index in indices {
            if let Some(count) = held.get_mut(index) {
                *count -= 1;
                if *count == 0 {
                    held.remove(index);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_writer_waits_for_its_news() {
        let words = Words::new(Array::anonymous("targets", 4).unwrap());
        let one = |state| Target { state: StateWord::new(state), generation: 3, ..Target::default() };
        words.write_target(1, &one(State::Active)).unwrap();
        words.held().insert(1, 1);
        words.store(1, StateWord::new(State::Blackholed)).unwrap();
        words.set_state(1, StateWord::new(State::Draining)).unwrap();
        words.write_target(1, &Target { mtu: 9, ..one(State::Draining) }).unwrap();
        let now = words.targets.get(1).unwrap();
        assert_eq!((now.state, now.mtu), (StateWord::new(State::Blackholed), 9));
        words.held().clear();
        words.set_state(1, StateWord::new(State::Draining)).unwrap();
        assert_eq!(words.targets.get(1).unwrap().state, StateWord::new(State::Draining));
        // Another target of that index is nobody's business but the writer's.
        words.held().insert(1, 1);
        words.write_target(1, &Target { generation: 4, ..one(State::Active) }).unwrap();
        assert_eq!(words.targets.get(1).unwrap().state, StateWord::new(State::Active));
        assert!(words.held().is_empty());
    }
}
