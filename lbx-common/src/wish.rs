//! Wishes: what every owner wants of a target, and what follows from all of them.
//!
//! Each owner holds one wish per target and touches no other's. The effective state is the most restrictive
//! one, in the order of [`rank`]:
//!
//! | | new flows | known flows | outranks the one before because |
//! |---|---|---|---|
//! | `active` | yes | yes | |
//! | `standby` | on overflow | yes | it takes fewer new flows |
//! | `draining` | no | yes | it takes no new flows |
//! | `down`, by presence | no | selected anew | there is no VM here to deliver to |
//! | `moved` | no | to the new host | "not here" is what a VM looks like that moved: its flows must follow it, not be broken |
//! | `down`, by any other | no | selected anew | someone knows that it does not work, wherever it is |
//! | `blackholed` | no | dropped | a paused VM answers no health check; selecting its flows anew would break every connection that a short pause would have kept |
//!
//! A blackhole can outrank everything because it ends by itself: it carries a deadline, and what it hid
//! comes back then.

use crate::target::State;

/// Who may have a wish for a target.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Owner {
    /// A person, by CLI or API.
    Operator = 0,
    /// Health checks.
    Health = 1,
    /// Migration events.
    Migration = 2,
    /// Whether the VM and its vNIC exist on this host.
    Presence = 3,
}

impl Owner {
    /// All owners, by number. Of owners with equal wishes the first is named.
    pub const ALL: [Self; 4] = [Self::Operator, Self::Health, Self::Migration, Self::Presence];

    /// Its name in the CLI, the API and the event log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Health => "health",
            Self::Migration => "migration",
            Self::Presence => "presence",
        }
    }

    /// From its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|o| o.name() == name)
    }
}

impl core::fmt::Display for Owner {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.name())
    }
}

/// What a wish says about the target's weight.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Weight {
    /// Nothing.
    #[default]
    Configured,
    /// This instead of the configured one. From the operator: whatever it is. From the others: at most this.
    Override(u32),
    /// This many thousandths of it, at most 1000 (slow start).
    Scale(u16),
}

/// One owner's wish for one target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wish {
    state: State,
    deadline: u64,
    weight: Weight,
}

impl Default for Wish {
    fn default() -> Self {
        Self::new(State::Active)
    }
}

impl Wish {
    /// A state, for as long as the wish is held. For a blackhole, which must end: [`Wish::blackholed`]; one
    /// made here has ended already.
    pub const fn new(state: State) -> Self {
        Self { state, deadline: 0, weight: Weight::Configured }
    }

    /// A blackhole until a deadline, in the unit of the `now` that [`Wishes::effective`] is given (the
    /// kernel's: jiffies64).
    pub const fn blackholed(deadline: u64) -> Self {
        Self { state: State::Blackholed, deadline, weight: Weight::Configured }
    }

    /// The same with a wish for the weight.
    #[must_use]
    pub const fn with_weight(self, weight: Weight) -> Self {
        Self { weight, ..self }
    }

    /// The state it asks for.
    pub const fn state(self) -> State {
        self.state
    }

    /// When a blackhole ends.
    pub const fn deadline(self) -> Option<u64> {
        match self.state {
            State::Blackholed => Some(self.deadline),
            _ => None,
        }
    }

    /// What it says about the weight.
    pub const fn weight(self) -> Weight {
        self.weight
    }

    /// Whether it is a blackhole whose time is over.
    const fn over(self, now: u64) -> bool {
        matches!(self.state, State::Blackholed) && self.deadline <= now
    }
}

/// How restrictive a state is, coming from an owner: see the table at the top of this module.
pub const fn rank(state: State, by: Owner) -> u8 {
    match (state, by) {
        (State::Active, _) => 0,
        (State::Standby, _) => 1,
        (State::Draining, _) => 2,
        (State::Down, Owner::Presence) => 3,
        (State::Moved, _) => 4,
        (State::Down, _) => 5,
        (State::Blackholed, _) => 6,
    }
}

/// Everybody's wishes for one target. Without any it is active.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Wishes([Wish; Owner::ALL.len()]);

