//! What labs, tests and the demo have left on this machine: nothing, if all went as it should.
//!
//! Everything they make bears `lbx-` and the lab's id in its name, or runs from the build's directory. What belongs
//! to a lab whose owner still runs is somebody else's, and none of our business.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use super::{bpffs, cleanup, netns, record};

/// Names what is left, one line each. `programs` is the directory of finished programs: whatever runs from there
/// should have ended, except for this process, the owners of living labs, and those that started them.
///
/// Looks several times: what is gone a moment later was somebody's who is just cleaning up.
pub fn look(programs: &Path) -> Vec<String> {
    let mut left = look_once(programs);
    for _ in 0..10 {
        if left.is_empty() {
            break;
        }
        sleep(Duration::from_millis(200));
        let again = look_once(programs);
        left.retain(|line| again.contains(line));
    }
    left.into_iter().collect()
}

fn look_once(programs: &Path) -> BTreeSet<String> {
    // The names first: a lab's record is made before everything else and removed last, so that a lab that comes or
    // goes meanwhile is seen in the records if it is seen here.
    let mut found: Vec<(String, String)> = Vec::new();
    for (dir, what) in [(netns::DIR, "netns"), (bpffs::PATH, "pins"), ("/run", "directory")] {
        let names = names(Path::new(dir));
        let ours = names
            .into_iter()
            .filter(|name| name.starts_with("lbx-") && Path::new(dir).join(name) != Path::new(record::ROOT));
        found.extend(ours.map(|name| (format!("{what} {dir}/{name}"), name)));
    }
    let running = processes(programs);
    let (living, dead): (Vec<_>, Vec<_>) =
        cleanup::records().into_iter().partition(|dir| record::living_owner(dir).is_some());
    let spared: Vec<u32> = living
        .iter()
        .filter_map(|dir| record::living_owner(dir))
        .chain([std::process::id() as i32])
        .flat_map(|pid| ancestors(pid as u32))
        .collect();
    found.extend(
        running
            .into_iter()
            .filter(|(pid, _)| !spared.contains(pid))
            .map(|(pid, line)| (format!("process {pid} {line}"), line)),
    );
    let living: Vec<String> =
        living.iter().filter_map(|dir| dir.file_name()?.to_str().map(str::to_owned)).collect();
    found.extend(dead.into_iter().map(|dir| (format!("record {}", dir.display()), String::new())));
    let mut left: BTreeSet<String> =
        found.into_iter().filter(|(_, traces)| !belongs(traces, &living)).map(|(line, _)| line).collect();
    if living.is_empty() && Path::new(record::ROOT).exists() {
        left.insert(format!("directory {}", record::ROOT));
    }
    left
}

/// Whether a name or a command line bears the id of a living lab.
fn belongs(traces: &str, living: &[String]) -> bool {
    living.iter().any(|id| traces.contains(id.as_str()))
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Processes that run from `programs`, with their command lines.
fn processes(programs: &Path) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for pid in names(Path::new("/proc")).iter().filter_map(|name| name.parse::<u32>().ok()) {
        let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let line = line.trim_end();
        if Path::new(line.split(' ').next().unwrap_or_default()).starts_with(programs) {
            found.push((pid, line.to_owned()));
        }
    }
    found
}

/// A process and those that started it.
fn ancestors(pid: u32) -> Vec<u32> {
    let parent = |pid: u32| -> Option<u32> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
    };
    std::iter::successors(Some(pid), |pid| parent(*pid)).take_while(|pid| *pid != 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bears_a_living_labs_id_is_somebody_elses() {
        let living = ["0a1b2c".to_owned()];
        assert!(belongs("lbx-0a1b2c-client", &living) && belongs("lbx-t0a1b2c", &living));
        assert!(belongs("/t/debug/lbx --instance 0a1b2c run", &living));
        assert!(!belongs("lbx-ffffff-client", &living) && !belongs("", &living));
    }

    #[test]
    fn a_process_is_found_by_where_it_runs_from() {
        let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let expected = (child.id(), "/bin/sleep 60".to_owned());
        // The kernel lets the parent go on a moment before the child's command line can be read.
        let seen = (0..500).any(|_| {
            sleep(Duration::from_millis(10));
            processes(Path::new("/bin")).contains(&expected)
        });
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(seen);
        assert!(!processes(Path::new("/usr/share")).iter().any(|(pid, _)| *pid == child.id()));
        let own = ancestors(std::process::id());
        assert_eq!(own[..2], [std::process::id(), std::os::unix::process::parent_id()]);
    }
}
