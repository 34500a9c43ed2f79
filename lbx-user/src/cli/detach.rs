//! `lbx detach`: nothing stays behind.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::args::Detach;
use super::session::Session;
use super::{Done, Failure, output};
use crate::api::client::Error;
use crate::api::model::Status;
use crate::daemon::pending;
use crate::datapath;

/// How long the daemon may take to stop.
const STOP: Duration = Duration::from_secs(15);

pub(super) fn detach(session: &Session, options: &Detach) -> Done {
    match session.get::<Status>("/v1/status", &()) {
        Err(Error::NotRunning(_)) => {}
        Ok(status) if options.force => stop(session, &status)?,
        Ok(_) => {
            return Err(Failure::Failed(anyhow::anyhow!(
                "the daemon is running and would attach again: stop it first, or have it stopped with --force"
            )));
        }
        Err(error) => return Err(error.into()),
    }
    // Held while the pins go: a daemon that starts now waits for the next try.
    let lock = if session.paths.run_dir.exists() { Some(session.paths.lock()?) } else { None };
    pending::clear(&session.paths.run_dir)?;
    let done = datapath::detach_all(&session.paths.instance)?;
    for name in ["lbx.lock", "lbx.sock"] {
        let _ = fs::remove_file(session.paths.run_dir.join(name));
    }
    let overrides = session.paths.run_dir.join("overrides.json");
    if !overrides_anything(&overrides) {
        let _ = fs::remove_file(&overrides);
    }
    // With overrides in it the directory stays: they end with --clear or the next boot.
    let _ = fs::remove_dir(&session.paths.run_dir);
    drop(lock);
    if session.json() {
        return output::show(session, &serde_json::json!({ "detached": done }), |_| String::new());
    }
    if done.is_empty() {
        return output::say("nothing was attached");
    }
    output::say(&done.join("\n"))
}

/// Whether the file of the operator's overrides holds any; one that makes no sense may.
fn overrides_anything(file: &Path) -> bool {
    let Ok(bytes) = fs::read(file) else { return false };
    let Ok(kept) = serde_json::from_slice::<serde_json::Value>(&bytes) else { return true };
    ["states", "weights"].iter().any(|of| kept[of].as_object().is_some_and(|of| !of.is_empty()))
}

/// SIGTERM, and waiting until nobody answers any more.
fn stop(session: &Session, status: &Status) -> Done {
    let pid = status.pid.ok_or_else(|| anyhow::anyhow!("the daemon does not say its pid"))?;
    kill(Pid::from_raw(pid as i32), Signal::SIGTERM)?;
    let deadline = Instant::now() + STOP;
    while session.daemon_runs() {
        if Instant::now() > deadline {
            return Err(Failure::TimedOut(format!("the daemon (pid {pid}) does not stop")));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
