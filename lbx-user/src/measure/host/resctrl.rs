//! Memory bandwidth and use of the last-level cache, where the CPU counts them (Intel RDT, AMD QoS): resctrl
//! (Documentation/filesystems/resctrl.rst), if it is mounted. lbx mounts nothing and makes no group.

use std::time::Instant;

use crate::measure::files::Files;
use crate::measure::rate::Counters;
use crate::measure::take::Taken;

const ROOT: &str = "/sys/fs/resctrl";
const SOURCE: &str = "resctrl";

pub(super) fn sample(counters: &mut Counters, files: &impl Files, at: Instant) -> [Taken; 2] {
    let bytes = sum(files, "mbm_total_bytes").map(|bytes| counters.per_second("memory bandwidth", at, bytes));
    let cache = sum(files, "llc_occupancy").map(|bytes| Some(bytes as f64));
    let taken = |metric, value| Taken { metric, value, source: SOURCE };
    [taken("host_memory_bandwidth", bytes), taken("host_cache", cache)]
}

/// An event over all domains of all control groups; the root is one, and each counts its own tasks.
fn sum(files: &impl Files, event: &str) -> Result<u64, String> {
    let names = files.names(ROOT).map_err(|_| {
        format!("{ROOT} is not mounted, or the CPU does not count (`mount -t resctrl resctrl {ROOT}`)")
    })?;
    let groups = names.iter().filter(|name| !["info", "mon_data", "mon_groups"].contains(&name.as_str()));
    let groups = groups.map(|name| format!("{ROOT}/{name}")).chain([ROOT.to_owned()]);
    let mut total = None;
    for group in groups {
        // Plain files of the root have nothing below them.
        for domain in files.names(&format!("{group}/mon_data")).unwrap_or_default() {
            let text = files.text(&format!("{group}/mon_data/{domain}/{event}"));
            // `Unavailable` and `Error` are no numbers; then the sum would lie.
            let Ok(text) = text else { continue };
            let bytes: u64 = text.trim().parse().map_err(|_| format!("{event}: {}", text.trim()))?;
            total = Some(total.unwrap_or(0u64).saturating_add(bytes));
        }
    }
    total.ok_or_else(|| format!("the CPU does not count {event}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::measure::files::Texts;

    fn files(bytes: &str) -> Texts {
        let mut files = Texts::default();
        files.set(&format!("{ROOT}/schemata"), "L3:0=fff\n");
        files.set(&format!("{ROOT}/info/L3_MON/num_rmids"), "8\n");
        for (group, domain) in [("", "mon_L3_00"), ("", "mon_L3_01"), ("/vms", "mon_L3_00")] {
            files.set(&format!("{ROOT}{group}/mon_data/{domain}/mbm_total_bytes"), bytes);
            files.set(&format!("{ROOT}{group}/mon_data/{domain}/llc_occupancy"), "100\n");
        }
        files
    }

    #[test]
    fn all_domains_of_all_groups_count() {
        let (mut counters, start) = (Counters::default(), Instant::now());
        let [_, cache] = sample(&mut counters, &files("1000\n"), start);
        assert_eq!(cache.value, Ok(Some(300.0)));
        let [bandwidth, _] = sample(&mut counters, &files("2000\n"), start + Duration::from_secs(1));
        assert_eq!(bandwidth.value, Ok(Some(3000.0)));
    }

    #[test]
    fn what_the_cpu_does_not_say_is_told() {
        let (mut counters, at) = (Counters::default(), Instant::now());
        let [bandwidth, cache] = sample(&mut counters, &files("Unavailable\n"), at);
        assert_eq!(bandwidth.value, Err("mbm_total_bytes: Unavailable".to_owned()));
        assert!(cache.value.is_ok());
        let [bandwidth, _] = sample(&mut counters, &Texts::default(), at);
        assert!(bandwidth.value.unwrap_err().contains("not mounted"));
        let mut bare = Texts::default();
        bare.set(&format!("{ROOT}/schemata"), "");
        let [bandwidth, _] = sample(&mut counters, &bare, at);
        assert!(bandwidth.value.unwrap_err().contains("does not count"));
    }
}
