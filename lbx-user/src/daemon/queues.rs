//! The queues of vNICs: what the sampler watches, and what it saw.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::watch::{Receiver, channel};

use super::core::Core;
use crate::api::model::{MissingQueues, QueueRow, Queues};
use crate::control::RingsByPort;
use crate::measure::queue::{Vnic, Watch};
use crate::measure::vm;

/// Looks that may be missed before figures count as stale.
const LATE: u32 = 3;

impl Core {
    /// The vNICs of this host that targets are behind, each with all of them.
    pub(super) fn queue_watch(&self) -> Watch {
        let mut vnics: BTreeMap<u32, Vnic> = BTreeMap::new();
        // Only a VM's own port has a ring: whatever is behind an uplink waits elsewhere.
        for found in self.host.found.iter().filter(|one| one.ifindex != 0 && !one.remote) {
            let vm = vm::behind(&self.host.vms, &found.port);
            let vnic = vnics.entry(found.ifindex).or_insert_with(|| Vnic {
                ifindex: found.ifindex,
                name: found.port.clone(),
                vm: vm.map(|vm| vm.name.clone()),
                pid: vm.map(|vm| vm.pid),
                targets: Vec::new(),
            });
            vnic.targets.push(found.full_name());
        }
        vnics.retain(|index, _| self.is_tap(*index));
        Watch { interval: self.config.measure.queues, vnics: vnics.into_values().collect() }
    }

    /// Tells when rings come or go.
    pub fn ring_changes(&self) -> Receiver<RingsByPort> {
        self.queues.as_ref().map_or_else(|| channel(RingsByPort::new()).1, |queues| queues.rings())
    }

    /// Rings came or went.
    pub fn rings_changed(&mut self) {
        if let Err(error) = self.put_rings() {
            tracing::warn!("targets keep the addresses of rings they had: {error:#}");
        }
    }

    /// Enters where the rings are into the targets, and takes out those that are gone.
    pub(super) fn put_rings(&mut self) -> Result<()> {
        let rings = self.queues.as_ref().map(|queues| queues.rings().borrow().clone()).unwrap_or_default();
        self.reconciler.apply_rings(&mut self.datapath.maps(), &rings)
    }

    fn is_tap(&self, index: u32) -> bool {
        let link = self.host.view.by_index(index);
        link.is_some_and(|link| matches!(link.kind, crate::host::Kind::Tap { .. }))
    }

    /// How often the kernel told of a queue that grows.
    pub fn queues_told(&self) -> u64 {
        self.queues.as_ref().map_or(0, |queues| queues.shown().told)
    }

    /// The queues as they were last seen.
    pub fn queues(&self) -> Queues {
        let Some(shown) = self.queues.as_ref().map(crate::measure::queue::Sampler::shown) else {
            let problem = Some("the thread that looks at them could not be started".to_owned());
            return Queues { problem, ..Queues::default() };
        };
        let now = Instant::now();
        let late = shown.interval.unwrap_or_default().max(Duration::from_millis(100)) * LATE;
        let mut answer = Queues {
            interval_ms: shown.interval.map(millis),
            cost_us: shown.cost.as_secs_f64() * 1e6,
            told: shown.told,
            problem: shown.problem.clone(),
            ..Queues::default()
        };
        for (n, seen) in shown.vnics.iter().enumerate() {
            let (vnic, age) = (&seen.vnic, shown.at(n).map(|at| now.saturating_duration_since(at)));
            answer.queues.extend(seen.queues.iter().map(|queue| QueueRow {
                targets: vnic.targets.clone(),
                vm: vnic.vm.clone(),
                nic: vnic.name.clone(),
                queue: queue.queue,
                depth: queue.depth,
                size: queue.size,
                peak: queue.peak,
                rate: queue.rate,
                drop_rate: queue.drop_rate,
                drops: queue.drops,
                age_ms: age.map_or(0.0, millis),
                stale: age.is_none_or(|age| age > late),
                source: seen.source.to_owned(),
            }));
            answer.missing.extend(seen.missing.as_ref().map(|why| MissingQueues {
                targets: vnic.targets.clone(),
                vm: vnic.vm.clone(),
                nic: vnic.name.clone(),
                why: why.clone(),
            }));
        }
        answer
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
