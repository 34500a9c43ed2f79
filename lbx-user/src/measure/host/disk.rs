//! Disks: /proc/diskstats (Documentation/admin-guide/iostats.rst), whole disks with hardware behind them.

use std::time::Instant;

use procfs::{DiskStats, FromBufRead};

use crate::measure::files::Files;
use crate::measure::rate::Counters;
use crate::measure::take::Taken;

const DISKSTATS: &str = "/proc/diskstats";
const SECTOR: u64 = 512;

/// Loop devices, device mapper, RAID and zram would count twice what the disks below them do, or memory.
fn stacked(name: &str) -> bool {
    ["loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd"].iter().any(|prefix| name.starts_with(prefix))
}

/// A partition of one of the disks in the list: `sda1` of `sda`, `nvme0n1p1` of `nvme0n1`.
fn partition(name: &str, disks: &[&str]) -> bool {
    disks.iter().any(|disk| {
        let rest = name.strip_prefix(disk).unwrap_or_default();
        let number = if disk.ends_with(|c: char| c.is_ascii_digit()) {
            rest.strip_prefix('p').unwrap_or_default()
        } else {
            rest
        };
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

pub(super) fn sample(counters: &mut Counters, files: &impl Files, at: Instant) -> [Taken; 2] {
    let text = files.text(DISKSTATS).map_err(|error| error.to_string());
    let stats =
        text.and_then(|text| DiskStats::from_buf_read(text.as_bytes()).map_err(|error| error.to_string()));
    let stats = match stats {
        Ok(stats) => stats.0,
        Err(error) => {
            let missing = |metric| Taken::new(metric, DISKSTATS, Err(&error));
            return [missing("host_disk"), missing("host_disk_busy")];
        }
    };
    let names: Vec<&str> = stats.iter().map(|disk| disk.name.as_str()).collect();
    let (mut bytes, mut busiest) = (None, None);
    for disk in stats.iter().filter(|disk| !stacked(&disk.name) && !partition(&disk.name, &names)) {
        let sectors = disk.sectors_read.saturating_add(disk.sectors_written);
        let moved = counters.per_second(&format!("{} sectors", disk.name), at, sectors);
        let busy = counters.per_second(&format!("{} busy", disk.name), at, disk.time_in_progress);
        if let Some(moved) = moved {
            bytes = Some(bytes.unwrap_or(0.0) + moved * SECTOR as f64);
        }
        if let Some(millis) = busy {
            busiest = Some(f64::max(busiest.unwrap_or(0.0), (millis / 1e3).min(1.0)));
        }
    }
    let taken = |metric, value| Taken { metric, value: Ok(value), source: DISKSTATS };
    [taken("host_disk", bytes), taken("host_disk_busy", busiest)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_disks_only() {
        let all = ["sda", "sda1", "sda12", "sdaa", "nvme0n1", "nvme0n1p2", "vda", "mmcblk0", "mmcblk0p1"];
        let whole: Vec<_> = all.into_iter().filter(|name| !partition(name, &all)).collect();
        assert_eq!(whole, ["sda", "sdaa", "nvme0n1", "vda", "mmcblk0"]);
        assert!(stacked("dm-0") && stacked("zram0") && !stacked("sda"));
    }
}
