//! Flows of datagrams that nobody ends: a VM that is about to be migrated does not keep them for ever.

use lbx_common::migration::{Micros, Rules};

use super::super::core::Core;

impl Core {
    /// Frees the UDP flows of VMs that have been drained for as long as `[migration] udp` allows: the next packet of
    /// each chooses a target anew, and that is none that is drained. Once in a migration: under a drain of less than
    /// everything some come back, and stay.
    pub(super) fn part_datagrams(&mut self, at: Micros, rules: &Rules) {
        let open = &self.migrations.ledger.open;
        self.migrations.parted.retain(|id| open.values().any(|record| record.id == *id));
        let parts: Vec<_> = open
            .values()
            .filter(|record| {
                !self.migrations.parted.contains(&record.id) && record.machine.parts(record.began, at, rules)
            })
            .map(|record| (record.id, record.vm.clone(), record.targets.clone()))
            .collect();
        if parts.is_empty() {
            return;
        }
        let places = self.places();
        for (id, vm, targets) in parts {
            self.migrations.parted.insert(id);
            // One that is the last of its service would get them back.
            for target in targets.iter().filter(|target| !self.migrations.is_last(target)) {
                let Some((index, _)) = places.get(target) else { continue };
                match self.datapath.maps().clear_datagrams_of((*index).into()) {
                    Ok(0) => {}
                    Ok(freed) => {
                        let udp = self.config.migration.udp;
                        tracing::info!(
                            "{target}: {vm} has been drained for {udp:?}; {freed} UDP flows are chosen anew"
                        );
                    }
                    Err(error) => tracing::error!("the UDP flows of {target} could not be freed: {error}"),
                }
            }
        }
    }
}
