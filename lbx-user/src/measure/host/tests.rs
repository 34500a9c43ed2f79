use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::measure::catalogue;
use crate::measure::files::Texts;

fn dev(received: u64, sent: u64) -> String {
    format!(
        "Inter-|   Receive                                                |  Transmit\n \
         face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo \
         colls carrier compressed\n  eth0: {received} 1 0 0 0 0 0 0 {sent} 1 0 0 0 0 0 0\n    \
         lo: 9999999 1 0 0 0 0 0 0 9999999 1 0 0 0 0 0 0\n"
    )
}

fn disk(sectors: u64, busy: u64) -> String {
    let line = |name| format!(" 8 0 {name} 1 0 {sectors} 1 1 0 0 1 0 {busy} 1\n");
    format!("{}{}{}", line("vda"), line("vda1"), line("dm-0"))
}

fn pressure(total: u64) -> String {
    let line = |kind| format!("{kind} avg10=0.00 avg60=0.00 avg300=0.00 total={total}\n");
    line("some") + &line("full")
}

fn busy(seconds: u64) -> Texts {
    let mut files = Texts::default();
    let (user, idle) = (100 + seconds * 50, 100 + seconds * 150);
    files.set(STAT, format!("cpu  {user} 0 0 {idle} 0 0 0 0\ncpu0 0\ncpu1 0\nprocs_running 4\n"));
    files.set(MEMINFO, "MemTotal: 1000 kB\nMemFree: 10 kB\nMemAvailable: 250 kB\nBuffers: 0 kB\nCached: 0 kB\n\
        SwapCached: 0 kB\nActive: 0 kB\nInactive: 0 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\nDirty: 0 kB\n\
        Writeback: 0 kB\nMapped: 0 kB\nSlab: 0 kB\nCommitted_AS: 0 kB\nVmallocTotal: 0 kB\nVmallocUsed: 0 kB\n\
        VmallocChunk: 0 kB\n");
    files.set(VMSTAT, format!("pswpin {seconds}\npswpout 0\n"));
    files.set(nic::NET_DEV, dev(seconds * 1_000, seconds * 4_000));
    files.set("/proc/diskstats", disk(seconds * 20, seconds * 300));
    for kind in ["cpu", "memory", "io"] {
        files.set(&format!("/proc/pressure/{kind}"), pressure(seconds * 100_000));
    }
    files
}

fn values(taken: Vec<Taken>) -> BTreeMap<&'static str, Result<Option<f64>, String>> {
    taken.into_iter().map(|one| (one.metric, one.value)).collect()
}

#[test]
fn every_figure_of_a_host() {
    let uplinks = [
        Speed { name: "eth0".into(), bytes: Some(10_000.0) },
        Speed { name: "gone".into(), bytes: Some(1.0) },
    ];
    let (mut host, start) = (Host::default(), Instant::now());
    let first = values(host.sample(&busy(0), &uplinks, start));
    assert_eq!(first["host_cpu"], Ok(None), "a share of time needs two looks");
    let now = values(host.sample(&busy(2), &uplinks, start + Duration::from_secs(2)));
    let expected = [
        ("host_cpu", 0.25),
        ("host_runqueue", 2.0),
        ("host_memory", 0.75),
        ("host_paging", procfs::page_size() as f64),
        ("host_nic", 0.4),
        ("host_net", 5_000.0),
        ("host_disk", 20.0 * 512.0),
        ("host_disk_busy", 0.3),
        ("host_cpu_pressure", 0.1),
        ("host_memory_pressure", 0.1),
        ("host_io_pressure", 0.1),
    ];
    for (metric, value) in expected {
        let got = now[metric].clone().unwrap().unwrap();
        assert!((got - value).abs() < 1e-6, "{metric}: {got}, not {value}");
        assert!(catalogue::find(metric).is_some());
    }
    assert_eq!(now.len(), expected.len() + 2, "and two that this CPU does not count");
}

#[test]
fn what_is_not_there_has_a_reason_and_hides_nothing_else() {
    let mut host = Host::default();
    let none = values(host.sample(&Texts::default(), &[], Instant::now()));
    assert!(none.values().all(Result::is_err), "{none:?}");
    assert!(none["host_io_pressure"].clone().unwrap_err().contains("CONFIG_PSI"));

    let mut files = busy(0);
    files.0.remove(VMSTAT);
    let unknown = [Speed { name: "eth0".into(), bytes: None }];
    let start = Instant::now();
    host = Host::default();
    host.sample(&files, &unknown, start);
    let taken = values(host.sample(&files, &unknown, start + Duration::from_secs(1)));
    assert_eq!(taken["host_nic"], Err("eth0 does not say its speed".to_owned()));
    assert_eq!(taken["host_net"], Ok(Some(0.0)));
    assert!(taken["host_paging"].is_err() && taken["host_memory"].is_ok());
}

#[test]
fn this_host_is_readable() {
    let mut host = Host::default();
    let taken = values(host.sample(&crate::measure::files::System, &[], Instant::now()));
    let share = taken["host_memory"].clone().unwrap().unwrap();
    assert!((0.0..=1.0).contains(&share), "{share}");
    assert!(taken["host_runqueue"].clone().unwrap().unwrap() > 0.0, "this test runs");
}
