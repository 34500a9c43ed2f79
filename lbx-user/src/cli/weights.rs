//! `lbx weights`.

use super::args::Weights as Options;
use super::output::{self, grouped, number, percent};
use super::session::Session;
use super::{Done, Failure};
use crate::api::model::{Table, WeightRow, Weights};

pub(super) fn weights(session: &Session, options: &Options) -> Done {
    let gather = || {
        let mut answer: Weights = session.look("/v1/weights", &(), |view| view.weights())?;
        if let Some(service) = &options.service {
            answer.tables.retain(|table| table.service == *service);
            answer.weights.retain(|row| row.service == *service);
            if answer.tables.is_empty() {
                return Err(Failure::Failed(anyhow::anyhow!("there is no service \"{service}\"")));
            }
        }
        Ok(answer)
    };
    output::watch(session, options.watch, gather, |answer| text(answer, options.verbose))
}

fn text(answer: &Weights, verbose: bool) -> String {
    if answer.weights.is_empty() {
        return "there is no target".to_owned();
    }
    let mut table = output::table([
        "TARGET",
        "STATE",
        "WEIGHT",
        "CONFIG",
        "SHARE",
        "SLOTS",
        "TABLE",
        "NEW FLOWS",
        "OF ALL",
    ]);
    for row in &answer.weights {
        table.add_row(cells(row));
        for queue in row.queues.iter().filter(|_| verbose && row.queues.len() > 1) {
            let mut cells = vec![format!("  queue {}", queue.queue).into(), "".into()];
            cells.extend([number(queue.weight), number(queue.configured), "".into(), number(queue.slots)]);
            table.add_row(cells);
        }
    }
    let mut text = output::text(&table);
    if verbose {
        for table in &answer.tables {
            text.push('\n');
            text.push_str(&repair(table));
        }
    }
    text
}

fn cells(row: &WeightRow) -> Vec<comfy_table::Cell> {
    let star = if row.overridden { "*" } else { "" };
    vec![
        format!("{}/{}", row.service, row.target).into(),
        row.state.as_str().into(),
        number(format!("{}{star}", row.weight)),
        number(row.configured),
        number(percent(row.share)),
        number(grouped(row.slots.into())),
        number(percent(row.table_share)),
        number(grouped(row.flows)),
        number(percent(row.flow_share)),
    ]
}

/// What the last change of a table was.
fn repair(table: &Table) -> String {
    let slots = grouped(table.size.into());
    match &table.repair {
        Some(repair) => format!(
            "table of {}: {slots} slots; the last change moved {} ({} had to move) in {} µs, {} ago",
            table.service,
            grouped(repair.moved.into()),
            grouped(repair.necessary.into()),
            grouped(repair.micros),
            output::span(unix_now().saturating_sub(repair.at)),
        ),
        None => format!("table of {}: {slots} slots; no change known", table.service),
    }
}

fn unix_now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}
