//! What /proc says about the processes of VMs.

use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use procfs::FromBufRead;
use procfs::net::InterfaceDeviceStatus;
use procfs::process::Io;

use super::threads::{Ran, is_vcpu, schedstat};
use super::{Told, Vm, monitor};
use crate::host::vm::start_time;
use crate::measure::files::Files;
use crate::measure::rate::Counters;
use crate::measure::take::Taken;

/// Threads are looked for again after so many looks: vCPUs can be plugged in.
const SEARCH: u32 = 10;

/// All VMs, with what is remembered between two looks.
#[derive(Debug, Default)]
pub struct Vms {
    known: BTreeMap<(u32, u64), Known>,
    told: Told,
}

#[derive(Debug, Default)]
struct Known {
    counters: Counters,
    vcpus: Vec<String>,
    looks: u32,
}

impl Vms {
    /// With what monitors tell of threads.
    pub fn new(told: Told) -> Self {
        Self { known: BTreeMap::new(), told }
    }

    /// Forgets VMs that are not in the list any more.
    pub fn keep(&mut self, vms: &[Vm]) {
        self.known.retain(|key, _| vms.iter().any(|vm| (vm.pid, vm.start_time) == *key));
        self.told.keep(vms);
    }

    /// One look at one VM; nothing at all if it has ended. `interfaces`: the counters of this namespace.
    pub fn sample(
        &mut self,
        files: &impl Files,
        vm: &Vm,
        interfaces: &io::Result<InterfaceDeviceStatus>,
        at: Instant,
    ) -> Vec<Taken> {
        let root = format!("/proc/{}", vm.pid);
        let alive = files.text(&format!("{root}/stat")).ok().and_then(|stat| start_time(&stat));
        if alive != Some(vm.start_time) {
            return Vec::new();
        }
        let known = self.known.entry((vm.pid, vm.start_time)).or_default();
        let mut taken = known.vcpus(files, &root, &self.told.of(vm), at);
        taken.push(Taken::new("vm_resident", "status", resident(files, &root).map(Some)));
        taken.push(Taken::new("vm_disk", "io", known.disk(files, &root, at)));
        taken.push(Taken::new("vm_net", "net/dev", known.net(interfaces, &vm.taps, at)));
        if vm.qmp.is_none() {
            taken.extend(monitor::without());
        }
        taken
    }
}

impl Known {
    fn vcpus(&mut self, files: &impl Files, root: &str, told: &[String], at: Instant) -> Vec<Taken> {
        const SOURCE: &str = "schedstat";
        let missing = |why: &str| {
            ["vm_vcpus", "vm_cpu", "vm_steal"].map(|metric| Taken::missing(metric, SOURCE, why)).to_vec()
        };
        if self.looks.is_multiple_of(SEARCH) || self.vcpus.is_empty() {
            let mut found = threads(files, root);
            if found.is_empty() {
                found = told.to_vec();
            }
            if found != self.vcpus {
                // Other threads, other sums.
                self.counters.clear();
                self.vcpus = found;
            }
        }
        self.looks = self.looks.wrapping_add(1);
        if self.vcpus.is_empty() {
            return missing(
                "no thread is named as a vCPU: give QEMU `-name ..,debug-threads=on`, or lbx a QMP socket",
            );
        }
        let mut sum = Ran::default();
        for thread in &self.vcpus {
            let text = match files.text(&format!("{root}/task/{thread}/schedstat")) {
                Ok(text) => text,
                Err(error) => {
                    // It was unplugged, or the VM ends: the next look searches.
                    self.vcpus.clear();
                    return missing(&format!("{SOURCE}: {error}"));
                }
            };
            let Some(ran) = schedstat(&text) else {
                return missing("this kernel counts no run time of threads (CONFIG_SCHED_INFO)");
            };
            sum.running = sum.running.saturating_add(ran.running);
            sum.waiting = sum.waiting.saturating_add(ran.waiting);
        }
        let count = self.vcpus.len() as f64;
        let mut share = |name, nanos| {
            let rate = self.counters.per_second(name, at, nanos);
            Ok::<_, String>(rate.map(|nanos| (nanos / 1e9 / count).min(1.0)))
        };
        let (running, waiting) = (share("running", sum.running), share("waiting", sum.waiting));
        vec![
            Taken::new::<String>("vm_vcpus", SOURCE, Ok(Some(count))),
            Taken::new("vm_cpu", SOURCE, running),
            Taken::new("vm_steal", SOURCE, waiting),
        ]
    }

