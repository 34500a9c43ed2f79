//! `lbx status`.

use super::Done;
use super::args::Watch;
use super::output::{self, bytes, grouped, span};
use super::session::Session;
use crate::api::model::{LibvirtDaemon, Port, Source, Status};
use crate::daemon::pending;

pub(super) fn status(session: &Session, watch: Watch) -> Done {
    let gather = || {
        let mut status: Status = session.look("/v1/status", &(), |view| view.status())?;
        if status.pending.is_none() {
            status.pending = pending::read(&session.paths.run_dir).map(|pending| pending.shown());
        }
        Ok(status)
    };
    output::watch(session, watch, gather, text)
}

fn text(status: &Status) -> String {
    let mut lines = Vec::new();
    let name = status.instance.as_deref().map_or(String::new(), |name| format!(" {name}"));
    let who = match (status.source, status.pid, status.uptime) {
        (Source::Daemon, Some(pid), Some(up)) => format!("running, pid {pid}, up {}", span(up)),
        (Source::Daemon, ..) => "running".to_owned(),
        (Source::Maps, ..) => {
            "the daemon is not running; the datapath goes on with its last state".to_owned()
        }
    };
    lines.push(format!("lbx{name} {} (map layout {}): {who}", status.version, status.abi));
    if let Some(config) = &status.config {
        let read = status.config_read.map_or(String::new(), |at| {
            format!(", read {} ago", span(crate::control::unix_now().saturating_sub(at)))
        });
        lines.push(format!("config: {config}{read}"));
    }
    if status.bypass {
        lines.push(
            "BYPASS is on: every packet passes as on a plain bridge; `lbx bypass off` ends it".to_owned(),
        );
    }
    if status.observe {
        lines.push("OBSERVING: verdicts are computed and counted, every packet passes".to_owned());
    }
    lines.push(format!(
        "services: {} of {} steered; targets: {} of {} active; flows: {} of {}",
        status.services_active,
        status.services,
        status.targets_active,
        status.targets,
        grouped(status.flows.live),
        grouped(status.flows.capacity),
    ));
    let flows = &status.flows;
    lines.push(format!(
        "flow table: {} slots, {}; not recorded: {} of {} new flows ({})",
        grouped(flows.slots),
        bytes(flows.memory),
        grouped(flows.unrecorded),
        grouped(flows.recorded + flows.unrecorded),
        share(flows.unrecorded_share()),
    ));
    lines.extend(status.libvirt.iter().map(libvirt));
    if let Some(pending) = &status.pending {
        lines.push(format!(
            "the attach of {} is undone in {}, unless `lbx attach --confirm` follows",
            pending.switches.join(", "),
            span(pending.undone_in),
        ));
    }
    if !status.ports.is_empty() {
        lines.push(String::new());
        lines.push(ports(&status.ports));
    }
    if !status.notes.is_empty() {
        lines.push(String::new());
        lines.extend(status.notes.iter().map(|note| format!("! {note}")));
    }
    lines.join("\n")
}

fn libvirt(daemon: &LibvirtDaemon) -> String {
    let how = match &daemon.version {
        Some(version) => format!("{version}, connected"),
        None => "not connected".to_owned(),
    };
    let heard = format!("{} events heard, {} of migrations", daemon.notices, daemon.events);
    format!("libvirt at {}: {how}; {heard}", daemon.socket)
}

/// A share that is small if all is well: with as many digits as it needs to be told from the goal, 0.01 %.
fn share(share: f64) -> String {
    format!("{:.4}%", share * 100.0)
}

fn ports(ports: &[Port]) -> String {
    let mut table = output::table(["PORT", "SWITCH", "ROLE", "ATTACHED", "WHY"]);
    for port in ports {
        let mut attached = port.attached.join(", ");
        if attached.is_empty() {
            "-".clone_into(&mut attached);
        }
        if port.observe {
            attached.push_str(" (observing)");
        }
        let why = port.error.as_ref().map(|error| format!("FAILED: {error}"));
        let why = why.or_else(|| port.reason.clone()).unwrap_or_default();
        table.add_row([&port.name, &port.switch, &port.role, &attached, &why]);
    }
    output::text(&table)
}
