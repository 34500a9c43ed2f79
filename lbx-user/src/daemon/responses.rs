//! Response times: which flows the datapath times, and what it found.

use std::time::Instant;

use anyhow::Result;

use super::core::Core;
use crate::measure::response::Of;

impl Core {
    /// Looks at response times, when it is time.
    pub(super) fn look_at_responses(&mut self) {
        if self.config.measure.response.is_none() || !self.flows.responses.is_due(Instant::now()) {
            return;
        }
        let each = self.config.services.iter().flat_map(|service| {
            let placed = self.reconciler.placed(&service.name);
            placed.iter().zip(&service.targets).map(|((index, _), target)| {
                let name = format!("{}/{}", service.name, target.name());
                let remote = self.host.found.iter().any(|one| one.remote && one.full_name() == name);
                Of { name, index: *index, remote }
            })
        });
        let of: Vec<Of> = each.collect();
        if let Err(error) = self.flows.responses.look(self.datapath.maps(), &of, &self.board) {
            tracing::warn!("cannot read response times: {error}");
        }
    }

    /// Tells the datapath of how many flows one is timed, and whose queues are chosen.
    pub(super) fn put_flow_settings(&self) -> Result<()> {
        let maps = self.datapath.maps();
        maps.write_sampling(self.config.measure.response.unwrap_or(0))?;
        let chosen = self.desired.targets().filter(|(_, target)| target.choose_queue && target.ifindex != 0);
        let ports = chosen.filter_map(|(_, target)| {
            let port = maps.port_of(target.ifindex).transpose()?;
            Some(port.map(|port| (target.mac, port)))
        });
        Ok(maps.choose_queues(&ports.collect::<Result<Vec<_>, _>>()?)?)
    }
}
