//! Targets that are said to have moved before their flows can follow them: their packets are dropped and counted until
//! the way to the new host is known.

use lbx_common::target::State;

use super::core::Core;

impl Core {
    /// Why the flows of a target cannot follow it now, if it is said to have moved. `name`: in full.
    pub(super) fn held_up(&self, name: &str) -> Option<String> {
        let want = self.book.state(name);
        if want.state != State::Moved && want.fallback != State::Moved {
            return None;
        }
        self.reconciler
            .unready(name)
            .map(|why| format!("its packets are dropped until they can follow it: {why}"))
    }

    /// Whether any target waits so: its state has to be renewed, and the host looked at.
    pub(super) fn waits(&self) -> bool {
        self.reconciler.any_unready()
            && self
                .desired
                .targets()
                .any(|(service, target)| self.held_up(&target.full_name(&service.name)).is_some())
    }

    /// Whether there are tunnels: where a target's flows go then depends on the host it moves to.
    pub(super) fn tunnels(&self) -> bool {
        self.config.peers.as_ref().is_some_and(|peers| peers.tunnel.is_some())
    }

    /// What the status says of them.
    pub(super) fn way_notes(&self) -> impl Iterator<Item = String> {
        self.desired.targets().filter_map(|(service, target)| {
            let name = target.full_name(&service.name);
            Some(format!("{name} moved: {}", self.held_up(&name)?))
        })
    }
}
