//! What every owner wishes for every target, held by name.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lbx_common::migration::Want;
use lbx_common::target::State;
use lbx_common::wish::{Effective, Owner, Weight, Wish, Wishes, rank};

use super::desired::StateWant;

/// How long a blackhole stands without the daemon.
pub const BLACKHOLE: Duration = Duration::from_secs(5);

/// Standing wishes: a blackhole among them is renewed for as long as it stands.
#[derive(Debug, Clone, Default)]
pub struct WishBook(BTreeMap<String, Held>);

#[derive(Debug, Clone, Default)]
struct Held {
    states: BTreeMap<Owner, State>,
    weight: Option<u32>,
    /// What migration leaves of the weight, in thousandths.
    share: Option<u16>,
    /// What it blackholes comes to at least this when the deadline passes.
    falls_back: Option<State>,
    /// What is sent on waits at its new host, which may not come to run it: so that ends by itself too.
    waits: bool,
}

impl WishBook {
    /// An owner wishes a state, or nothing any more. Whether that is news.
    pub fn set_state(&mut self, target: &str, owner: Owner, state: Option<State>) -> bool {
        let held = self.0.entry(target.to_owned()).or_default();
        match state {
            Some(state) => held.states.insert(owner, state) != Some(state),
            None => held.states.remove(&owner).is_some(),
        }
    }

    /// Migration wants something of a target. `falls_back`: what a blackhole is to come to where it ends without the
    /// daemon. Whether that is news, and whether it concerns the weight.
    pub fn set_migration(&mut self, target: &str, want: Want, falls_back: State) -> (bool, bool) {
        let wish = want.wish(1);
        let state = wish.map(Wish::state).filter(|state| *state != State::Active);
        let share = wish.and_then(|wish| match wish.weight() {
            Weight::Scale(share) => Some(share),
            _ => None,
        });
        let changed = self.set_state(target, Owner::Migration, state);
        let held = self.0.entry(target.to_owned()).or_default();
        let falls_back = Some(falls_back).filter(|_| matches!(want, Want::Blackhole | Want::Hold));
        let end = std::mem::replace(&mut held.falls_back, falls_back) != falls_back;
        let waits = std::mem::replace(&mut held.waits, want == Want::Hold) != (want == Want::Hold);
        let other = std::mem::replace(&mut held.share, share) != share;
        (changed || end || waits, other)
    }

    /// What the wishes would come to if migration wanted something else.
    pub fn effective_if(&self, target: &str, want: Want) -> Effective {
        let mut wishes = self.wishes(target);
        wishes.set(Owner::Migration, want.wish(1).unwrap_or_default());
        wishes.effective(0)
    }

    /// What the datapath would be told if migration wanted something else (see [`WishBook::set_migration`]).
    pub fn state_if(&self, target: &str, want: Want, falls_back: State) -> StateWant {
        let mut other = Self::default();
        let held = self.0.get(target).cloned().unwrap_or_default();
        other.0.insert(target.to_owned(), held);
        other.set_migration(target, want, falls_back);
        other.state(target)
    }

    /// What migration leaves of a target's weight, in thousandths, if not all of it.
    pub fn share(&self, target: &str) -> Option<u16> {
        self.0.get(target).and_then(|held| held.share)
    }

    /// The operator wishes a weight, or the configured one again. Whether that is news.
    pub fn set_weight(&mut self, target: &str, weight: Option<u32>) -> bool {
        let held = self.0.entry(target.to_owned()).or_default();
        std::mem::replace(&mut held.weight, weight) != weight
    }

    /// The weight the operator wishes.
    pub fn weight_override(&self, target: &str) -> Option<u32> {
        self.0.get(target).and_then(|held| held.weight)
    }

    /// The state one owner wishes.
    pub fn state_of(&self, target: &str, owner: Owner) -> Option<State> {
        self.0.get(target).and_then(|held| held.states.get(&owner)).copied()
    }

    /// Everybody's wishes for a target.
    pub fn list(&self, target: &str) -> Vec<(Owner, State)> {
        let held = self.0.get(target);
        held.into_iter().flat_map(|held| held.states.iter().map(|(owner, state)| (*owner, *state))).collect()
    }

    /// What the wishes come to.
    pub fn effective(&self, target: &str) -> Effective {
        self.wishes(target).effective(0)
    }

    /// What the datapath is to be told.
    pub fn state(&self, target: &str) -> StateWant {
        let effective = self.effective(target);
        if effective.state == State::Moved && self.0.get(target).is_some_and(|held| held.waits) {
            // One that was handed over does not come back.
            let gone = self.0.get(target).and_then(|held| held.falls_back) == Some(State::Moved);
            let fallback = if gone { State::Moved } else { State::Draining };
            return StateWant { state: effective.state, fallback, deadline: Some(BLACKHOLE) };
        }
        let mut fallback = effective.fallback;
        let held = self.0.get(target);
        let least = held.and_then(|held| held.falls_back).unwrap_or(State::Active);
        // Whoever knows that it does not work outweighs migration; that it is not here does not.
        let others = |owner| held.is_some_and(|held| held.states.get(&owner) == Some(&fallback));
        let by = Owner::ALL.into_iter().find(|owner| others(*owner)).unwrap_or(Owner::Operator);
        if rank(fallback, by) < rank(least, Owner::Migration) {
            fallback = least;
        }
        StateWant {
            state: effective.state,
            fallback: if effective.state == State::Blackholed { fallback } else { effective.fallback },
            deadline: effective.deadline.map(|_| BLACKHOLE),
        }
    }

