//! `lbx migration` and `lbx migrations`.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::args::{MigrationVerb, Migrations as Options, Tell};
use super::output::{self, grouped, number};
use super::session::{Session, needs_daemon};
use super::{Done, Failure};
use crate::api::model::{
    Flow, FlowQuery, FlowState, Flows, Migration, MigrationChanged, MigrationRequest, Migrations, Targets,
};

/// How often flows are counted while waiting.
const POLL: Duration = Duration::from_millis(250);
/// Stragglers that are named.
const NAMED: usize = 20;

/// What `announce --wait` waited for.
#[derive(Serialize)]
struct Quiet {
    vm: String,
    open_flows: u64,
    /// Seconds it took.
    waited: f64,
}

pub(super) fn tell(session: &Session, verb: &MigrationVerb) -> Done {
    let (phase, words) = (verb.phase(), verb.words());
    let request = MigrationRequest {
        vm: words.vm.clone(),
        phase: phase.to_owned(),
        place: words.place().map(ToOwned::to_owned),
        host: words.host().map(ToOwned::to_owned),
    };
    let answer: MigrationChanged = session.must_post("/v1/migration", &request)?;
    let Tell::Announce { wait: true, timeout, .. } = words.how else {
        return output::show(session, &answer, changed);
    };
    if !session.json() {
        output::say(&changed(&answer))?;
    }
    let timeout = timeout.map_or(Duration::from_millis(answer.drain_ms), Duration::from_secs);
    wait(session, &answer, timeout)
}

fn changed(answer: &MigrationChanged) -> String {
    let already = if answer.changed { "" } else { " (nothing changed)" };
    format!("{}{already}", answer.now)
}

/// Until the VM has no open flows.
fn wait(session: &Session, answer: &MigrationChanged, timeout: Duration) -> Done {
    let started = Instant::now();
    loop {
        let left = open_flows(session, &answer.targets)?;
        if left == 0 {
            break;
        }
        if started.elapsed() >= timeout {
            let named = stragglers(session, &answer.targets)?;
            let more = left.saturating_sub(named.len() as u64);
            let more = if more > 0 { format!("\n  and {} more", grouped(more)) } else { String::new() };
            return Err(Failure::TimedOut(format!(
                "{} still has {} open flows after {:.0} s:\n  {}{more}",
                answer.vm,
                grouped(left),
                started.elapsed().as_secs_f64(),
                named.join("\n  ")
            )));
        }
        // Not beyond the timeout.
        let rest = timeout.saturating_sub(started.elapsed());
        std::thread::sleep(POLL.min(rest.max(Duration::from_millis(10))));
    }
    let quiet = Quiet { vm: answer.vm.clone(), open_flows: 0, waited: started.elapsed().as_secs_f64() };
    output::show(session, &quiet, |quiet| {
        format!("{} is quiet: no open flows after {:.1} s", quiet.vm, quiet.waited)
    })
}

fn open_flows(session: &Session, targets: &[String]) -> Result<u64, Failure> {
    let all: Targets = session.get("/v1/targets", &()).map_err(needs_daemon)?;
    Ok(all.targets.iter().filter(|one| targets.contains(&one.name)).map(|one| one.open_flows).sum())
}

fn stragglers(session: &Session, targets: &[String]) -> Result<Vec<String>, Failure> {
    let mut named = Vec::new();
    for target in targets {
        let query = FlowQuery { target: Some(target.clone()), limit: Some(NAMED), ..FlowQuery::default() };
        let flows: Flows = session.get("/v1/flows", &query).map_err(needs_daemon)?;
        named.extend(flows.flows.iter().filter(|flow| flow.state != FlowState::Closed).map(straggler));
    }
    named.truncate(NAMED);
    Ok(named)
}

fn straggler(flow: &Flow) -> String {
    let protocol = flow.protocol.as_deref().unwrap_or("a flow of one packet");
    let ends = match (flow.client, flow.vip) {
        (Some(client), Some(vip)) => format!(" {client} -> {vip}"),
        _ => String::new(),
    };
    format!("{protocol}{ends} at {}, idle for {}", flow.target, output::span(flow.idle))
}