/// What follows from the wishes for a target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Effective {
    /// The state.
    pub state: State,
    /// Whose wish it is: the first owner in [`Owner::ALL`] if several agree. The operator's, if active.
    pub by: Owner,
    /// The state when the deadline has passed: what the wishes come to without the blackholes.
    pub fallback: State,
    /// When a blackhole ends: the last deadline, if several owners hold one.
    pub deadline: Option<u64>,
}

impl Wishes {
    /// One owner's wish.
    pub const fn get(&self, owner: Owner) -> Wish {
        self.0[owner as usize]
    }

    /// Replaces one owner's wish.
    pub const fn set(&mut self, owner: Owner, wish: Wish) {
        self.0[owner as usize] = wish;
    }

    /// Takes one owner's wish back.
    pub const fn clear(&mut self, owner: Owner) {
        self.set(owner, Wish::new(State::Active));
    }

    /// All wishes, for display.
    pub fn iter(&self) -> impl Iterator<Item = (Owner, Wish)> {
        let wishes = self.0;
        Owner::ALL.into_iter().map(move |o| (o, wishes[o as usize]))
    }

    /// The most restrictive wish at a time.
    pub fn effective(&self, now: u64) -> Effective {
        let most = |blackholes: bool| {
            let mut most = (State::Active, Owner::Operator);
            for (by, wish) in self.iter() {
                let counts = wish.state != State::Blackholed || (blackholes && !wish.over(now));
                if counts && rank(wish.state, by) > rank(most.0, most.1) {
                    most = (wish.state, by);
                }
            }
            most
        };
        let ((state, by), (fallback, _)) = (most(true), most(false));
        let deadline = self.iter().filter(|(_, w)| !w.over(now)).filter_map(|(_, w)| w.deadline()).max();
        Effective { state, by, fallback, deadline }
    }

