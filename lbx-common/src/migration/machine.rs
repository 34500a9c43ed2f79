//! From events to phases. Pure: time and facts come in as arguments.

mod resolve;

use super::{Event, Here, Micros, Phase, Place, Rules, Source, Want, What, grown};
use crate::target::State;

/// A source that has handed everything over waits this long to hear that the VM runs there: it does so within
/// milliseconds, and if nobody says so its packets are better sent after it than dropped.
const HANDED_OVER: Micros = 300_000;
/// Where it is awaited it runs within this time, or not at all.
pub(super) const ARRIVES: Micros = 2_000_000;
/// A migration that ended is looked at once more after this long.
const VERIFY: Micros = 2_000_000;

/// What this host is to a migration.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// The VM ran here when it began.
    Source,
    /// The VM is awaited here.
    Destination,
    /// Neither: the VM is a target on another host.
    Bystander,
}

impl Role {
    /// Its name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
            Self::Bystander => "bystander",
        }
    }
}

/// What an event was.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Heard {
    /// News: the phase is another one now, or something about it is.
    News,
    /// Said before.
    Repeated,
    /// Overtaken by what is known already.
    Late,
    /// Against what the VM's own monitor says.
    Contradicted,
}

/// One migration of one VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Machine {
    /// What this host is to it, for the record.
    pub role: Role,
    /// Nobody awaits it here any more, who did: what follows is that of a [bystander](Self::part).
    pub absent: bool,
    /// Where it stands.
    pub phase: Phase,
    /// Since when.
    pub since: Micros,
    /// Where the VM runs, once it was resumed.
    pub place: Option<Place>,
    /// The source has sent everything.
    pub handed_over: bool,
    /// A plain pause: the VM was stopped and nobody spoke of a migration.
    pub pause: bool,
    /// What the VM's monitor last said: its CPUs are stopped.
    pub paused: Option<bool>,
    /// It was found to run nowhere.
    pub down: bool,
    /// The last news of any kind.
    pub heard: Micros,
    /// Since when its share grows back.
    pub grows: Option<Micros>,
    /// It ended, and what was found afterwards agreed.
    pub verified: bool,
}

impl Machine {
    /// The migration that an event begins, if it begins one.
    pub fn begin(event: &Event, here: Here) -> Option<Self> {
        let role = match (event.what, here) {
            (What::Expected, _) | (_, Here::Incoming) => Role::Destination,
            (_, Here::Absent) => Role::Bystander,
            _ => Role::Source,
        };
        let mut machine = Self {
            role,
            absent: false,
            phase: Phase::Announced,
            since: event.at,
            place: None,
            handed_over: false,
            pause: matches!((event.what, event.source), (What::Stopped, Source::Qmp)),
            paused: None,
            down: false,
            heard: event.at,
            grows: None,
            verified: false,
        };
        let contradicted = contradicts(event, here);
        match event.what {
            _ if contradicted => return None,
            What::Announced | What::Expected => {}
            What::Transferring | What::Stopped | What::HandedOver => drop(machine.advance(event)),
            // All that came before was lost.
            What::Resumed(Place::There) | What::Done(Place::There) if role == Role::Source => {
                machine.advance(event);
            }
            What::Resumed(_) | What::Done(_) | What::Failed | What::Cancelled => return None,
        }
        machine.note(event);
        Some(machine)
    }

    /// What this host has to do with it now: where it was awaited and nobody awaits it any more, no more than any other.
    pub const fn part(&self) -> Role {
        if self.absent { Role::Bystander } else { self.role }
    }

    /// Hears one more event about it.
    pub fn hear(&mut self, event: &Event, here: Here) -> Heard {
        if contradicts(event, here) {
            return Heard::Contradicted;
        }
        let before = *self;
        self.note(event);
        let changed =
            if self.phase.is_end() { self.after_end(event, &before, here) } else { self.before_end(event) };
        if !changed {
            let known = before.phase == event.what.phase();
            if known {
                self.heard = self.heard.max(event.at);
            }
            return if known { Heard::Repeated } else { Heard::Late };
        }
        self.heard = self.heard.max(event.at);
        self.verified = false;
        self.down = false;
        Heard::News
    }

    /// Remembers what the VM's monitor says of its CPUs.
    fn note(&mut self, event: &Event) {
        if event.source == Source::Qmp {
            match event.what {
                What::Stopped => self.paused = Some(true),
                What::Resumed(Place::Here) => self.paused = Some(false),
                _ => {}
            }
        }
    }

