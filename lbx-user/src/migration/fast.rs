//! What is stored the moment a VM stops or resumes, by whoever hears its monitor, and the moment a peer says that it
//! runs there, by whoever hears the peer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

use super::VmId;
use super::arrival::{Arrival, Herald};
use crate::datapath::{Flip, Flips};
use crate::peers::message::VmHere;

/// Frames that are not sent to a peer yet, at most: one for each VM that arrives. Beyond, the peer hears of it as a
/// step of its migration.
const FRAMES: usize = 64;

/// What a monitor hears that must not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The VM's CPUs are stopped.
    Stop,
    /// They run again.
    Resume,
}

/// What follows for the targets of one VM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Armed {
    /// From a stop.
    pub stop: Vec<Flip>,
    /// From a resumption.
    pub resume: Vec<Flip>,
    /// Where it arrives then.
    pub arrivals: Vec<Arrival>,
    /// What peers are told of that, as a frame.
    pub tell: Option<Frame>,
}

/// A message to peers as it goes over the wire.
pub type Frame = Arc<[u8]>;

/// By process id and start time.
pub type ByVm = BTreeMap<(u32, u64), Armed>;

/// What follows for the targets of a VM when a peer says that it runs there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct There {
    /// As peers know it.
    pub vm: VmHere,
    /// As the core knows it.
    pub id: VmId,
    /// Who may say so: the host it goes to.
    pub peer: String,
    /// Its process here (id and start time), if it has one.
    pub process: Option<(u32, u64)>,
    /// What is stored.
    pub flips: Vec<Flip>,
}

/// Which of them a peer speaks of. `runs`: the monitor of a process says that the VM runs here, which it knows better.
fn meant<'a>(
    there: &'a [There],
    peer: &str,
    vm: &VmHere,
    runs: impl Fn((u32, u64)) -> bool,
) -> Option<&'a There> {
    // Names alone may be those of others.
    let known = |one: &There| {
        let uuid = one.vm.uuid.is_some() && one.vm.uuid == vm.uuid;
        one.vm.is_same(vm) && (uuid || one.vm.macs.iter().any(|mac| vm.macs.contains(mac)))
    };
    let mut all = there.iter().filter(|one| one.peer == peer && known(one));
    match (all.next(), all.next()) {
        (Some(one), None) => Some(one).filter(|one| !one.process.is_some_and(runs)),
        _ => None,
    }
}

/// What the core has worked out beforehand, shared with those who hear monitors and peers.
#[derive(Debug, Clone, Default)]
pub struct Fast(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    flips: Option<Flips>,
    herald: Option<Herald>,
    armed: ByVm,
    there: Vec<There>,
    frames: broadcast::Sender<Frame>,
}

impl Default for Inner {
    fn default() -> Self {
        let frames = broadcast::Sender::new(FRAMES);
        Self { flips: None, herald: None, armed: ByVm::new(), there: Vec::new(), frames }
    }
}

impl Inner {
    /// The targets that were written.
    fn store(&self, which: &[Flip]) -> Vec<u32> {
        let Some(flips) = &self.flips else { return Vec::new() };
        flips.flip(which).unwrap_or_else(|error| {
            tracing::warn!("{error}: the core writes it");
            Vec::new()
        })
    }
}

impl Fast {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on stores go into these maps.
    pub fn open(&self, flips: Flips) {
        let herald = Herald::open();
        if let Err(error) = &herald {
            tracing::warn!("VMs that arrive are announced by their QEMU only: {error}");
        }
        let mut inner = self.lock();
        (inner.flips, inner.herald) = (Some(flips), herald.ok());
    }

    /// What is to be stored and told from now on.
    pub fn arm(&self, armed: ByVm, there: Vec<There>) {
        let mut inner = self.lock();
        (inner.armed, inner.there) = (armed, there);
    }

    /// Frames that peers are to be sent before all else, from now on.
    pub fn frames(&self) -> broadcast::Receiver<Frame> {
        self.lock().frames.subscribe()
    }

