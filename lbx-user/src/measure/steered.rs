//! What the datapath itself knows of targets: recorded flows, packets, weights. Read only where a formula asks.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::board::{Reading, Shared};
use super::catalogue::find;
use crate::datapath::{Error, Maps};

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Of a look's cost, this many times as long passes until the next: a large flow table is read less often, but
/// never so seldom that readings go stale.
const SPARING: u32 = 50;

/// The metrics from here.
pub const NAMES: [&str; 3] = ["open_flows", "packets", "weight"];

/// Remembers when to look again, and what was counted last.
#[derive(Debug, Default)]
pub struct Steered {
    next: Option<Instant>,
    packets: BTreeMap<String, (u64, Instant)>,
}

/// A target to look at.
#[derive(Debug, Clone)]
pub struct Of {
    /// Its full name.
    pub name: String,
    /// Its index in the maps.
    pub index: u16,
    /// Its configured weight, or the operator's.
    pub weight: u32,
}

impl Steered {
    /// Whether it is time to look.
    pub fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| now >= next)
    }

    /// Looks, and puts onto the board what `names` has. Only what is named costs anything.
    ///
    /// # Errors
    /// The maps could not be read.
    pub fn look(
        &mut self,
        maps: &Maps,
        of: &[Of],
        names: &[&str],
        stale_after: Duration,
        board: &Shared,
    ) -> Result<(), Error> {
        let started = Instant::now();
        self.next = Some(started + EVERY);
        let most = of.iter().map(|one| u32::from(one.index) + 1).max().unwrap_or(0);
        let flows = if names.contains(&"open_flows") { Some(maps.open_flows(most)?) } else { None };
        let counted = if names.contains(&"packets") { Some(maps.counters(0, most)?) } else { None };
        let (now, cost) = (Instant::now(), started.elapsed());
        let mut readings = Vec::new();
        for one in of {
            let index = usize::from(one.index);
            let mut read = |name, value, source| {
                let reading = Reading { value, at: now, source, cost };
                readings.extend(find(name).map(|metric| (metric, one.name.as_str(), reading)));
            };
            if let Some(flows) = &flows {
                read("open_flows", flows[index] as f64, "flow table");
            }
            if let Some(counters) = &counted {
                let packets = counters.targets.get(index).map_or(0, |own| own.packets);
                let before = self.packets.insert(one.name.clone(), (packets, now));
                if let Some((before, at)) = before.filter(|(before, at)| *before <= packets && *at < now) {
                    let seconds = now.duration_since(at).as_secs_f64();
                    read("packets", (packets - before) as f64 / seconds, "counters");
                }
            }
            if names.contains(&"weight") {
                read("weight", f64::from(one.weight), "config");
            }
        }
        let mut board = board.lock();
        for (metric, name, reading) in readings {
            board.put(metric, name, reading);
        }
        drop(board);
        self.packets.retain(|name, _| of.iter().any(|one| one.name == *name));
        self.next = Some(started + EVERY.max(started.elapsed() * SPARING).min(stale_after / 2));
        Ok(())
    }
}