    fn disk(&mut self, files: &impl Files, root: &str, at: Instant) -> io::Result<Option<f64>> {
        let text = files.text(&format!("{root}/io"))?;
        let io = Io::from_buf_read(text.as_bytes()).map_err(io::Error::other)?;
        Ok(self.counters.per_second("disk", at, io.read_bytes.saturating_add(io.write_bytes)))
    }

    fn net(
        &mut self,
        interfaces: &io::Result<InterfaceDeviceStatus>,
        taps: &[String],
        at: Instant,
    ) -> Result<Option<f64>, String> {
        let all = interfaces.as_ref().map_err(ToString::to_string)?;
        let mut sum = None;
        for tap in taps {
            let now = all.0.get(tap).ok_or_else(|| format!("{tap} is gone"))?;
            let bytes = now.recv_bytes.saturating_add(now.sent_bytes);
            if let Some(rate) = self.counters.per_second(tap, at, bytes) {
                sum = Some(sum.unwrap_or(0.0) + rate);
            }
        }
        Ok(sum)
    }
}

/// The ids of the vCPU threads, in order.
fn threads(files: &impl Files, root: &str) -> Vec<String> {
    let mut threads = files.names(&format!("{root}/task")).unwrap_or_default();
    threads.retain(|thread| {
        let name = files.text(&format!("{root}/task/{thread}/comm"));
        name.is_ok_and(|name| is_vcpu(name.trim_end_matches('\n')))
    });
    threads.sort();
    threads
}

