//! `lbx stats`.

use std::net::{IpAddr, SocketAddr};

use super::Done;
use super::args::Stats as Options;
use super::output::{self, bytes, grouped, number};
use super::session::Session;
use crate::api::model::{ReasonCount, Sampled, Stats};

pub(super) fn stats(session: &Session, options: &Options) -> Done {
    let gather = || {
        let mut stats: Stats = session.look("/v1/stats", &(), |view| view.stats())?;
        // JSON is for programs: they get every counter, unless only drops were asked for.
        let all = options.all || session.json();
        stats.recent.retain(|event| all || options.drops && event.kind == "drop");
        stats.reasons.retain(|reason| (all || reason.count > 0) && (!options.drops || reason.kind == "drop"));
        Ok(stats)
    };
    output::watch(session, options.watch, gather, |stats| text(stats, options.drops))
}

fn text(stats: &Stats, drops: bool) -> String {
    let mut parts = Vec::new();
    if !drops {
        let mut table = output::table([
            "SERVICE",
            "PACKETS",
            "BYTES",
            "RECORDED",
            "UNRECORDED",
            "DROPS",
            "REJECTS",
            "RETURNS",
            "OBSERVED",
        ]);
        for service in &stats.services {
            let own = &service.counters;
            let mut row =
                vec![service.service.as_str().into(), number(grouped(own.packets)), number(bytes(own.bytes))];
            let rest =
                [own.flows_recorded, own.flows_unrecorded, own.drops, own.rejects, own.returns, own.observed];
            row.extend(rest.map(|value| number(grouped(value))));
            table.add_row(row);
        }
        parts.push(output::text(&table));
        let mut table = output::table(["TARGET", "PACKETS", "BYTES", "NEW FLOWS", "DROPS"]);
        for target in &stats.targets {
            let own = &target.counters;
            table.add_row(vec![
                target.target.as_str().into(),
                number(grouped(own.packets)),
                number(bytes(own.bytes)),
                number(grouped(own.flows)),
                number(grouped(own.drops)),
            ]);
        }
        parts.push(output::text(&table));
    }
    parts.push(reasons(&stats.reasons, drops));
    if !stats.recent.is_empty() {
        parts.push(recent(&stats.recent));
    }
    parts.join("\n\n")
}

/// How many of the last events people are shown.
const SHOWN: usize = 20;

fn recent(events: &[Sampled]) -> String {
    let mut table = output::table(["AGO", "REASON", "SERVICE", "PORT", "PACKET"]);
    for event in &events[events.len().saturating_sub(SHOWN)..] {
        let end = |address: Option<IpAddr>, port| match address {
            Some(address) => SocketAddr::new(address, port).to_string(),
            None => "?".to_owned(),
        };
        let whose = event.target.as_ref().or(event.service.as_ref());
        table.add_row([
            format!("{:.1} s", event.ago_ms as f64 / 1000.0),
            event.reason.clone(),
            whose.cloned().unwrap_or_default(),
            event.port.clone().unwrap_or_default(),
            format!(
                "{} {} > {}",
                event.protocol.as_deref().unwrap_or("?"),
                end(event.client, event.client_port),
                end(event.vip, event.vip_port)
            ),
        ]);
    }
    format!("some of the last packets:\n{}", output::text(&table))
}

fn reasons(reasons: &[ReasonCount], drops: bool) -> String {
    if reasons.is_empty() {
        return if drops { "nothing was dropped" } else { "nothing else was counted" }.to_owned();
    }
    let mut table = output::table(["REASON", "KIND", "COUNT"]);
    for reason in reasons {
        table.add_row(vec![
            reason.name.as_str().into(),
            reason.kind.as_str().into(),
            number(grouped(reason.count)),
        ]);
    }
    output::text(&table)
}
