//! Waiting for a command: signals, time limits, and its output.

use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::Cmd;
use crate::signals;

/// How long a command may clean up after a signal.
const GRACE: Duration = Duration::from_mins(1);

/// How long a command may clean up after its time limit.
const GRACE_AFTER_LIMIT: Duration = Duration::from_secs(15);

impl Cmd {
    /// Waits for the end, passing signals on. Returns the status and whether the time limit ended it.
    pub(super) fn wait(&self, child: &mut Child, sudo: bool) -> Result<(ExitStatus, bool)> {
        let pid = Pid::from_raw(child.id() as i32);
        let start = Instant::now();
        let mut seen = if self.cleanup { u32::MAX } else { 0 };
        let mut kill_at: Option<Instant> = None;
        let mut timed_out = false;
        loop {
            // WNOWAIT leaves the process to be reaped by `child.wait`, so its group id stays ours till then.
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
            match waitid(Id::Pid(pid), flags) {
                Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => {}
                Ok(_) => break,
                Err(error) => return Err(error).context("cannot wait for a command"),
            }
            let (count, signal) = signals::received();
            if count > seen {
                seen = count;
                // The terminal has sent its Ctrl-C to the foreground group already.
                if !(self.foreground && signal == Signal::SIGINT && std::io::stdin().is_terminal()) {
                    let signal = if count > 2 { Signal::SIGKILL } else { signal };
                    self.signal(pid, signal, sudo);
                }
                kill_at.get_or_insert(Instant::now() + GRACE);
            }
            if let Some(limit) = self.limit.filter(|limit| !timed_out && start.elapsed() > *limit) {
                timed_out = true;
                eprintln!("xtask: {} is still running after {} s: ending it", self.name(), limit.as_secs());
                self.signal(pid, Signal::SIGTERM, sudo);
                kill_at.get_or_insert(Instant::now() + GRACE_AFTER_LIMIT);
            }
            if kill_at.is_some_and(|at| Instant::now() > at) {
                self.signal(pid, Signal::SIGKILL, sudo);
                kill_at = Some(Instant::now() + GRACE);
            }
            thread::sleep(Duration::from_millis(20));
        }
        if self.sweep && !self.foreground {
            self.signal(pid, Signal::SIGKILL, sudo);
        }
        Ok((child.wait()?, timed_out))
    }

    fn signal(&self, pid: Pid, signal: Signal, sudo: bool) {
        let target = if self.foreground { pid.as_raw() } else { -pid.as_raw() };
        let sent = kill(Pid::from_raw(target), signal);
        if sudo && sent == Err(Errno::EPERM) {
            // A program that sudo runs is root's: only root may signal it.
            let number = format!("-{}", signal as i32);
            let _ = Command::new("sudo")
                .args(["-n", "kill", &number, "--", &target.to_string()])
                .stderr(Stdio::null())
                .status();
        }
    }
}

/// Reads a pipe to its end in a thread, line by line.
pub(super) fn collect(
    pipe: impl Read + Send + 'static,
    show: bool,
    spinner: Option<ProgressBar>,
) -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&line).into_owned();
            if show {
                let mut out = std::io::stdout().lock();
                let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            }
            if let Some(bar) = &spinner {
                bar.set_message(text.trim_end().to_owned());
            }
            if send.send(text).is_err() {
                break;
            }
            line.clear();
        }
    });
    receive
}
