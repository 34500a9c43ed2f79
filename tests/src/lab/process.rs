//! Child processes that a lab can always find again.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::cleanup;
use super::record::Record;

/// A running child with its output in a file. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output in `NAME.log` of the record's directory, and notes it in the record.
    pub fn spawn(record: &Record, name: &str, mut command: Command) -> Result<Self> {
        let log = record.dir().join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        // Ctrl-C goes to the lab, which ends its children in order; and what they start ends with them.
        command.process_group(0);
        let items = record.items_file();
        // SAFETY: the child writes its own line before exec, so there is no moment in which it runs unrecorded.
        // The closure only opens, reads and writes files with buffers on the stack: nothing allocates (the path is
        // short enough for std's stack buffer) and no lock is taken, as the time between fork and exec demands.
        unsafe {
            command.pre_exec(move || {
                let mut stat = [0; 1024];
                let n = File::open("/proc/self/stat")?.read(&mut stat)?;
                let start = start_in_stat(&stat[..n]).ok_or(std::io::ErrorKind::InvalidData)?;
                let mut line = [0; 64];
                let mut rest = &mut line[..];
                writeln!(rest, "process {} {start}", std::process::id())?;
                let unused = rest.len();
                let used = line.len() - unused;
                (&*items).write_all(&line[..used])
            });
        }
        let open = cleanup::gate();
        let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        drop(open);
        Ok(Self { child, log })
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Where its output goes.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Its output so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    /// Its status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.pid()), signal)?)
    }

    /// `kill -9`, also of what it has started itself (nginx its workers), and waits for the end.
    pub fn kill(&mut self) -> Result<()> {
        if self.ended().is_none() {
            // It leads the group, and while nobody has waited for it the number is its own.
            killpg(Pid::from_raw(self.pid()), Signal::SIGKILL)?;
        }
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for the end at most so long.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        if self.ended().is_none() {
            self.signal(Signal::SIGTERM)?;
        }
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            sleep(Duration::from_millis(10));
        }
        bail!("{} did not end within {limit:?} of SIGTERM", self.log.display())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// When a process started, in clock ticks since boot; `None` when there is none, or only its zombie.
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.iter().rposition(|&b| b == b')')? + 2;
    if stat.get(after_name) == Some(&b'Z') {
        return None;
    }
    start_in_stat(&stat)
}

/// Field 22 of /proc/PID/stat. The name in field 2 may hold anything, so count from its last parenthesis.
fn start_in_stat(stat: &[u8]) -> Option<u64> {
    let after_name = stat.iter().rposition(|&b| b == b')')? + 2;
    let field = stat.get(after_name..)?.split(|&b| b == b' ').nth(19)?;
    std::str::from_utf8(field).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_field_22() {
        let line = b"7 (a b) c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 99 1\n";
        assert_eq!(start_in_stat(line), Some(4711));
        assert_eq!(start_in_stat(b"7 (short) S 1"), None);
    }

    #[test]
    fn own_start_time_is_found_and_stable() {
        let me = std::process::id() as i32;
        assert!(start_time(me).is_some());
        assert_eq!(start_time(me), start_time(me));
        assert_eq!(start_time(i32::MAX), None);
    }
}