    /// The weight that follows from the configured one.
    pub fn weight(&self, target: &str, configured: u32) -> u32 {
        self.wishes(target).weight(configured)
    }

    /// Whether a state has to be renewed.
    pub fn any_deadline(&self) -> bool {
        let ends = |held: &Held| held.waits || held.states.values().any(|state| *state == State::Blackholed);
        self.0.values().any(ends)
    }

    /// Forgets targets that are no more.
    pub fn retain(&mut self, targets: &BTreeSet<String>) {
        self.0.retain(|name, _| targets.contains(name));
    }

    fn wishes(&self, target: &str) -> Wishes {
        let mut wishes = Wishes::default();
        let Some(held) = self.0.get(target) else { return wishes };
        for (owner, state) in &held.states {
            // Time 0 and a deadline after it: a standing wish is never over.
            let wish = match state {
                State::Blackholed => Wish::blackholed(1),
                state => Wish::new(*state),
            };
            wishes.set(*owner, wish);
        }
        if let Some(share) = held.share {
            let wish = wishes.get(Owner::Migration);
            wishes.set(Owner::Migration, wish.with_weight(Weight::Scale(share)));
        }
        if let Some(weight) = held.weight {
            let wish = wishes.get(Owner::Operator);
            wishes.set(Owner::Operator, wish.with_weight(Weight::Override(weight)));
        }
        wishes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_do_not_undo_each_other() {
        let mut book = WishBook::default();
        assert!(book.set_state("web/a", Owner::Operator, Some(State::Draining)));
        assert!(!book.set_state("web/a", Owner::Operator, Some(State::Draining)), "not news");
        book.set_state("web/a", Owner::Health, Some(State::Down));
        assert_eq!(book.state("web/a"), StateWant::lasting(State::Down));
        book.set_state("web/a", Owner::Health, None);
        assert_eq!(book.state("web/a"), StateWant::lasting(State::Draining));
        assert_eq!(book.state("web/b"), StateWant::lasting(State::Active));
    }

    #[test]
    fn a_blackhole_has_a_deadline_and_something_to_fall_back_to() {
        let mut book = WishBook::default();
        book.set_state("web/a", Owner::Operator, Some(State::Blackholed));
        book.set_state("web/a", Owner::Health, Some(State::Down));
        let want = book.state("web/a");
        assert_eq!((want.state, want.fallback), (State::Blackholed, State::Down));
        assert_eq!(want.deadline, Some(BLACKHOLE));
        assert!(book.any_deadline());
    }

    #[test]
    fn migration_leaves_a_share_and_a_blackhole_falls_back_to_what_was() {
        let mut book = WishBook::default();
        assert_eq!(book.set_migration("web/a", Want::Grow(250), State::Active), (false, true));
        assert_eq!((book.weight("web/a", 100), book.share("web/a")), (25, Some(250)));
        assert_eq!(book.state("web/a"), StateWant::lasting(State::Active));
        assert_eq!(book.set_migration("web/a", Want::Blackhole, State::Draining), (true, true));
        let want = book.state("web/a");
        assert_eq!(
            (want.state, want.fallback, want.holds_slots()),
            (State::Blackholed, State::Draining, false)
        );
        assert_eq!(book.set_migration("web/a", Want::Blackhole, State::Draining), (false, false), "not news");
        book.set_migration("web/a", Want::Blackhole, State::Active);
        assert_eq!(book.state("web/a").fallback, State::Active);
        book.set_migration("web/a", Want::Blackhole, State::Moved);
        book.set_state("web/a", Owner::Presence, Some(State::Down));
        assert_eq!(book.state("web/a").fallback, State::Moved, "it is gone from here because it moved");
        book.set_state("web/a", Owner::Presence, None);
        assert_eq!(book.set_migration("web/a", Want::Nothing, State::Active), (true, false));
        assert_eq!(book.state("web/a"), StateWant::lasting(State::Active));
    }

    #[test]
    fn packets_that_wait_elsewhere_do_not_wait_for_ever() {
        let mut book = WishBook::default();
        assert_eq!(book.set_migration("web/a", Want::Hold, State::Draining), (true, false));
        let waits = StateWant { state: State::Moved, fallback: State::Draining, deadline: Some(BLACKHOLE) };
        assert_eq!(book.state("web/a"), waits);
        assert!(book.any_deadline());
        book.set_migration("web/a", Want::Hold, State::Moved);
        assert_eq!(book.state("web/a").fallback, State::Moved, "it was handed over");
        assert_eq!(
            book.set_migration("web/a", Want::Moved, State::Draining),
            (true, false),
            "it runs there now"
        );
        assert_eq!(book.state("web/a"), StateWant::lasting(State::Moved));
        assert!(!book.any_deadline());
        // Who is down by somebody else's wish is not sent anywhere.
        book.set_migration("web/a", Want::Hold, State::Draining);
        book.set_state("web/a", Owner::Health, Some(State::Down));
        assert_eq!(book.state("web/a"), StateWant::lasting(State::Down));
    }

    #[test]
    fn weights_are_overridden_until_they_are_cleared() {
        let mut book = WishBook::default();
        assert!(book.set_weight("web/a", Some(7)));
        assert_eq!((book.weight("web/a", 100), book.weight("web/b", 100)), (7, 100));
        book.set_state("web/a", Owner::Operator, Some(State::Draining));
        assert_eq!(book.weight("web/a", 100), 7);
        assert!(book.set_weight("web/a", None));
        assert_eq!(book.weight("web/a", 100), 100);
    }
}