    fn before_end(&mut self, event: &Event) -> bool {
        match event.what {
            What::Expected if self.part() != Role::Destination => {
                (self.role, self.absent) = (Role::Destination, false);
                self.pause = false;
                self.heard = event.at;
                true
            }
            What::HandedOver if self.phase == Phase::Stopped && !self.handed_over => self.advance(event),
            // A pause that turns out to be part of a migration.
            What::Announced | What::Transferring if self.pause => {
                self.pause = false;
                false
            }
            What::Resumed(place) if self.phase == Phase::Resumed => {
                self.place != Some(place) && self.advance(event)
            }
            // Only the VM's own monitor knows that it was stopped once more.
            What::Stopped if self.phase == Phase::Resumed => {
                event.source == Source::Qmp && self.advance(event)
            }
            what if what.phase() > self.phase => self.advance(event),
            _ => false,
        }
    }

    fn after_end(&mut self, event: &Event, before: &Self, here: Here) -> bool {
        match event.what {
            // It runs here, whatever was said: a source that takes its VM back, or one that was paused.
            What::Resumed(Place::Here) if event.source == Source::Qmp => {
                let was = before.place == Some(Place::There)
                    || before.down
                    || before.want_of_end() != Want::Nothing;
                self.place = Some(Place::Here);
                (self.down, self.since) = (false, event.at);
                was
            }
            // Said again by a monitor that is heard again.
            What::Stopped if event.source == Source::Qmp && before.paused == Some(true) => false,
            // It is gone from here; how it goes on elsewhere is no migration of this host.
            What::Announced | What::Transferring | What::Stopped | What::HandedOver
                if self.part() == Role::Source
                    && self.place == Some(Place::There)
                    && here != Here::Incoming
                    && here.runs() != Some(true) =>
            {
                false
            }
            What::Announced | What::Expected | What::Transferring | What::Stopped | What::HandedOver
                if event.at > self.since =>
            {
                // The next one.
                let here = match self.part() {
                    Role::Source => Here::Present,
                    Role::Destination if self.place == Some(Place::Here) => Here::Present,
                    Role::Destination => Here::Incoming,
                    // Who was not awaited may have been started here since.
                    Role::Bystander => here,
                };
                let paused = self.paused;
                Self::begin(event, here).is_some_and(|next| {
                    *self = Self { paused, ..next };
                    true
                })
            }
            _ => false,
        }
    }

    /// Goes to the phase that an event speaks of.
    fn advance(&mut self, event: &Event) -> bool {
        match event.what {
            What::HandedOver => self.handed_over = true,
            What::Resumed(place) | What::Done(place) => self.place = Some(place),
            _ => self.place = None,
        }
        // Whoever spoke of it before may not have known where it goes.
        if (self.part(), self.place) == (Role::Bystander, Some(Place::Here)) {
            (self.role, self.absent) = (Role::Destination, false);
        }
        let mut phase = event.what.phase();
        // A pause that ends is over; nobody will say that it is done.
        if self.pause && phase == Phase::Resumed && self.place == Some(Place::Here) {
            phase = Phase::Done;
        }
        (self.phase, self.since) = (phase, event.at);
        self.note_growth(event.at);
        true
    }

    /// Its share grows from when it runs and is to stay where it is: for its source, when all is over.
    fn note_growth(&mut self, now: Micros) {
        match (self.phase, self.part()) {
            (Phase::Done, _) | (Phase::Resumed, Role::Destination | Role::Bystander) => {
                self.grows.get_or_insert(now);
            }
            _ => self.grows = None,
        }
    }

