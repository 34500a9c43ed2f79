//! `lbx weights`.

use super::args::Weights as Options;
use super::output::{self, grouped, number, percent};
use super::session::Session;
use super::{Done, Failure};
use crate::api::model::{Table, WeightRow, Weights};
use crate::availability::formula::short;

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
    let adaptive = answer.weights.iter().any(|row| row.wished.is_some());
    let mut table = output::rows();
    let wished = adaptive.then_some("WISHED");
    let head = ["TARGET", "STATE", "CONFIG"].into_iter().chain(wished);
    table.set_header(head.chain(["WEIGHT", "SHARE", "SLOTS", "TABLE", "NEW FLOWS", "OF ALL"]));
    for row in &answer.weights {
        table.add_row(cells(row, adaptive));
        for queue in row.queues.iter().filter(|_| verbose && row.queues.len() > 1) {
            let mut cells = vec![format!("  queue {}", queue.queue).into(), "".into()];
            cells.push(number(units(queue.configured.into(), row)));
            cells.extend(adaptive.then(|| "".into()));
            cells.extend([number(units(queue.weight.into(), row)), "".into(), number(queue.slots)]);
            table.add_row(cells);
        }
    }
    let mut text = output::text(&table);
    if answer.weights.iter().any(|row| !row.overridden && is_blind(row)) {
        text.push_str("\n! not measured, or no longer; `lbx why weight TARGET` says what is missing");
    }
    if verbose {
        for table in &answer.tables {
            text.push('\n');
            text.push_str(&repair(table));
        }
    }
    text
}

/// A weight of the maps in units of the config.
fn units(weight: u64, row: &WeightRow) -> String {
    match row.scale {
        Some(scale) if scale > 1.0 => short(weight as f64 / scale),
        _ => weight.to_string(),
    }
}

/// It is to follow readings, and there are none.
fn is_blind(row: &WeightRow) -> bool {
    matches!(row.held.as_deref(), Some("stale" | "decaying" | "unmeasured"))
}

fn cells(row: &WeightRow, adaptive: bool) -> Vec<comfy_table::Cell> {
    // Overridden, or held by something that is worth a look.
    let mark = match row.overridden {
        true => "*",
        false if is_blind(row) => "!",
        false => "",
    };
    let mut cells = vec![
        format!("{}/{}", row.service, row.target).into(),
        row.state.as_str().into(),
        number(units(row.configured, row)),
    ];
    cells.extend(adaptive.then(|| number(row.wished.map_or("-".to_owned(), short))));
    cells.extend([
        number(format!("{}{mark}", units(row.weight, row))),
        number(percent(row.share)),
        number(grouped(row.slots.into())),
        number(percent(row.table_share)),
        number(grouped(row.flows)),
        number(percent(row.flow_share)),
    ]);
    cells
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