pub(super) fn migrations(session: &Session, options: &Options) -> Done {
    let only = |mut all: Migrations| {
        all.migrations.retain(|one| options.vm.as_ref().is_none_or(|vm| one.vm == *vm));
        all
    };
    let gather = || session.get("/v1/migrations", &()).map(only).map_err(needs_daemon);
    output::watch(session, options.watch, gather, |all| table(all, options.verbose || options.vm.is_some()))
}

fn table(all: &Migrations, verbose: bool) -> String {
    if all.migrations.is_empty() {
        return "no VM was migrated since the daemon started".to_owned();
    }
    let mut table =
        output::table(["ID", "VM", "ROLE", "PHASE", "FOR", "HOST", "TOOK", "STOPPED", "FLOWS", "TARGETS"]);
    for one in &all.migrations {
        let flows: u64 = one.targets.iter().map(|target| target.open_flows).sum();
        table.add_row(vec![
            number(one.id),
            one.vm.as_str().into(),
            one.role.as_str().into(),
            phase(one).into(),
            number(millis(one.phase_ms as f64)),
            one.host.as_deref().unwrap_or("-").into(),
            number(millis(one.took_ms as f64)),
            number(one.stopped_ms.map_or("-".to_owned(), millis)),
            number(if one.over { "-".to_owned() } else { grouped(flows) }),
            wants(one).into(),
        ]);
    }
    let mut text = output::text(&table);
    if verbose {
        all.migrations.iter().for_each(|one| events(one, &mut text));
    }
    text
}

fn phase(one: &Migration) -> String {
    let what = if one.pause { " (a pause)" } else { "" };
    let place = one.place.as_ref().map_or(String::new(), |place| format!(" {place}"));
    format!("{}{place}{what}", one.phase)
}

fn wants(one: &Migration) -> String {
    if one.over {
        return "-".to_owned();
    }
    let names: Vec<String> = one
        .targets
        .iter()
        .map(|target| if target.last { format!("{} (last)", target.target) } else { target.target.clone() })
        .collect();
    names.join(", ")
}

fn millis(millis: f64) -> String {
    if millis < 10_000.0 { format!("{millis:.0} ms") } else { output::span(millis as u64 / 1000) }
}

fn events(one: &Migration, text: &mut String) {
    text.push_str(&format!("\n\n{} (migration {}):", one.vm, one.id));
    for event in &one.events {
        let place = event.place.as_ref().map_or(String::new(), |place| format!(" {place}"));
        let host = event.host.as_ref().map_or(String::new(), |host| format!(", host {host}"));
        let times = if event.times > 1 { format!(" ({} times)", event.times) } else { String::new() };
        let heard = if event.heard == "news" { String::new() } else { format!(", {}", event.heard) };
        let lag = event.lag_us.map_or(String::new(), |us| format!(", heard after {us} us"));
        let written = event.written_us.map_or(String::new(), |us| format!(", in the maps after {us} us"));
        text.push_str(&format!(
            "\n  {:>10.3} ms  {}{place}{times}: {}{host}{heard}{lag}{written}",
            event.after_ms, event.event, event.source
        ));
    }
    for target in one.targets.iter().filter(|_| !one.over) {
        text.push_str(&format!("\n  {}: {}", target.target, target.wants));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::model::{MigratingTarget, MigrationEvent};

    #[test]
    fn a_migration_is_told_with_its_events() {
        let event = MigrationEvent {
            after_ms: 600.5,
            event: "stopped".into(),
            source: "qmp".into(),
            heard: "news".into(),
            written_us: Some(110),
            times: 1,
            ..MigrationEvent::default()
        };
        let target = MigratingTarget { target: "web/web-1".into(), last: true, ..MigratingTarget::default() };
        let one = Migration {
            vm: "web-1".into(),
            phase: "stopped".into(),
            targets: vec![target],
            events: vec![event],
            ..Migration::default()
        };
        let all = Migrations { migrations: vec![one] };
        let text = table(&all, true);
        for says in ["web/web-1 (last)", "600.500 ms  stopped: qmp, in the maps after 110 us"] {
            assert!(text.contains(says), "{says}: {text}");
        }
        assert!(!table(&all, false).contains("qmp"));
    }
}
