//! Depths from counters: what lbx sent to a vNIC, less what its device counts as taken or dropped. For hosts whose
//! kernel has no type information or does not let its memory be read.

use std::time::{Duration, Instant};

use anyhow::Result;
use lbx_common::queue::{Counted as Depth, Totals};

use super::{Reader, Sample, Vnic, devices};
use crate::control::{Names, map_name};
use crate::datapath::{Instance, Maps};

/// Counters change no faster than this costs: a look is a system call for each target, and a file of all devices.
pub const INTERVAL: Duration = Duration::from_millis(100);

/// The reader.
pub struct Counted {
    maps: Maps,
    vnics: Vec<Followed>,
}

struct Followed {
    ifindex: u32,
    name: String,
    // Indices of its targets in the maps.
    targets: Vec<u32>,
    size: u32,
    depth: Option<(Depth, Totals, Instant)>,
    missing: Option<&'static str>,
}

impl Counted {
    /// For the maps of an instance.
    ///
    /// # Errors
    /// They are not there.
    pub fn new(instance: &Instance) -> Result<Self> {
        Ok(Self { maps: Maps::open_pinned(instance)?, vnics: Vec::new() })
    }

    fn sent(&self, targets: &[u32]) -> Result<u64> {
        targets.iter().try_fold(0, |sum, target| {
            Ok(sum + self.maps.target_packets_by_cpu(*target)?.iter().sum::<u64>())
        })
    }
}

impl Reader for Counted {
    fn source(&self) -> &'static str {
        "packet counts"
    }

    fn follow(&mut self, vnics: &[Vnic]) -> Result<()> {
        let names = Names::adopt(&&self.maps)?;
        let index = |name: &String| names.targets.get(&map_name(name)).map(|index| u32::from(*index));
        let mut old = std::mem::take(&mut self.vnics);
        self.vnics = vnics
            .iter()
            .map(|vnic| {
                let targets: Vec<u32> = vnic.targets.iter().filter_map(index).collect();
                let same = |one: &Followed| one.ifindex == vnic.ifindex && one.targets == targets;
                match old.iter().position(same) {
                    Some(at) => old.swap_remove(at),
                    None => Followed {
                        ifindex: vnic.ifindex,
                        name: vnic.name.clone(),
                        targets,
                        size: devices::room(&vnic.name).unwrap_or(0),
                        depth: None,
                        missing: None,
                    },
                }
            })
            .collect();
        Ok(())
    }

    fn read(&mut self, now: Instant, samples: &mut Vec<Sample>) -> Result<()> {
        let devices = devices::read()?;
        for n in 0..self.vnics.len() {
            let sent = self.sent(&self.vnics[n].targets)?;
            let one = &mut self.vnics[n];
            let Some(device) = devices.get(&one.name) else {
                one.missing = Some("its tap is gone");
                one.depth = None;
                continue;
            };
            one.missing = None;
            let totals = Totals { sent, taken: device.tx_packets, drops: device.tx_dropped };
            let (depth, first, since) = one.depth.get_or_insert_with(|| (Depth::new(totals), totals, now));
            let ms = now.saturating_duration_since(*since).as_millis() as u64;
            samples.push(Sample {
                vnic: n,
                queue: None,
                depth: depth.depth(totals, one.size, ms),
                size: one.size,
                peak: None,
                taken: totals.taken.saturating_sub(first.taken),
                drops: totals.drops.saturating_sub(first.drops),
            });
        }
        Ok(())
    }

    fn missing(&self, vnic: usize) -> Option<&'static str> {
        self.vnics.get(vnic)?.missing
    }
}
