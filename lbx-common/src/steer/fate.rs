//! What a target's state means for a packet.

use crate::flow::TargetWord;
use crate::target::{Deliver, State, StateWord, Target, flags};

/// What happens to a packet whose flow is bound to a target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It goes there.
    Go,
    /// It goes there because the deadline of a blackhole has passed.
    GoExpired,
    /// It goes after the VM, which moved.
    Follow,
    /// It is dropped.
    Blackholed,
    /// The flow is selected anew.
    Anew,
}

/// For a recorded flow. `elsewhere`: the target's, where its flows go while it is moved. `opens`: the packet opens a
/// connection (SYN without ACK), so that nothing is lost if a target that takes no new flows does not get it.
#[inline(always)]
pub const fn known(word: StateWord, elsewhere: u16, now: u64, opens: bool) -> Fate {
    // The one state without a deadline that is nothing but active: one comparison on the hot path.
    if word.0 == StateWord::new(State::Active).0 {
        return Fate::Go;
    }
    let (state, expired) = word.at(now);
    let from_blackhole = expired && matches!(word.stored(), State::Blackholed);
    match state {
        State::Draining | State::Moved if opens => Fate::Anew,
        State::Moved if elsewhere != 0 => Fate::Follow,
        State::Active | State::Draining if from_blackhole => Fate::GoExpired,
        State::Active | State::Draining => Fate::Go,
        State::Blackholed => Fate::Blackholed,
        State::Moved | State::Down | State::Standby => Fate::Anew,
    }
}

/// Whether the entry is still the target the word names.
#[inline(always)]
pub const fn is_same(target: &Target, word: TargetWord) -> bool {
    target.flags & flags::IN_USE != 0 && target.generation == word.generation()
}

/// What a target is to a new flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Choice {
    /// It takes it.
    Takes,
    /// It would, but the frame came from there.
    Returns,
    /// It pauses (blackholed), and may take it when it is asked again.
    Paused,
    /// It takes none.
    Closed,
}

/// What a target is to a new flow that came in by the port `ingress`. No frame leaves by the port it came in by,
/// unless the target is configured there.
#[inline(always)]
pub const fn choice(target: &Target, now: u64, ingress: u32) -> Choice {
    if target.flags & flags::IN_USE == 0 {
        return Choice::Closed;
    }
    let word = target.state;
    let state = if word.0 == StateWord::new(State::Active).0 { State::Active } else { word.at(now).0 };
    match (state.takes_new(), returns(target, ingress)) {
        (true, false) => Choice::Takes,
        (true, true) => Choice::Returns,
        (false, false) if matches!(state, State::Blackholed) => Choice::Paused,
        (false, _) => Choice::Closed,
    }
}

/// Whether the frame would go back where it came from.
#[inline(always)]
pub const fn returns(target: &Target, ingress: u32) -> bool {
    target.port_index as u32 == ingress && target.deliver != Deliver::Uplink as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(state: StateWord) -> Target {
        Target { state, flags: flags::IN_USE, generation: 3, port_index: 9, ..Target::default() }
    }

    #[test]
    fn every_state_has_its_fate() {
        let cases = [
            (State::Active, Fate::Go, Fate::Go),
            (State::Draining, Fate::Go, Fate::Anew),
            (State::Blackholed, Fate::Blackholed, Fate::Blackholed),
            (State::Moved, Fate::Follow, Fate::Anew),
            (State::Down, Fate::Anew, Fate::Anew),
            (State::Standby, Fate::Anew, Fate::Anew),
        ];
        for (state, packet, syn) in cases {
            assert_eq!(known(StateWord::new(state), 1, 5, false), packet, "{state:?}");
            assert_eq!(known(StateWord::new(state), 1, 5, true), syn, "{state:?} opening");
        }
        let moved = StateWord::new(State::Moved);
        assert_eq!(known(moved, 0, 5, false), Fate::Anew, "nobody said where it went");
    }

    #[test]
    fn a_blackhole_ends_at_its_deadline() {
        let word = StateWord::until(State::Blackholed, State::Active, 1000);
        assert_eq!(known(word, 1, 999, false), Fate::Blackholed);
        assert_eq!(known(word, 1, 1000, false), Fate::GoExpired);
        let to_draining = StateWord::until(State::Blackholed, State::Draining, 1000);
        assert_eq!(known(to_draining, 1, 1000, false), Fate::GoExpired);
        assert_eq!(known(to_draining, 1, 1000, true), Fate::Anew);
        let to_moved = StateWord::until(State::Blackholed, State::Moved, 1000);
        assert_eq!(known(to_moved, 1, 1000, false), Fate::Follow);
    }

    #[test]
    fn new_flows_go_to_active_targets_elsewhere() {
        let active = target(StateWord::new(State::Active));
        assert_eq!(choice(&active, 0, 1), Choice::Takes);
        assert_eq!(choice(&active, 0, 9), Choice::Returns, "out of the port it came in by");
        let behind = Target { deliver: Deliver::Uplink as u8, ..active };
        assert_eq!(choice(&behind, 0, 9), Choice::Takes);
        assert_eq!(choice(&Target { flags: 0, ..active }, 0, 1), Choice::Closed);
        for state in [State::Draining, State::Moved, State::Down, State::Standby] {
            for ingress in [1, 9] {
                assert_eq!(choice(&target(StateWord::new(state)), 0, ingress), Choice::Closed, "{state:?}");
            }
        }
    }

    #[test]
    fn a_new_flow_may_wait_for_a_paused_target() {
        let paused = target(StateWord::until(State::Blackholed, State::Active, 10));
        assert_eq!(choice(&paused, 9, 1), Choice::Paused);
        assert_eq!(choice(&paused, 9, 9), Choice::Closed, "never its own");
        assert_eq!(choice(&paused, 10, 1), Choice::Takes);
        let leaving = target(StateWord::until(State::Blackholed, State::Draining, 10));
        assert_eq!(choice(&leaving, 9, 1), Choice::Paused);
        assert_eq!(choice(&leaving, 10, 1), Choice::Closed);
    }

    #[test]
    fn another_generation_is_another_target() {
        let t = target(StateWord::new(State::Active));
        assert!(is_same(&t, TargetWord::new(0, 5, 3)));
        assert!(!is_same(&t, TargetWord::new(0, 5, 4)));
        assert!(!is_same(&Target { flags: 0, ..t }, TargetWord::new(0, 5, 3)));
    }
}
