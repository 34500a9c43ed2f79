//! What a watchdog makes of a migration that nobody speaks of any more: it goes by the facts.

use super::{Machine, Role};
use crate::migration::{Facts, Here, Micros, Phase, Place, There, What};

impl Machine {
    /// It is due and nobody says anything: goes by the facts. What that comes to, as the event a watchdog would say;
    /// `None` if it stays as it is, for another while.
    pub fn resolve(&mut self, facts: Facts, now: Micros) -> Option<What> {
        self.heard = now;
        if facts.here != Here::Absent {
            self.role = match (facts.here, self.part()) {
                (Here::Incoming, _) => Role::Destination,
                (Here::Migrating | Here::Finishing, _) | (_, Role::Bystander) => Role::Source,
                (_, role) => role,
            };
            self.absent = false;
        }
        // What its monitor said before does not count where it is not to be heard any more.
        self.paused = facts.here.runs().map(|runs| !runs);
        let before = (self.phase, self.place, self.down);
        let elsewhere = self.handed_over || self.place == Some(Place::There);
        let (end, down) = match (facts.here, facts.there) {
            (Here::Migrating, _) => return self.goes_on(Phase::Transferring, now),
            (Here::Finishing, _) => return self.goes_on(Phase::Stopped, now),
            // About to run where it is awaited: here, or there.
            (Here::Incoming, _) | (Here::Gone | Here::Absent, There::NotRunning) if self.may_arrive(now) => {
                return self.stays();
            }
            // It does not come, or not yet: what is known of it here goes to where it was.
            (Here::Incoming, _) if matches!(self.phase, Phase::Stopped | Phase::Resumed | Phase::Done) => {
                return self.goes_on(Phase::Announced, now);
            }
            (Here::Incoming, _) => return self.stays(),
            // It was awaited here, and nobody awaits it any more.
            (Here::Absent, There::Running) if self.was_awaited() => match self.phase {
                Phase::Cancelled => (What::Cancelled, false),
                _ => (What::Failed, false),
            },
            // Nobody there is to be asked: the last that was heard counts.
            (Here::Present | Here::Absent, There::Unknown) if elsewhere => (What::Done(Place::There), false),
            (Here::Gone, There::Running | There::Unknown)
            | (Here::Paused | Here::Present | Here::Absent, There::Running) => {
                (What::Done(Place::There), false)
            }
            (Here::Running, _) | (Here::Present, There::NotRunning | There::Gone | There::Unknown) => {
                (self.back_here(), false)
            }
            (Here::Paused, _) | (Here::Gone | Here::Absent, There::NotRunning | There::Gone) => {
                (What::Failed, true)
            }
            // A machine elsewhere is left as it was; one that was here, presence knows to be gone.
            (Here::Absent, There::Unknown) => (What::Failed, false),
        };
        self.settle(facts.here, end, down, now);
        let after = (self.phase, self.place, self.down);
        (after != before).then_some(end)
    }

    /// It was handed over a moment ago.
    const fn may_arrive(&self, now: Micros) -> bool {
        self.handed_over
            && matches!(self.phase, Phase::Stopped)
            && now.saturating_sub(self.since) < super::ARRIVES
    }

    /// It was awaited here, and has not come.
    const fn was_awaited(&self) -> bool {
        matches!(self.part(), Role::Destination)
            && !self.handed_over
            && !matches!(self.phase, Phase::Resumed | Phase::Done)
    }

    /// Its monitor says that a migration is under way, whatever was heard.
    fn goes_on(&mut self, phase: Phase, now: Micros) -> Option<What> {
        if self.phase == phase {
            return self.stays();
        }
        let next =
            Self { phase, since: now, place: None, handed_over: false, pause: false, grows: None, ..*self };
        *self = Self { down: false, verified: false, ..next };
        Some(match phase {
            Phase::Stopped => What::Stopped,
            Phase::Announced => What::Expected,
            _ => What::Transferring,
        })
    }

    fn stays(&mut self) -> Option<What> {
        // What ended for good by all accounts is not looked at for ever.
        self.verified = self.phase.is_end();
        None
    }

    /// It runs here: how that came.
    const fn back_here(&self) -> What {
        match (self.part(), self.phase) {
            (Role::Destination, _) | (_, Phase::Resumed | Phase::Done) => What::Done(Place::Here),
            (_, Phase::Cancelled) => What::Cancelled,
            _ => What::Failed,
        }
    }

    fn settle(&mut self, here: Here, end: What, down: bool, now: Micros) {
        let place = match end {
            What::Done(place) => Some(place),
            _ => None,
        };
        let agrees = self.phase == end.phase() && (self.place == place || place.is_none());
        if !agrees {
            (self.phase, self.since, self.place) = (end.phase(), now, place);
            self.note_growth(now);
        }
        // Presence knows that nobody is here.
        self.absent |= here == Here::Absent && self.role == Role::Destination;
        self.down = down;
        self.verified = true;
    }
}
