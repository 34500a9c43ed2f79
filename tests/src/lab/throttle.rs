//! Taking CPU time from a VM, while this is held: a cgroup with a quota, v2 (`cpu.max`) or v1 (`cpu.cfs_quota_us`), or,
//! where neither can be made, a neighbour on the same CPU with a higher priority.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::record::{Item, Record};

/// The quota is given anew so often: short, so that a VM is slow rather than away.
const PERIOD: Duration = Duration::from_millis(20);
/// Where cgroup v2 is mounted, or the controllers of v1.
const CGROUPS: &str = "/sys/fs/cgroup";

/// A process that gets less CPU time than it wants. Dropping this gives it back.
pub struct Throttle {
    pid: i32,
    how: How,
}

enum How {
    /// Its own cgroup, and the file of the one it came from.
    Cgroup { own: PathBuf, home: PathBuf },
    /// A thread that computes all the time, and the CPUs that the process could run on before.
    Crowded { stop: Arc<AtomicBool>, thread: Option<JoinHandle<()>>, allowed: CpuSet },
}

impl Throttle {
    /// Leaves the process at most `share` of one CPU, above 0 and below 1.
    ///
    /// # Errors
    /// The share is none, or there is no such process.
    pub fn start(record: &Record, name: &str, pid: i32, share: f64) -> Result<Self> {
        ensure!(share > 0.0 && share < 1.0, "a share of one CPU is between 0 and 1, not {share}");
        kill(Pid::from_raw(pid), None).with_context(|| format!("no process {pid}"))?;
        let (period, quota) = (PERIOD.as_micros(), (PERIOD.as_micros() as f64 * share).round().max(1000.0));
        let v1 = Path::new(CGROUPS).join("cpu");
        let v2 = Path::new(CGROUPS);
        let how = if has_controller(v2) {
            cgroup(record, v2, name, pid, &[("cpu.max", format!("{quota} {period}"))])
        } else if v1.join("cpu.cfs_quota_us").exists() || v1.join("cgroup.procs").exists() {
            let files = [("cpu.cfs_period_us", period.to_string()), ("cpu.cfs_quota_us", quota.to_string())];
            cgroup(record, &v1, name, pid, &files)
        } else {
            crowded(pid, share)
        };
        // A container may show cgroups and refuse to have more made.
        Ok(Self { pid, how: how.or_else(|_| crowded(pid, share))? })
    }

    /// How it is done, in words.
    pub fn how(&self) -> &'static str {
        match self.how {
            How::Cgroup { .. } => "a quota of its cgroup",
            How::Crowded { .. } => "somebody on the same CPU who goes first",
        }
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        match &mut self.how {
            How::Cgroup { own, home } => {
                let _ = fs::write(home, self.pid.to_string());
                // A process that has just ended may be in it for a moment.
                let deadline = Instant::now() + Duration::from_secs(2);
                while fs::remove_dir(&*own).is_err() && own.exists() && Instant::now() < deadline {
                    sleep(Duration::from_millis(10));
                }
            }
            How::Crowded { stop, thread, allowed } => {
                stop.store(true, Ordering::Relaxed);
                let _ = thread.take().map(JoinHandle::join);
                let _ = each_thread(self.pid, |thread| seat(thread, allowed, 0));
            }
        }
    }
}

/// Whether cgroups below the root of v2 have CPU quotas.
fn has_controller(root: &Path) -> bool {
    let text = fs::read_to_string(root.join("cgroup.subtree_control")).unwrap_or_default();
    text.split_whitespace().any(|controller| controller == "cpu")
}

fn cgroup(record: &Record, root: &Path, name: &str, pid: i32, files: &[(&str, String)]) -> Result<How> {
    let own = root.join(format!("lbx-{}-{name}", record.id()));
    let home = home(root, pid)?.join("cgroup.procs");
    record.with(&Item::Cgroup(own.clone()), || fs::create_dir(&own))??;
    let filled = files.iter().try_for_each(|(file, value)| fs::write(own.join(file), value));
    if let Err(error) = filled.and_then(|()| fs::write(own.join("cgroup.procs"), pid.to_string())) {
        let _ = fs::remove_dir(&own);
        return Err(error).with_context(|| own.display().to_string());
    }
    Ok(How::Cgroup { own, home })
}

/// The cgroup that a process is in, below a root: a line `0::/path` in v2, `N:cpu,..:/path` in v1.
fn home(root: &Path, pid: i32) -> Result<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let v2 = root == Path::new(CGROUPS);
    let path = text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let wanted = if v2 { controllers.is_empty() } else { controllers.split(',').any(|one| one == "cpu") };
        wanted.then_some(path)
    });
    Ok(root.join(path.context("its cgroup is not named")?.trim_start_matches('/')))
}

/// Puts the process on one CPU with a thread that never sleeps, as much nicer as leaves it its share: a step of
/// niceness is a factor of 1.25 (sched_prio_to_weight, kernel/sched/core.c).
fn crowded(pid: i32, share: f64) -> Result<How> {
    let (allowed, mut one) = (sched_getaffinity(Pid::from_raw(pid))?, CpuSet::new());
    let last = (0..CpuSet::count()).rev().find(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    one.set(last.context("a process without a CPU")?)?;
    let nice = ((1.0 - share) / share).log(1.25).round().clamp(1.0, 19.0) as i32;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        // On another CPU it would take nothing from anybody.
        if sched_setaffinity(Pid::from_raw(0), &one).is_ok() {
            while !stopped.load(Ordering::Relaxed) {
                std::hint::black_box((0..10_000u64).sum::<u64>());
            }
        }
    });
    let how = How::Crowded { stop, thread: Some(thread), allowed };
    each_thread(pid, |thread| seat(thread, &one, nice))?;
    Ok(how)
}

fn each_thread(pid: i32, mut each: impl FnMut(i32) -> Result<()>) -> Result<()> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let name = thread?.file_name();
        each(name.to_str().and_then(|name| name.parse().ok()).context("a thread's id")?)?;
    }
    Ok(())
}

/// Gives a thread its CPUs and its niceness.
fn seat(thread: i32, cpus: &CpuSet, nice: i32) -> Result<()> {
    sched_setaffinity(Pid::from_raw(thread), cpus)?;
    // SAFETY: setpriority(2) takes three numbers and touches no memory of ours.
    let done = unsafe { libc::setpriority(libc::PRIO_PROCESS, thread as libc::id_t, nice) };
    ensure!(done == 0, "niceness of {thread}: {}", std::io::Error::last_os_error());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowded_process_is_nice_until_it_is_not() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id() as i32;
        // Field 19 of /proc/PID/stat.
        let nice = || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap().to_owned()
        };
        let before = sched_getaffinity(Pid::from_raw(pid)).unwrap();
        let how = crowded(pid, 0.25).unwrap();
        assert_eq!(nice(), "5", "three quarters to one are five steps");
        let throttle = Throttle { pid, how };
        drop(throttle);
        // Without the right to be less nice again it stays as it is.
        if nix::unistd::geteuid().is_root() {
            assert_eq!(nice(), "0");
        }
        assert_eq!(sched_getaffinity(Pid::from_raw(pid)).unwrap(), before);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_home_is_below_its_root() {
        let me = std::process::id() as i32;
        for root in [CGROUPS.to_owned(), format!("{CGROUPS}/cpu")] {
            if let Ok(home) = home(Path::new(&root), me) {
                assert!(home.starts_with(&root), "{}", home.display());
            }
        }
    }
}