    /// The weight that follows from the configured one: the operator's override if there is one; the others'
    /// overrides can only lower it; then every scale applies. Scales above 0 never make a weight 0.
    pub fn weight(&self, configured: u32) -> u32 {
        let mut weight = match self.get(Owner::Operator).weight {
            Weight::Override(w) => w,
            _ => configured,
        };
        for (by, wish) in self.iter() {
            if let (Weight::Override(w), true) = (wish.weight, by != Owner::Operator) {
                weight = weight.min(w);
            }
        }
        for (_, wish) in self.iter() {
            if let Weight::Scale(thousandths) = wish.weight {
                // Rounded up, so that a small weight is never scaled to nothing.
                weight = (weight as u64 * thousandths.min(1000) as u64).div_ceil(1000) as u32;
            }
        }
        weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(wishes: &[(Owner, State)]) -> Wishes {
        let mut all = Wishes::default();
        for &(owner, state) in wishes {
            let wish = if state == State::Blackholed { Wish::blackholed(100) } else { Wish::new(state) };
            all.set(owner, wish);
        }
        all
    }

    #[test]
    fn situations() {
        use Owner::{Health, Migration, Operator, Presence};
        use State::{Active, Blackholed, Down, Draining, Moved, Standby};
        type Row = (&'static str, &'static [(Owner, State)], State, Owner, State);
        let rows: &[Row] = &[
            ("nobody wants anything", &[], Active, Operator, Active),
            ("drained by hand", &[(Operator, Draining)], Draining, Operator, Draining),
            ("drained, then failing", &[(Operator, Draining), (Health, Down)], Down, Health, Down),
            (
                "paused, so checks fail",
                &[(Health, Down), (Migration, Blackholed)],
                Blackholed,
                Migration,
                Down,
            ),
            ("moved, so gone from here", &[(Migration, Moved), (Presence, Down)], Moved, Migration, Moved),
            ("moved, and broken there", &[(Migration, Moved), (Health, Down)], Down, Health, Down),
            ("moved, taken down by hand", &[(Operator, Down), (Migration, Moved)], Down, Operator, Down),
            ("gone while drained", &[(Operator, Draining), (Presence, Down)], Down, Presence, Down),
            (
                "standby, drained to migrate",
                &[(Operator, Standby), (Migration, Draining)],
                Draining,
                Migration,
                Draining,
            ),
            ("both down", &[(Health, Down), (Operator, Down)], Down, Operator, Down),
            ("down twice, one is presence", &[(Health, Down), (Presence, Down)], Down, Health, Down),
        ];
        for (what, wishes, state, by, fallback) in rows {
            let got = of(wishes).effective(50);
            assert_eq!((got.state, got.by, got.fallback), (*state, *by, *fallback), "{what}");
            assert_eq!(got.deadline.is_some(), *state == Blackholed, "{what}");
        }
    }

    #[test]
    fn a_blackhole_ends() {
        let mut w = of(&[(Owner::Operator, State::Draining)]);
        w.set(Owner::Migration, Wish::blackholed(100));
        assert_eq!(w.effective(99).state, State::Blackholed);
        assert_eq!(w.effective(99).deadline, Some(100));
        assert_eq!(w.effective(100), of(&[(Owner::Operator, State::Draining)]).effective(100));
        w.set(Owner::Operator, Wish::blackholed(300));
        assert_eq!((w.effective(50).deadline, w.effective(50).fallback), (Some(300), State::Active));
        assert_eq!(w.effective(200).by, Owner::Operator);
        assert_eq!(of(&[]).effective(0), {
            let mut w = of(&[]);
            w.set(Owner::Health, Wish::new(State::Blackholed));
            w.effective(0)
        });
    }

    #[test]
    fn weights() {
        let mut w = Wishes::default();
        assert_eq!(w.weight(100), 100);
        w.set(Owner::Migration, Wish::default().with_weight(Weight::Scale(100)));
        assert_eq!((w.weight(100), w.weight(1), w.weight(0)), (10, 1, 0));
        w.set(Owner::Operator, Wish::default().with_weight(Weight::Override(1000)));
        assert_eq!(w.weight(100), 100);
        w.set(Owner::Health, Wish::default().with_weight(Weight::Override(500)));
        assert_eq!(w.weight(100), 50);
        w.set(Owner::Migration, Wish::default().with_weight(Weight::Scale(0)));
        assert_eq!(w.weight(100), 0);
        w.clear(Owner::Migration);
        w.set(Owner::Health, Wish::default().with_weight(Weight::Scale(u16::MAX)));
        assert_eq!(w.weight(u32::MAX), 1000, "a scale never raises");
    }

    #[test]
    fn names() {
        for owner in Owner::ALL {
            assert_eq!(Owner::from_name(owner.name()), Some(owner));
            assert_eq!(format!("{owner:>10}").trim_start(), owner.name());
        }
        assert_eq!(Owner::from_name("root"), None);
    }

    fn wish() -> impl Strategy<Value = Wish> {
        (0..6u8, 0..100u64).prop_map(|(state, deadline)| match State::from_u8(state) {
            State::Blackholed => Wish::blackholed(deadline),
            state => Wish::new(state),
        })
    }

    proptest! {
        #[test]
        fn no_owner_undoes_anothers(wishes in proptest::array::uniform4(wish()), who in 0..4usize, now in 0..100u64) {
            let mut all = Wishes(wishes);
            let e = all.effective(now);
            prop_assert_eq!(e.state == State::Blackholed, e.deadline.is_some());
            prop_assert!(e.fallback != State::Blackholed);
            for (by, wish) in all.iter() {
                prop_assert!(wish.over(now) || rank(wish.state(), by) <= rank(e.state, e.by));
            }
            // Taking a wish back never restricts more, and gives exactly what the others want.
            let owner = Owner::ALL[who];
            let mut cleared = all;
            cleared.clear(owner);
            let without = cleared.effective(now);
            prop_assert!(rank(without.state, without.by) <= rank(e.state, e.by));
            if owner != e.by {
                prop_assert_eq!((without.state, without.by), (e.state, e.by));
            }
            // And holding it again brings back what was.
            let held = all.get(owner);
            all.clear(owner);
            all.set(owner, held);
            prop_assert_eq!(all.effective(now), e);
        }
    }
}
