//! A program of the operator's, without a shell.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use lbx_common::health::Outcome;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::Command;

/// Runs it; status 0 is good. When its time is over, what it started is killed with it.
pub(super) async fn probe(argv: &[String], timeout: Duration) -> (Outcome, String) {
    let Some((program, arguments)) = argv.split_first() else {
        return (Outcome::Unknown, "there is no command".to_owned());
    };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // A group of its own, so that the end of it is the end of all of it.
    command.process_group(0).kill_on_drop(true);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return (Outcome::Unknown, format!("this host cannot check: {program}: {error}")),
    };
    // Dropped before `child`, which alone waits for it: until then the number is this group's.
    let mut group = Group(child.id().map(|pid| Pid::from_raw(pid as i32)));
    let ended = tokio::time::timeout(timeout, child.wait()).await;
    if ended.is_ok() {
        group.0 = None;
    }
    drop(group);
    match ended {
        Ok(Ok(status)) if status.success() => (Outcome::Good, format!("{program} is content")),
        Ok(Ok(status)) => (judge(status.code()), format!("{program}: {status}")),
        Ok(Err(error)) => (Outcome::Unknown, format!("this host cannot check: {program}: {error}")),
        Err(_) => {
            let _: io::Result<()> = child.kill().await;
            (Outcome::Silent, format!("{program} did not end within {} ms", timeout.as_millis()))
        }
    }
}

/// A program does not say whether it failed because of the target or of this host: as silence, so that all of them
/// failing at once is looked at twice. Killed by a signal it has not spoken at all.
const fn judge(code: Option<i32>) -> Outcome {
    match code {
        Some(_) => Outcome::Silent,
        None => Outcome::Unknown,
    }
}

/// Ends a process group whose leader is still there when this is dropped, also in the middle of a wait.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    async fn run(line: &[&str], timeout: Duration) -> (Outcome, String) {
        let argv: Vec<String> = line.iter().map(ToString::to_string).collect();
        probe(&argv, timeout).await
    }

    #[tokio::test]
    async fn its_status_decides() {
        assert_eq!(run(&["/bin/true"], LONG).await.0, Outcome::Good);
        let (outcome, detail) = run(&["/bin/sh", "-c", "exit 3"], LONG).await;
        assert_eq!(outcome, Outcome::Silent);
        assert!(detail.contains("status: 3"), "{detail}");
        assert_eq!(run(&["/bin/sh", "-c", "kill -9 $$"], LONG).await.0, Outcome::Unknown);
        assert_eq!(run(&["/nonexistent/check"], LONG).await.0, Outcome::Unknown);
        // No shell has read it: a semicolon is a semicolon.
        assert_eq!(run(&["/usr/bin/test", "a;b", "=", "a;b"], LONG).await.0, Outcome::Good);
    }

    #[tokio::test]
    async fn it_ends_in_time_with_all_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let script = format!("sleep 100 & echo $! > {0}.new; mv {0}.new {0}; wait", file.display());
        let start = Instant::now();
        let (outcome, detail) = run(&["/bin/sh", "-c", &script], Duration::from_secs(2)).await;
        assert_eq!(outcome, Outcome::Silent, "{detail}");
        assert!(start.elapsed() < Duration::from_mins(1));
        let pid: i32 = std::fs::read_to_string(&file).expect("it ran").trim().parse().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        // A zombie until whoever adopted it looks after it.
        let gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            stat.map_or(true, |stat| stat.contains(") Z "))
        };
        while !gone() {
            assert!(Instant::now() < deadline, "{pid} goes on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