    /// It happened: stores what follows, and tells peers. The targets that were written, to be released once the core
    /// knows.
    pub fn fire(&self, pid: u32, start_time: u64, trigger: Trigger) -> Vec<u32> {
        let inner = self.lock();
        let Some(armed) = inner.armed.get(&(pid, start_time)) else { return Vec::new() };
        match trigger {
            Trigger::Stop => inner.store(&armed.stop),
            Trigger::Resume => {
                // First here: what peers send on is expected then.
                let stored = inner.store(&armed.resume);
                // And nothing is sent on before it would be led here.
                for arrival in &armed.arrivals {
                    inner.herald.iter().for_each(|herald| herald.announce(arrival));
                }
                if let Some(frame) = &armed.tell {
                    // No peer is connected, perhaps.
                    let _ = inner.frames.send(Frame::clone(frame));
                }
                stored
            }
        }
    }

    /// A peer says that a VM runs there: stores what follows. Who it is, and the targets that were written; `None`:
    /// nothing was worked out for that, and the core decides.
    pub fn fire_there(
        &self,
        peer: &str,
        vm: &VmHere,
        runs: impl Fn((u32, u64)) -> bool,
    ) -> Option<(VmId, Vec<u32>)> {
        let inner = self.lock();
        let one = meant(&inner.there, peer, vm, runs)?;
        Some((one.id.clone(), inner.store(&one.flips)))
    }

    /// The core knows what was stored.
    pub fn release(&self, indices: &[u32]) {
        if let Some(flips) = &self.lock().flips {
            flips.release(indices);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(name: &str, uuid: Option<&str>, mac: Option<&str>) -> VmHere {
        VmHere {
            name: name.into(),
            uuid: uuid.map(Into::into),
            macs: mac.into_iter().map(Into::into).collect(),
            runs: None,
            holds: false,
        }
    }

    fn there(vm: VmHere, peer: &str) -> There {
        There {
            id: VmId::named(vm.name.as_str()),
            vm,
            peer: peer.into(),
            process: Some((7, 1)),
            flips: Vec::new(),
        }
    }

    #[test]
    fn only_who_it_goes_to_may_say_that_it_runs_there() {
        let mac = "52:54:00:00:00:05";
        let all = [
            there(vm("web-1", None, Some(mac)), "b"),
            there(vm("web-2", Some("0a"), None), "b"),
            there(vm("web-3", None, None), "b"),
        ];
        let says = |peer: &str, vm: VmHere, runs: bool| {
            meant(&all, peer, &vm, |process| runs && process == (7, 1)).map(|one| one.vm.name.clone())
        };
        let named = |name: &str| Some(name.to_owned());
        assert_eq!(says("b", vm("other", None, Some(mac)), false), named("web-1"), "by its MAC");
        assert_eq!(says("b", vm("", Some("0a"), None), false), named("web-2"), "by its UUID");
        assert_eq!(says("c", vm("web-1", None, Some(mac)), false), None, "it does not go there");
        assert_eq!(says("b", vm("web-1", None, Some(mac)), true), None, "its monitor says that it runs here");
        assert_eq!(says("b", vm("web-3", None, None), false), None, "a name is not enough");
        assert_eq!(says("b", vm("web-2", Some("0b"), Some(mac)), false), named("web-1"), "one has no UUID");
        assert_eq!(says("b", vm("web-4", None, Some("52:54:00:00:00:06")), false), None, "nobody knows it");
        let twice = [all[0].clone(), all[0].clone()];
        assert!(meant(&twice, "b", &vm("", None, Some(mac)), |_| false).is_none(), "which of them?");
    }

    #[test]
    fn peers_are_told_of_a_resumption_and_of_nothing_else() {
        let fast = Fast::default();
        let frame = Frame::from([1, 2, 3]);
        let armed = Armed { tell: Some(frame.clone()), ..Armed::default() };
        fast.arm(ByVm::from([((7, 1), armed), ((8, 1), Armed::default())]), Vec::new());
        fast.fire(7, 1, Trigger::Resume);
        let mut frames = fast.frames();
        for (pid, trigger) in [(7, Trigger::Stop), (8, Trigger::Resume), (9, Trigger::Resume)] {
            fast.fire(pid, 1, trigger);
        }
        assert!(frames.try_recv().is_err(), "who connects hears nothing old, and who stops runs nowhere");
        fast.fire(7, 1, Trigger::Resume);
        assert_eq!(frames.try_recv().unwrap(), frame);
    }
}
