//! `lbx stats`.

use super::Done;
use super::args::Stats as Options;
use super::output::{self, bytes, grouped, number};
use super::session::Session;
use crate::api::model::{ReasonCount, Stats};

pub(super) fn stats(session: &Session, options: &Options) -> Done {
    let gather = || {
        let mut stats: Stats = session.look("/v1/stats", &(), |view| view.stats())?;
        // JSON is for programs: they get every counter, unless only drops were asked for.
        let all = options.all || session.json();
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
    parts.join("\n\n")
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
