//! `lbx attach`: says what it will do to each port and why, then does it; where it could lock the operator out,
//! only on `--yes`, and only until the timer undoes it or `--confirm` ends the timer.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;

use serde::Serialize;

use super::args::Attach as Options;
use super::session::Session;
use super::{Done, Failure, attach_timer, output};
use crate::api::client::Error;
use crate::api::model::{AttachPlan, AttachRequest, Refusal, SwitchPlan};
use crate::config::{Config, Switch, TcChoice, XdpChoice};
use crate::daemon::host::Host;
use crate::daemon::{self, pending};
use crate::datapath;
use crate::host::plan::lockout;

/// What an attach came to.
#[derive(Serialize)]
struct Attached {
    #[serde(flatten)]
    plan: AttachPlan,
    /// It was done, not only planned.
    attached: bool,
    /// Verdicts are computed and counted, packets pass.
    observe: bool,
    /// Seconds until it is undone, unless it is confirmed.
    undone_in: Option<u64>,
}

pub(super) fn attach(session: &Session, options: &Options) -> Done {
    if options.confirm {
        return confirm(session);
    }
    let config = config(session, &options.switches)?;
    let mut host = Host::default();
    session.block(host.refresh(&config, &session.paths.instance, options.replace, true))?;
    let plan = plan(session, &host, &options.switches);
    if !session.json() {
        output::say(&text(&plan))?;
    }
    let refused: Vec<&str> =
        plan.switches.iter().flat_map(|switch| switch.refusals.iter().map(String::as_str)).collect();
    if !refused.is_empty() {
        return Err(Failure::Failed(anyhow::anyhow!("not attached: {}", refused.join("; "))));
    }
    let risky: Vec<&SwitchPlan> = plan.switches.iter().filter(|switch| switch.lockout.is_some()).collect();
    let mut done =
        Attached { plan: plan.clone(), attached: false, observe: options.observe, undone_in: None };
    if options.dry_run {
        return finish(session, &done);
    }
    if let Some(switch) = risky.first().filter(|_| !options.yes) {
        let why = switch.lockout.as_deref().unwrap_or_default();
        let seconds = options.undo_after;
        return Err(Failure::Failed(anyhow::anyhow!(
            "not attached: {why}. With --yes it is attached all the same, and undone after {seconds} s unless \
             `lbx attach --confirm` follows"
        )));
    }
    if risky.is_empty() {
        put(session, config, options)?;
    } else {
        // Before anything is attached: from the first moment on there is a way back. Its time begins after that.
        let token = attach_timer::start(session, &risky, options.undo_after)?;
        let result = put(session, config, options);
        if result.is_err() {
            // Nothing to wait for; what was attached before it failed goes now.
            attach_timer::undo(session)?;
        }
        result?;
        attach_timer::begin(session, &token)?;
        done.undone_in = Some(options.undo_after);
    }
    done.attached = true;
    finish(session, &done)
}

fn put(session: &Session, config: Config, options: &Options) -> Done {
    let request = AttachRequest {
        switches: options.switches.clone(),
        yes: options.yes,
        replace: options.replace,
        observe: options.observe,
    };
    match session.post::<serde_json::Value>("/v1/attach", &request) {
        Ok(_) => Ok(()),
        Err(Error::NotRunning(_)) => {
            let errors = session.block(daemon::attach_once(session.paths.clone(), config, &request))?;
            if errors.is_empty() {
                return Ok(());
            }
            let lines: Vec<String> = errors.iter().map(|(port, error)| format!("{port}: {error}")).collect();
            Err(Failure::Failed(anyhow::anyhow!("{}", lines.join("; "))))
        }
        Err(other) => Err(other.into()),
    }
}

fn finish(session: &Session, done: &Attached) -> Done {
    if session.json() {
        return output::show(session, done, |_| String::new());
    }
    if !done.attached {
        return output::say("nothing was done (--dry-run)");
    }
    let observing = if done.observe { ", observing: packets pass, verdicts are counted" } else { "" };
    output::say(&format!("attached{observing}"))?;
    if let Some(seconds) = done.undone_in {
        output::say(&format!("it is undone in {seconds} s, unless you say: lbx attach --confirm"))?;
    }
    Ok(())
}

fn confirm(session: &Session) -> Done {
    let waiting = pending::read(&session.paths.run_dir);
    if !pending::clear(&session.paths.run_dir)? {
        return Err(Failure::Failed(anyhow::anyhow!(
            "no attach waits for a confirmation; if one did, it was undone (see `lbx status`)"
        )));
    }
    let switches = waiting.map_or(Vec::new(), |pending| pending.switches);
    if session.json() {
        return output::show(session, &serde_json::json!({ "confirmed": switches }), |_| String::new());
    }
    output::say(&format!("confirmed: {} stays attached", switches.join(", ")))
}