/// Memory that the process holds; huge pages are not in VmRSS (fs/proc/task_mmu.c, mm/hugetlb.c).
fn resident(files: &impl Files, root: &str) -> io::Result<f64> {
    let text = files.text(&format!("{root}/status"))?;
    let kib = |key: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        value.and_then(|value| value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
    };
    let own = kib("VmRSS").ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no `VmRSS`"))?;
    Ok(own.saturating_add(kib("HugetlbPages").unwrap_or(0)) as f64 * 1024.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::measure::catalogue;
    use crate::measure::files::Texts;

    fn vm() -> Vm {
        let taps = vec!["tap0".to_owned(), "tap1".to_owned()];
        Vm { name: "web-1".into(), pid: 7, start_time: 42, taps, ..Vm::default() }
    }

    /// Two vCPUs of which one runs half of the time and waits a quarter.
    fn files(seconds: u64) -> Texts {
        let mut files = Texts::default();
        let fields: Vec<_> = (1..19).map(|n: u64| n.to_string()).collect();
        files.set("/proc/7/stat", format!("7 (qemu (x) S {} 42 1", fields.join(" ")));
        for (thread, name) in [("7", "qemu-system-x86"), ("8", "CPU 0/KVM"), ("9", "CPU 1/KVM")] {
            files.set(&format!("/proc/7/task/{thread}/comm"), format!("{name}\n"));
            files.set(&format!("/proc/7/task/{thread}/schedstat"), "5 6 7\n");
        }
        let half = format!("{} {} 9\n", seconds * 500_000_000, seconds * 250_000_000);
        files.set("/proc/7/task/8/schedstat", half);
        files.set("/proc/7/status", "Name:\tq\nVmRSS:\t  100 kB\nHugetlbPages:\t 28 kB\n");
        let (read, written) = (seconds * 100, seconds * 200);
        files.set("/proc/7/io", format!("rchar: 1\nwchar: 1\nsyscr: 1\nsyscw: 1\nread_bytes: {read}\nwrite_bytes: {written}\ncancelled_write_bytes: 0\n"));
        files
    }

    fn interfaces(bytes: u64) -> io::Result<InterfaceDeviceStatus> {
        let line = |name| format!("{name}: {bytes} 0 0 0 0 0 0 0 {bytes} 0 0 0 0 0 0 0\n");
        let text = format!("a\nb\n{}{}{}", line("tap0"), line("tap1"), line("eth0"));
        InterfaceDeviceStatus::from_buf_read(text.as_bytes()).map_err(io::Error::other)
    }

    fn value(taken: &[Taken], metric: &str) -> Result<Option<f64>, String> {
        assert!(catalogue::find(metric).is_some(), "{metric}");
        taken.iter().find(|one| one.metric == metric).unwrap().value.clone()
    }

    #[test]
    fn every_figure_of_a_vm() {
        let (mut vms, start) = (Vms::default(), Instant::now());
        let first = vms.sample(&files(0), &vm(), &interfaces(0), start);
        assert_eq!(value(&first, "vm_cpu"), Ok(None));
        assert_eq!(value(&first, "vm_vcpus"), Ok(Some(2.0)));
        let now = vms.sample(&files(2), &vm(), &interfaces(500), start + Duration::from_secs(2));
        assert_eq!(value(&now, "vm_cpu"), Ok(Some(0.25)));
        assert_eq!(value(&now, "vm_steal"), Ok(Some(0.125)));
        assert_eq!(value(&now, "vm_resident"), Ok(Some(128.0 * 1024.0)));
        assert_eq!(value(&now, "vm_disk"), Ok(Some(300.0)));
        assert_eq!(value(&now, "vm_net"), Ok(Some(1_000.0)), "both taps, both ways");
    }

    #[test]
    fn a_vm_that_ends_or_hides_is_no_error() {
        let (mut vms, start) = (Vms::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut all = files(0);
        vms.sample(&all, &vm(), &interfaces(0), at(0));
        // One thread is gone in the middle of a look; the next one finds those that are left.
        all.0.remove("/proc/7/task/9/schedstat");
        all.0.remove("/proc/7/task/9/comm");
        all.0.remove("/proc/7/io");
        let broken = vms.sample(&all, &vm(), &interfaces(0), at(1));
        assert!(value(&broken, "vm_cpu").is_err() && value(&broken, "vm_disk").is_err());
        let one = vms.sample(&all, &vm(), &interfaces(0), at(2));
        assert_eq!(value(&one, "vm_vcpus"), Ok(Some(1.0)));
        assert_eq!(value(&one, "vm_cpu"), Ok(None), "other threads, other sums");
        all.set("/proc/7/task/8/comm", "qemu-system-x86\n");
        vms.keep(&[]);
        let unnamed = vms.sample(&all, &vm(), &interfaces(0), at(3));
        assert!(value(&unnamed, "vm_cpu").unwrap_err().contains("debug-threads"));
        // Its monitor knows.
        let told = Told::default();
        told.set((7, 42), vec!["8".to_owned()]);
        vms = Vms::new(told);
        let by_monitor = vms.sample(&all, &vm(), &interfaces(0), at(4));
        assert_eq!(value(&by_monitor, "vm_vcpus"), Ok(Some(1.0)));
        assert!(value(&by_monitor, "vm_qmp").unwrap_err().contains("measure.qmp"));
        // Somebody else has the pid.
        let other = Vm { start_time: 43, ..vm() };
        assert_eq!(vms.sample(&all, &other, &interfaces(0), at(4)), []);
        assert_eq!(vms.sample(&Texts::default(), &vm(), &interfaces(0), at(5)), []);
    }
}
