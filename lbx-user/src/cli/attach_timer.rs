//! The way back from an attach: a process of its own session that undoes it unless the file it waits with is
//! taken away. It needs neither the shell it was started from nor the daemon.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigHandler, Signal, signal};

use super::args::AttachTimer;
use super::session::Session;
use super::{Done, Failure};
use crate::api::client::Error;
use crate::api::model::{DetachRequest, SwitchPlan};
use crate::control::{boot_now, unix_now};
use crate::daemon::pending::{self, Pending};
use crate::datapath;

/// How long the timer may take to come up.
const START: Duration = Duration::from_secs(5);
/// How often the timer looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(200);

/// Starts the timer for switches that are about to be attached; returns when it waits, with the token by which
/// [`begin`] knows it.
pub(super) fn start(session: &Session, switches: &[&SwitchPlan], seconds: u64) -> Result<String, Failure> {
    session.paths.make_run_dir()?;
    let before = pending::read(&session.paths.run_dir);
    let mut waiting = Pending {
        token: format!("{}-{}", std::process::id(), unix_now()),
        switches: switches.iter().map(|switch| switch.switch.clone()).collect(),
        ports: switches.iter().flat_map(|switch| switch.ports.iter().map(|port| port.name.clone())).collect(),
        seconds,
        undone_at: 0,
        attaching: std::process::id(),
        pid: 0,
        start_time: 0,
    };
    // An earlier attach that nobody confirmed yet goes with this one: its own timer sees another token.
    if let Some(before) = before {
        waiting.switches.extend(before.switches);
        waiting.ports.extend(before.ports);
        waiting.switches.dedup();
    }
    pending::write(&session.paths.run_dir, &waiting)?;
    let mut command = Command::new(std::env::current_exe()?);
    if let Some(instance) = &session.global.instance {
        command.arg("--instance").arg(instance);
    }
    command.arg("--config").arg(&session.paths.config);
    command.arg("attach-timer").arg(seconds.to_string()).arg(&waiting.token);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    let mut child = command.spawn()?;
    let deadline = Instant::now() + START;
    while Instant::now() < deadline {
        let ready = pending::read(&session.paths.run_dir)
            .is_some_and(|now| now.token == waiting.token && now.pid == child.id());
        if ready {
            return Ok(waiting.token);
        }
        if let Some(status) = child.try_wait()? {
            pending::clear(&session.paths.run_dir)?;
            return Err(Failure::Failed(anyhow::anyhow!(
                "not attached: the timer that would undo it ended ({status})"
            )));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    pending::clear(&session.paths.run_dir)?;
    child.kill()?;
    Err(Failure::Failed(anyhow::anyhow!("not attached: the timer that would undo it does not start")))
}

/// What was to be attached is: the time begins.
pub(super) fn begin(session: &Session, token: &str) -> Done {
    pending::change(&session.paths.run_dir, token, |waiting| {
        waiting.undone_at = boot_now() + waiting.seconds;
    })?;
    Ok(())
}

/// `lbx attach-timer`: waits, and undoes unless somebody confirmed.
pub(super) fn wait_and_undo(session: &Session, options: &AttachTimer) -> Done {
    leave_session(session, options)?;
    let run_dir = &session.paths.run_dir;
    let mut deadline = None;
    loop {
        // Confirmed, or part of a later attach.
        let Some(waiting) = pending::read(run_dir).filter(|waiting| waiting.token == options.token) else {
            return Ok(());
        };
        // Whoever attaches says when it is done. A process that was killed (its terminal may have gone by the very
        // thing it did) says nothing any more: then the time begins now.
        if waiting.undone_at == 0 && is_alive(waiting.attaching) {
            std::thread::sleep(LOOK);
            continue;
        }
        if waiting.undone_at == 0 {
            begin(session, &options.token)?;
        }
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + Duration::from_secs(options.seconds));
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return undo(session);
        }
        std::thread::sleep(left.min(LOOK));
    }
}

/// Whether a process runs: it exists, and is no zombie.
fn is_alive(pid: u32) -> bool {
    let process = procfs::process::Process::new(pid as i32).and_then(|process| process.stat());
    process.is_ok_and(|stat| !matches!(stat.state, 'Z' | 'X'))
}

/// Leaves the caller's session and terminal, and writes down who waits.
fn leave_session(session: &Session, options: &AttachTimer) -> Done {
    // SAFETY: SIG_IGN is no handler of ours; nothing of this process relies on SIGHUP.
    unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn) }?;
    nix::unistd::setsid()?;
    pending::change(&session.paths.run_dir, &options.token, |waiting| {
        waiting.pid = std::process::id();
        waiting.start_time =
            procfs::process::Process::myself().and_then(|me| me.stat()).map_or(0, |stat| stat.starttime);
    })?;
    Ok(())
}

/// Takes off what was attached and not confirmed.
pub(super) fn undo(session: &Session) -> Done {
    let Some(waiting) = pending::read(&session.paths.run_dir) else { return Ok(()) };
    // Whoever takes the file away decides: a confirmation that came first has won.
    if !pending::clear(&session.paths.run_dir)? {
        return Ok(());
    }
    let request = DetachRequest { switches: waiting.switches.clone() };
    match session.post::<serde_json::Value>("/v1/detach", &request) {
        Ok(_) => return Ok(()),
        Err(Error::NotRunning(_)) => {}
        // A daemon that does not answer must not keep the operator out.
        Err(error) => eprintln!("lbx: {error}; detaching without it"),
    }
    let instance = &session.paths.instance;
    for one in datapath::list(instance)? {
        if waiting.ports.contains(&one.device.name) {
            datapath::detach_point(instance, &one.device, one.point)?;
        }
    }
    if datapath::list(instance)?.is_empty() {
        datapath::detach_all(instance)?;
    }
    Ok(())
}
