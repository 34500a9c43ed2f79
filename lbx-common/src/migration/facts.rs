//! What can be found out about a VM when nobody says anything: the ground truth that a watchdog goes by.

/// What the VM is doing on this host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Here {
    /// There is no process of it here.
    #[default]
    Absent,
    /// A process holds its taps, and nothing more is known: it has no monitor for lbx, or that does not answer.
    Present,
    /// Its CPUs run, and no migration is under way.
    Running,
    /// Its CPUs run, and memory is being sent.
    Migrating,
    /// Its CPUs are stopped and a migration is under way: about to be handed over.
    Finishing,
    /// Its CPUs are stopped, and no migration is under way.
    Paused,
    /// The process waits to be sent the VM.
    Incoming,
    /// The process has handed the VM over.
    Gone,
}

impl Here {
    /// Whether the VM's CPUs run here, if that is known for sure.
    pub const fn runs(self) -> Option<bool> {
        match self {
            Self::Running | Self::Migrating => Some(true),
            Self::Finishing | Self::Paused | Self::Incoming | Self::Gone => Some(false),
            Self::Absent | Self::Present => None,
        }
    }

    /// Its name in records and the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Absent => "not on this host",
            Self::Present => "on this host, its monitor is not heard",
            Self::Running => "running here",
            Self::Migrating => "running here while it is sent",
            Self::Finishing => "stopped here, about to be handed over",
            Self::Paused => "stopped here",
            Self::Incoming => "awaited here",
            Self::Gone => "handed over by this host",
        }
    }
}

/// What other hosts say.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum There {
    /// Nobody says, or nobody was asked.
    #[default]
    Unknown,
    /// It runs on one of them.
    Running,
    /// It runs on none of those that matter.
    NotRunning,
    /// The one it goes to has no process of it any more.
    Gone,
}

/// Both.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Facts {
    /// On this host.
    pub here: Here,
    /// On others.
    pub there: There,
}
