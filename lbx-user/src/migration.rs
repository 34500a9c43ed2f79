//! Who is told of migrations, and by whom: the events of [`lbx_common::migration`] on their way to the core.

pub mod arrival;
pub mod ears;
pub mod facts;
pub mod fast;
pub mod ledger;

mod kept;

use lbx_common::addr::Mac;
use lbx_common::migration::Event;
pub use lbx_common::migration::Micros;
use nix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;

use crate::measure::vm::Vm;

/// How a source names a VM: by what it knows. Whatever fits one of them is meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VmId {
    /// Its name; also the name of a target (`web-1`, `vnet3`), which is all that is known of some.
    pub name: Option<String>,
    /// Its UUID, in lower case.
    pub uuid: Option<String>,
    /// MACs of its vNICs: what a target on another host is known by.
    pub macs: Vec<Mac>,
}

impl VmId {
    /// By its name.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..Self::default() }
    }
}

impl From<&Vm> for VmId {
    fn from(vm: &Vm) -> Self {
        Self { name: Some(vm.name.clone()), uuid: vm.uuid.clone(), macs: vm.macs.clone() }
    }
}

impl std::fmt::Display for VmId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mac = || self.macs.first().map(crate::config::checked::format_mac);
        let text = self.name.clone().or_else(|| self.uuid.clone()).or_else(mac);
        f.pad(text.as_deref().unwrap_or("a VM nobody named"))
    }
}

/// An event, and the VM it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The VM.
    pub vm: VmId,
    /// What happened.
    pub event: Event,
    /// How long before it was heard it happened, if its source says when it did.
    pub lag: Option<Micros>,
    /// How long after it was heard the targets' states were written, where that was done at once.
    pub written: Option<Micros>,
    /// The targets (by index) where it was; the core releases them.
    pub flipped: Vec<u32>,
}

impl Told {
    /// Without times.
    pub const fn new(vm: VmId, event: Event) -> Self {
        Self { vm, event, lag: None, written: None, flipped: Vec::new() }
    }
}

/// Where sources put in what they know; the core takes it out.
#[derive(Debug, Clone)]
pub struct Stream {
    into: mpsc::UnboundedSender<Told>,
}

impl Default for Stream {
    /// One that nobody takes from.
    fn default() -> Self {
        Self::new().0
    }
}

impl Stream {
    /// A stream, and where the core takes from it what sources say.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Told>) {
        let (into, told) = mpsc::unbounded_channel();
        (Self { into }, told)
    }

    /// Says something; from any thread, and without waiting. Nobody hears it while the daemon stops.
    pub fn tell(&self, vm: VmId, event: Event) {
        self.say(Told::new(vm, event));
    }

    /// The same with times.
    pub fn say(&self, told: Told) {
        let _ = self.into.send(told);
    }
}

/// The time now, as events carry it.
pub fn now() -> Micros {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap_or_else(|_| nix::sys::time::TimeSpec::new(0, 0));
    now.tv_sec().cast_unsigned() * 1_000_000 + now.tv_nsec().cast_unsigned() / 1_000
}
