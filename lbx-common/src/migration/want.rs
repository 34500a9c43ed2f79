//! What migration wants of a VM's targets, and the rules by which it does.

use super::Micros;
use crate::target::State;
use crate::wish::{Weight, Wish};

/// What `[migration]` of the config says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// Packets are dropped for the whole of a transfer, not only while the VM is stopped.
    pub blackhole_all: bool,
    /// While the VM is stopped its packets wait at the destination instead of being dropped.
    pub hold: bool,
    /// Share of its new flows that a VM keeps until it is stopped, in thousandths.
    pub share: u16,
    /// How long its flows of datagrams, which nobody ends, stay with a VM that is about to be migrated.
    pub datagrams: Micros,
    /// How long its share takes to grow back, once it runs.
    pub slow_start: Micros,
    /// After how long without news a phase is looked into.
    pub limits: Limits,
}

/// The watchdog's times: how long a phase stands without news.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Announced, and nothing begins.
    pub announced: Micros,
    /// Transferring, and nobody says anything.
    pub transferring: Micros,
    /// Stopped, and it does not resume.
    pub stopped: Micros,
    /// Resumed, and nobody says how it ended.
    pub resumed: Micros,
}

const SECOND: Micros = 1_000_000;

impl Default for Rules {
    fn default() -> Self {
        Self {
            blackhole_all: false,
            hold: false,
            share: 0,
            datagrams: 60 * SECOND,
            slow_start: 10 * SECOND,
            limits: Limits {
                announced: 300 * SECOND,
                transferring: 3600 * SECOND,
                stopped: 10 * SECOND,
                resumed: 10 * SECOND,
            },
        }
    }
}

/// What migration wants of all targets of a VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Want {
    /// Nothing.
    #[default]
    Nothing,
    /// Fewer new flows (so many thousandths) or none; those it has keep going.
    Drain(u16),
    /// Every packet dropped and counted: the VM runs nowhere.
    Blackhole,
    /// Every packet sent on to where the VM will run, to wait there.
    Hold,
    /// The flows it has are sent on to where it runs; it gets no new ones here.
    Moved,
    /// Nothing sent to it: it runs nowhere, and nobody knows that it will.
    Down,
    /// So many thousandths of its share, growing.
    Grow(u16),
}

impl Want {
    /// As a wish of [`Owner::Migration`](crate::wish::Owner::Migration). `deadline` is that of a blackhole, in the unit
    /// of [`Wish::blackholed`].
    pub const fn wish(self, deadline: u64) -> Option<Wish> {
        Some(match self {
            Self::Nothing => return None,
            Self::Drain(0) => Wish::new(State::Draining),
            Self::Drain(share) | Self::Grow(share) => {
                Wish::new(State::Active).with_weight(Weight::Scale(share))
            }
            Self::Blackhole => Wish::blackholed(deadline),
            Self::Hold | Self::Moved => Wish::new(State::Moved),
            Self::Down => Wish::new(State::Down),
        })
    }

    /// Why a target is so, for people.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Nothing => "it is not migrating",
            Self::Drain(0) => "it is about to be migrated: no new flows",
            Self::Drain(_) => "it is about to be migrated: fewer new flows",
            Self::Blackhole => "it is stopped while it is migrated",
            Self::Hold => "it is stopped while it is migrated: its packets wait at its new host",
            Self::Moved => "it runs on another host now",
            Self::Down => "its migration left it running nowhere",
            Self::Grow(_) => "it was migrated a moment ago: its share grows back",
        }
    }
}

/// The share of a VM that has run again for `since`, in thousandths: it begins at a tenth (or the share it kept
/// while it was drained) and grows evenly. `None`: it has all of it.
pub const fn grown(since: Micros, rules: &Rules) -> Option<u16> {
    if since >= rules.slow_start {
        return None;
    }
    let first = if rules.share > 100 { rules.share as u64 } else { 100 };
    if first >= 1000 {
        return None;
    }
    Some((first + (1000 - first) * since / rules.slow_start) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_grows_from_a_tenth_to_all_of_it() {
        let rules = Rules::default();
        let shares: [Option<u16>; 5] = [0, 1, 5, 9, 10].map(|s| grown(s * SECOND, &rules));
        assert_eq!(shares, [Some(100), Some(190), Some(550), Some(910), None]);
        assert_eq!(grown(0, &Rules { slow_start: 0, ..rules }), None, "at once");
        assert_eq!(grown(0, &Rules { share: 500, ..rules }), Some(500));
        assert_eq!(grown(0, &Rules { share: 1000, ..rules }), None);
    }

    #[test]
    fn what_is_wanted_as_a_wish() {
        assert_eq!(Want::Nothing.wish(1), None);
        assert_eq!(Want::Drain(0).wish(1), Some(Wish::new(State::Draining)));
        let fewer = Want::Drain(100).wish(1).unwrap();
        assert_eq!((fewer.state(), fewer.weight()), (State::Active, Weight::Scale(100)));
        assert_eq!(Want::Blackhole.wish(7).unwrap().deadline(), Some(7));
        assert_eq!(Want::Hold.wish(1).unwrap().state(), State::Moved);
    }
}