    /// What follows for the VM's targets on this host at a time.
    pub fn want(&self, now: Micros, rules: &Rules) -> Want {
        let share = rules.share.min(1000);
        let drain = if share >= 1000 { Want::Nothing } else { Want::Drain(share) };
        let grow = || match grown(now.saturating_sub(self.grows.unwrap_or(self.since)), rules) {
            Some(share) if !self.pause => Want::Grow(share),
            _ => Want::Nothing,
        };
        if self.down {
            return Want::Down;
        }
        match (self.phase, self.part()) {
            // It runs elsewhere still: flows that are known here went there before, and go on. Once it is stopped there
            // nobody would take them, or count them; and the segment leads here a moment before it runs.
            (Phase::Announced | Phase::Transferring, Role::Destination) => Want::Moved,
            (Phase::Transferring, _) if rules.blackhole_all => Want::Blackhole,
            (Phase::Announced | Phase::Transferring, _) => drain,
            (Phase::Stopped, Role::Source) if rules.hold && !self.pause => Want::Hold,
            (Phase::Stopped, _) => Want::Blackhole,
            (Phase::Resumed, Role::Source) if self.place == Some(Place::Here) => drain,
            (Phase::Resumed | Phase::Done, Role::Source) if self.place == Some(Place::There) => Want::Moved,
            (Phase::Resumed | Phase::Done, Role::Destination) if self.place == Some(Place::There) => {
                Want::Down
            }
            (Phase::Resumed | Phase::Done, _) => grow(),
            (Phase::Failed | Phase::Cancelled, _) => self.want_of_end(),
        }
    }

    /// After it failed: what it was before, unless that cannot be.
    const fn want_of_end(&self) -> Want {
        match (self.phase, self.part(), self.paused) {
            (Phase::Failed | Phase::Cancelled, Role::Destination, paused) => match (self.place, paused) {
                (_, Some(false)) | (Some(Place::Here), None) => Want::Nothing,
                _ => Want::Moved,
            },
            // Its monitor has said that it is stopped, and will say when it is not.
            (Phase::Failed | Phase::Cancelled, Role::Source, Some(true)) => Want::Blackhole,
            _ => Want::Nothing,
        }
    }

    /// Whether its flows of datagrams are to be taken from it: it has been drained since `began`, nothing has ended
    /// them, and they would have had the time.
    pub fn parts(&self, began: Micros, now: Micros, rules: &Rules) -> bool {
        matches!(self.want(now, rules), Want::Drain(_))
            && self.phase != Phase::Resumed
            && now.saturating_sub(began) >= rules.datagrams
    }

    /// What its targets come to when a blackhole ends by itself, because there is nobody to renew it: a VM that was handed
    /// over runs elsewhere, one that was only paused runs here, and of any other nobody knows; it gets no new flows. Where
    /// it is awaited it is the other way round: until it was handed over it is where it was.
    pub const fn falls_back(&self) -> State {
        match (self.pause, self.handed_over, self.part()) {
            (true, ..) => State::Active,
            (false, false, Role::Destination) | (false, true, Role::Source | Role::Bystander) => State::Moved,
            (false, true, Role::Destination) | (false, false, _) => State::Draining,
        }
    }

    /// When it is to be looked into, unless there is news before.
    pub fn due(&self, rules: &Rules) -> Option<Micros> {
        let limits = &rules.limits;
        let (from, limit) = match self.phase {
            Phase::Announced => (self.heard, limits.announced),
            Phase::Transferring => (self.heard, limits.transferring),
            Phase::Stopped if self.handed_over => (self.heard, HANDED_OVER.min(limits.stopped)),
            Phase::Stopped => (self.heard, limits.stopped),
            Phase::Resumed => (self.heard, limits.resumed),
            Phase::Done | Phase::Failed | Phase::Cancelled if self.verified => return None,
            Phase::Failed | Phase::Cancelled if self.want_of_end() == Want::Blackhole => {
                (self.heard, limits.stopped)
            }
            Phase::Done | Phase::Failed | Phase::Cancelled => (self.heard, VERIFY),
        };
        Some(from.saturating_add(limit))
    }

    /// Whether nothing is left to do: it can be forgotten.
    pub fn is_over(&self, now: Micros, rules: &Rules) -> bool {
        self.phase.is_end() && self.verified && self.want(now, rules) == Want::Nothing
    }
}

/// Whether the VM's own monitor says otherwise: of the CPUs of a VM on this host it knows more than anybody else.
fn contradicts(event: &Event, here: Here) -> bool {
    if matches!(event.source, Source::Qmp | Source::Watchdog) {
        return false;
    }
    match (event.what, here) {
        // Late news of a stop that is over. An operator may be about to stop it.
        (What::Stopped | What::HandedOver, Here::Running | Here::Migrating) => {
            event.source != Source::Operator
        }
        (What::Resumed(Place::There) | What::Done(Place::There), Here::Running | Here::Migrating) => true,
        (What::Resumed(Place::Here) | What::Done(Place::Here), here) => here.runs() == Some(false),
        _ => false,
    }
}