/// The config; a device that is no switch of it, or that is named where there is no config, is a switch
/// without services.
fn config(session: &Session, switches: &[String]) -> Result<Config, Failure> {
    let file = &session.paths.config;
    let mut config = if fs::exists(file).unwrap_or(true) || switches.is_empty() {
        Config::load(file).map_err(|problems| anyhow::anyhow!("{problems}"))?
    } else {
        Config::parse("(no config file)", "").map_err(|problems| anyhow::anyhow!("{problems}"))?
    };
    for name in switches {
        if config.switch(name).is_none() {
            let (name, xdp, tc) = (name.clone(), XdpChoice::Auto, TcChoice::Auto);
            config.switches.push(Switch { name, xdp, tc, uplinks: None });
        }
    }
    if config.switches.is_empty() {
        return Err(Failure::Usage("the config has no switch; name a bridge or a NIC".to_owned()));
    }
    Ok(config)
}

/// What attaching would do on this host; `switches` empty: all.
pub(super) fn plan(session: &Session, host: &Host, switches: &[String]) -> AttachPlan {
    let attached: BTreeSet<String> = datapath::list(&session.paths.instance)
        .unwrap_or_default()
        .into_iter()
        .filter(|one| !one.is_dead())
        .map(|one| one.device.name)
        .collect();
    let ssh = ssh_connection();
    let wanted = host.plans.iter().filter(|plan| switches.is_empty() || switches.contains(&plan.switch));
    let wanted = wanted.map(|plan| {
        let new = !plan.ports.iter().any(|port| attached.contains(&port.name));
        let lockout = new.then(|| lockout(&host.view, &plan.switch, ssh.as_deref())).flatten();
        SwitchPlan { lockout, ..SwitchPlan::from(plan) }
    });
    AttachPlan { switches: wanted.collect(), refusals: host.refusals.iter().map(Refusal::from).collect() }
}

/// SSH_CONNECTION of the caller. sudo takes it out of the environment, so the processes above are asked too.
fn ssh_connection() -> Option<String> {
    if let Ok(own) = std::env::var("SSH_CONNECTION") {
        return Some(own);
    }
    let mut pid = nix::unistd::getppid().as_raw();
    // Init has no parent; the bound is for a tree that changes while it is walked.
    for _ in 0..64 {
        if pid <= 1 {
            return None;
        }
        let process = procfs::process::Process::new(pid).ok()?;
        if let Some(found) =
            process.environ().ok().and_then(|all| all.get(OsStr::new("SSH_CONNECTION")).cloned())
        {
            return found.into_string().ok();
        }
        pid = process.stat().ok()?.ppid;
    }
    None
}

/// A plan for people.
pub(super) fn text(plan: &AttachPlan) -> String {
    let mut parts = Vec::new();
    for switch in &plan.switches {
        let mut lines = vec![format!("{} ({})", switch.switch, switch.kind)];
        if !switch.ports.is_empty() {
            let mut table = output::table(["  PORT", "ROLE", "ATTACH", "WHY"]);
            for port in &switch.ports {
                let mut why = port.reason.clone();
                if let Some(id) = port.replaces {
                    why.push_str(&format!("; takes the place of the XDP program with id {id}"));
                }
                let attach = match port.attach.as_str() {
                    "native" | "generic" => format!("xdp {}", port.attach),
                    other => other.to_owned(),
                };
                table.add_row([format!("  {}", port.name), port.role.clone(), attach, why]);
            }
            lines.push(output::text(&table));
        }
        lines.extend(switch.refusals.iter().map(|refusal| format!("  REFUSED: {refusal}")));
        if let Some(why) = &switch.lockout {
            lines.push(format!("  NEEDS --yes: {why}"));
        }
        parts.push(lines.join("\n"));
    }
    if !plan.refusals.is_empty() {
        let each = plan.refusals.iter().map(|refusal| {
            let (who, what) = match &refusal.target {
                Some(target) => (format!("{}/{target}", refusal.service), "down"),
                None => (refusal.service.clone(), "suspended"),
            };
            format!("REFUSED: {who} will be {what}: {}\n    hint: {}", refusal.reason, refusal.hint)
        });
        parts.push(each.collect::<Vec<_>>().join("\n"));
    }
    parts.join("\n\n")
}
