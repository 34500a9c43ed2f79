//! Packets of a VM that is stopped wait at the host it goes to, if they can: who can, and what became of them.

use std::collections::{BTreeMap, BTreeSet};

use lbx_common::migration::{Machine, Want};

use super::super::core::Core;
use super::super::peers::vm_here;
use super::Wanted;
use crate::control::desired::{Moves, TargetWant};
use crate::migration::ledger::Record;

/// What was sent on to wait.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    /// Packets to a target (full name) so far, when its packets began to wait.
    since: BTreeMap<String, u64>,
    /// Of those that ended well, since the daemon started.
    delivered: u64,
    /// Of those where the VM did not come to run there.
    lost: u64,
}

/// What is wanted of one target: to wait only if its packets can; else they are dropped.
pub(super) fn or_drop(wanted: Wanted, waits: bool) -> Wanted {
    if wanted.want != Want::Hold || waits {
        return wanted;
    }
    Wanted { want: Want::Blackhole, ..wanted }
}

/// Whose packets begin to wait, and whose do not any more with what is wanted instead.
pub(super) fn turns(
    before: &BTreeMap<String, Want>,
    after: &BTreeMap<String, Want>,
) -> Vec<(String, Option<Want>)> {
    let holds = |wants: &BTreeMap<String, Want>, target| wants.get(target) == Some(&Want::Hold);
    let begin = after.keys().filter(|target| holds(after, *target) && !holds(before, *target));
    let end = before.keys().filter(|target| holds(before, *target) && !holds(after, *target));
    let ended = |target: &String| after.get(target).copied().unwrap_or_default();
    begin
        .map(|target| (target.clone(), None))
        .chain(end.map(|target| (target.clone(), Some(ended(target)))))
        .collect()
}

impl Core {
    /// The targets whose packets would wait at their VM's new host: the way goes through a tunnel and is known, and the
    /// lbx at its end says that it puts them straight into the VM's queue.
    pub(super) fn who_can_wait(&self) -> BTreeSet<String> {
        let mut can = BTreeSet::new();
        if !self.config.migration.rules().hold {
            return can;
        }
        for record in self.migrations.ledger.open.values() {
            let Some(host) = record.host.as_deref() else { continue };
            if self.peers.table.holds(host, &vm_here(&record.vm)) {
                can.extend(
                    record.targets.iter().filter(|target| self.leads_to(target, host, record)).cloned(),
                );
            }
        }
        can
    }

    fn leads_to(&self, name: &str, host: &str, record: &Record) -> bool {
        let is = |target: &TargetWant| {
            let through = match &target.moves {
                Moves::To(place) => place.through.is_some(),
                // It is gone from here, or its next hop is silent: what was prepared stands.
                Moves::Waiting { .. } => true,
                Moves::AsBefore | Moves::Nowhere => false,
            };
            through && target.host.as_deref() == Some(host)
        };
        let known =
            || self.desired.targets().find(|(service, target)| target.full_name(&service.name) == name);
        let over = Machine::want(&record.machine, crate::migration::now(), &self.config.migration.rules());
        over != Want::Nothing
            && self.reconciler.unready(name).is_none()
            && known().is_some_and(|one| is(one.1))
    }

    /// Packets of targets began to wait, or do so no more.
    pub(super) fn note_waiting(&mut self, turns: Vec<(String, Option<Want>)>) {
        for (target, ended) in turns {
            let packets = self.packets_to(&target);
            let held = &mut self.migrations.held;
            let Some(want) = ended else {
                tracing::info!("{target}: its packets wait at its new host from now on");
                held.since.insert(target, packets);
                continue;
            };
            let waited = packets.saturating_sub(held.since.remove(&target).unwrap_or(packets));
            if want == Want::Moved {
                held.delivered += waited;
                tracing::info!("{target}: {waited} packets waited at its new host until it ran");
            } else {
                held.lost += waited;
                tracing::warn!(
                    "{target}: {waited} packets that were sent to its new host to wait there are lost: {}",
                    want.reason()
                );
            }
        }
    }

    /// Packets that waited and were delivered, and those that waited in vain, since the daemon started; those that wait
    /// now are neither.
    pub fn waited(&self) -> (u64, u64) {
        (self.migrations.held.delivered, self.migrations.held.lost)
    }

    /// Packets that a target was sent so far, 0 if nobody knows.
    fn packets_to(&self, target: &str) -> u64 {
        let index = self.places().get(target).map(|(index, _)| u32::from(*index));
        let counted = index.map(|index| self.datapath.maps().target_packets_by_cpu(index));
        match counted {
            Some(Ok(packets)) => packets.iter().sum(),
            Some(Err(error)) => {
                tracing::debug!("{target}: {error}");
                0
            }
            None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use lbx_common::target::State;

    use super::*;

    #[test]
    fn who_cannot_wait_is_dropped_and_turns_are_noticed() {
        let hold = Wanted { want: Want::Hold, falls_back: State::Draining, spared: true };
        assert_eq!(or_drop(hold, true).want, Want::Hold);
        let dropped = or_drop(hold, false);
        assert_eq!((dropped.want, dropped.falls_back), (Want::Blackhole, State::Draining));
        assert_eq!(or_drop(Wanted { want: Want::Moved, ..hold }, false).want, Want::Moved);
        let wants = |all: &[(&str, Want)]| -> BTreeMap<String, Want> {
            all.iter().map(|(target, want)| ((*target).to_owned(), *want)).collect()
        };
        let before = wants(&[("a", Want::Hold), ("b", Want::Drain(0)), ("c", Want::Hold), ("d", Want::Hold)]);
        let after = wants(&[("a", Want::Moved), ("b", Want::Hold), ("c", Want::Hold)]);
        let turns = turns(&before, &after);
        let expected = [("b", None), ("a", Some(Want::Moved)), ("d", Some(Want::Nothing))];
        assert_eq!(turns, expected.map(|(target, want)| (target.to_owned(), want)));
    }
}
