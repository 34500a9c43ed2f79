//! `lbx queues`.

use super::args::Queues as Options;
use super::output::{self, grouped, number};
use super::session::{Session, needs_daemon};
use super::{Done, Failure};
use crate::api::model::{MissingQueues, QueueRow, Queues};

pub(super) fn queues(session: &Session, options: &Options) -> Done {
    let gather = || {
        let mut answer: Queues = session.get("/v1/queues", &()).map_err(needs_daemon)?;
        if let Some(name) = &options.target {
            let wanted = |targets: &[String], vm: &Option<String>, nic: &String| {
                let named = |full: &String| full == name || full.rsplit('/').next() == Some(name);
                targets.iter().any(named) || vm.as_ref() == Some(name) || nic == name
            };
            answer.queues.retain(|row| wanted(&row.targets, &row.vm, &row.nic));
            answer.missing.retain(|one| wanted(&one.targets, &one.vm, &one.nic));
            if answer.queues.is_empty() && answer.missing.is_empty() {
                let text = format!("no target, VM or vNIC \"{name}\" has queues on this host");
                return Err(Failure::Failed(anyhow::anyhow!(text)));
            }
        }
        Ok(answer)
    };
    output::watch(session, options.watch, gather, text)
}

fn text(answer: &Queues) -> String {
    let Some(interval) = answer.interval_ms else {
        return "queues are not looked at: `measure.queues` is \"off\"".to_owned();
    };
    let mut lines = Vec::new();
    if answer.queues.is_empty() {
        lines.push("no vNIC of this host has a target".to_owned());
    } else {
        let mut table = output::table([
            "TARGET", "VM", "NIC", "QUEUE", "DEPTH", "SIZE", "PEAK", "RATE", "DROPS", "AGE", "SOURCE",
        ]);
        for row in &answer.queues {
            table.add_row(cells(row));
        }
        lines.push(output::text(&table));
        lines.push(format!(
            "looked at every {interval} ms, and when the kernel tells of one that grows ({} times); the last look took \
             {:.0} µs",
            answer.told, answer.cost_us
        ));
    }
    lines.extend(answer.missing.iter().map(missing));
    lines.extend(
        answer.problem.iter().map(|why| format!("rings are not read, packets are counted instead: {why}")),
    );
    lines.join("\n")
}

fn cells(row: &QueueRow) -> Vec<comfy_table::Cell> {
    let stale = if row.stale { " stale" } else { "" };
    let age = if row.age_ms < 1000.0 {
        format!("{:.0} ms", row.age_ms)
    } else {
        output::span((row.age_ms / 1000.0) as u64)
    };
    vec![
        row.targets.join(" ").into(),
        row.vm.as_deref().unwrap_or("-").into(),
        row.nic.as_str().into(),
        number(row.queue.map_or_else(|| "all".to_owned(), |queue| queue.to_string())),
        number(grouped(row.depth.into())),
        number(grouped(row.size.into())),
        number(grouped(row.peak.into())),
        number(row.rate.map_or_else(|| "-".to_owned(), |rate| format!("{}/s", grouped(rate.round() as u64)))),
        number(grouped(row.drops)),
        number(format!("{age}{stale}")),
        row.source.as_str().into(),
    ]
}

fn missing(one: &MissingQueues) -> String {
    format!("{} ({}): nothing new: {}", one.nic, one.targets.join(", "), one.why)
}
