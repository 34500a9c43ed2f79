//! `lbx targets`.

use super::args::Targets as Options;
use super::output::{self, grouped, number};
use super::session::Session;
use super::{Done, Failure};
use crate::api::model::{Target, Targets};

pub(super) fn targets(session: &Session, options: &Options) -> Done {
    let gather = || {
        let mut answer: Targets = session.look("/v1/targets", &(), |view| view.targets())?;
        if let Some(service) = &options.service {
            answer.targets.retain(|target| target.service == *service);
            if answer.targets.is_empty() {
                let text = format!("there is no service \"{service}\", or it has no target");
                return Err(Failure::Failed(anyhow::anyhow!(text)));
            }
        }
        Ok(answer)
    };
    output::watch(session, options.watch, gather, table)
}

fn table(answer: &Targets) -> String {
    if answer.targets.is_empty() {
        return "there is no target".to_owned();
    }
    let mut table = output::table([
        "TARGET", "PORT", "STATE", "WISHES", "WEIGHT", "FLOWS", "OPEN", "RESPONSE", "NEW", "PACKETS", "DROPS",
    ]);
    for target in &answer.targets {
        table.add_row(vec![
            target.name.as_str().into(),
            target.port.as_deref().unwrap_or("-").into(),
            state(target).into(),
            wishes(target).into(),
            number(weight(target)),
            number(grouped(target.live_flows)),
            number(grouped(target.open_flows)),
            number(response(target)),
            number(grouped(target.counters.flows)),
            number(grouped(target.counters.packets)),
            number(grouped(target.counters.drops)),
        ]);
    }
    let mut text = output::text(&table);
    for target in &answer.targets {
        for problem in target.held_up.iter().chain(&target.problem) {
            text.push_str(&format!("\n{}: {problem}", target.name));
        }
    }
    if answer.targets.iter().any(|target| target.state_override || target.weight_override) {
        text.push_str("\n* overridden at run time; `lbx set state|weight TARGET --clear` ends it");
    }
    text
}

/// Smoothed; marked where the client's round trip is in it.
fn response(target: &Target) -> String {
    let mark = if target.response_by_handshake { " +rtt" } else { "" };
    target.response_ms.map_or("-".to_owned(), |ms| format!("{ms:.2} ms{mark}"))
}

/// The state now, and when it ends.
fn state(target: &Target) -> String {
    match target.deadline_ms {
        Some(0) => format!("{} ({} is over)", target.effective, target.state),
        Some(left) => {
            let after = target.fallback.as_deref().unwrap_or("active");
            format!("{} ({:.1} s, then {after})", target.effective, left as f64 / 1000.0)
        }
        None => target.effective.clone(),
    }
}

/// Who wishes what; the one that holds is named first.
fn wishes(target: &Target) -> String {
    let mut wishes: Vec<_> = target.wishes.iter().collect();
    wishes.sort_by_key(|wish| target.by.as_ref() != Some(&wish.owner));
    let each = wishes.into_iter().map(|wish| {
        let star = if wish.owner == "operator" && target.state_override { "*" } else { "" };
        format!("{}: {}{star}", wish.owner, wish.state)
    });
    let text = each.collect::<Vec<_>>().join("\n");
    if text.is_empty() { "-".to_owned() } else { text }
}

/// The weight in force; the configured one beside it if that is another.
fn weight(target: &Target) -> String {
    let star = if target.weight_override { "*" } else { "" };
    if target.weight == target.weight_configured {
        format!("{}{star}", target.weight)
    } else {
        format!("{}{star} of {}", target.weight, target.weight_configured)
    }
}
