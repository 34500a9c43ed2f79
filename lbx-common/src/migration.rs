//! Migration of a VM as events and phases.
//!
//! Everybody who knows something about a migration says it as an [`Event`]: QEMU's monitor, libvirt, an operator or
//! orchestrator by CLI or API, the lbx of another host, a watchdog. Events may come twice, late, in the wrong order or
//! not at all; which phase follows from them, what the targets of the VM are to do meanwhile, and how it ends when
//! nobody says anything more, is decided here and nowhere else: events go into a [`Machine`], what it [`Want`]s of the
//! VM's targets comes out, and when nothing is heard for too long it goes by the [`Facts`].

mod facts;
mod machine;
#[cfg(test)]
mod tests;
mod want;

pub use facts::{Facts, Here, There};
pub use machine::{Heard, Machine, Role};
pub use want::{Limits, Rules, Want, grown};

/// Where a migration stands, as far as this host knows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Phase {
    /// It will begin.
    Announced = 0,
    /// Memory is being sent while the VM runs.
    Transferring = 1,
    /// The VM is stopped: it runs nowhere.
    Stopped = 2,
    /// It runs again, here or elsewhere; whoever migrates it has not finished yet.
    Resumed = 3,
    /// It ended well.
    Done = 4,
    /// It ended, and not as was wanted.
    Failed = 5,
    /// Somebody ended it.
    Cancelled = 6,
}

impl Phase {
    /// All phases, by number.
    pub const ALL: [Self; 7] = [
        Self::Announced,
        Self::Transferring,
        Self::Stopped,
        Self::Resumed,
        Self::Done,
        Self::Failed,
        Self::Cancelled,
    ];

    /// Its name in the CLI, the API, the log and Prometheus.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Announced => "announced",
            Self::Transferring => "transferring",
            Self::Stopped => "stopped",
            Self::Resumed => "resumed",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// From its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.name() == name)
    }

    /// Whether nothing follows any more.
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// On which side of this host something is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Place {
    /// On this host.
    Here,
    /// On another one: [`Event::host`] says which, if it is known.
    There,
}

impl Place {
    /// Its name in the CLI, the API and the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::There => "there",
        }
    }
}

/// What happened, as seen from this host: who passes on an event of another host turns `Here` and `There` round.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum What {
    /// The VM will be migrated away from where it runs.
    Announced,
    /// A process on this host waits to be sent the VM (QEMU's `inmigrate`).
    Expected,
    /// Memory is being sent; said again with every pass over it.
    Transferring,
    /// The VM was stopped, wherever it ran.
    Stopped,
    /// The host it ran on has sent everything; it will run elsewhere in a moment.
    HandedOver,
    /// Its CPUs run again.
    Resumed(Place),
    /// The migration is over and the VM runs.
    Done(Place),
    /// The migration failed; the VM runs, or will, where it ran before.
    Failed,
    /// The same because somebody wished so.
    Cancelled,
}

impl What {
    /// The phase it speaks of.
    pub const fn phase(self) -> Phase {
        match self {
            Self::Announced | Self::Expected => Phase::Announced,
            Self::Transferring => Phase::Transferring,
            Self::Stopped | Self::HandedOver => Phase::Stopped,
            Self::Resumed(_) => Phase::Resumed,
            Self::Done(_) => Phase::Done,
            Self::Failed => Phase::Failed,
            Self::Cancelled => Phase::Cancelled,
        }
    }

    /// Its name in records and the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expected => "expected",
            Self::HandedOver => "handed_over",
            other => other.phase().name(),
        }
    }
}

/// Who says so.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Source {
    /// The monitor of the VM's QEMU on this host: what it says of the VM's CPUs is a fact.
    Qmp = 0,
    /// libvirt on this host.
    Libvirt = 1,
    /// A person or an orchestrator, by CLI or API.
    Operator = 2,
    /// The lbx of another host.
    Peer = 3,
    /// Nobody for too long: what was found when it was looked.
    Watchdog = 4,
}

impl Source {
    /// All sources, by number.
    pub const ALL: [Self; 5] = [Self::Qmp, Self::Libvirt, Self::Operator, Self::Peer, Self::Watchdog];

    /// Its name in records, the log and Prometheus.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qmp => "qmp",
            Self::Libvirt => "libvirt",
            Self::Operator => "operator",
            Self::Peer => "peer",
            Self::Watchdog => "watchdog",
        }
    }
}

/// Microseconds of `CLOCK_MONOTONIC` on this host.
pub type Micros = u64;

/// One piece of news about the migration of a VM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// What happened.
    pub what: What,
    /// Who says so.
    pub source: Source,
    /// When this host heard of it.
    pub at: Micros,
    /// The other host, by the name it has in the config of this one, if it is known: where the VM goes to or comes
    /// from.
    pub host: Option<String>,
}

impl Event {
    /// An event that names no other host.
    pub const fn new(what: What, source: Source, at: Micros) -> Self {
        Self { what, source, at, host: None }
    }

    /// The same with the other host.
    #[must_use]
    pub fn with_host(self, host: impl Into<String>) -> Self {
        Self { host: Some(host.into()), ..self }
    }
}
