//! `lbx flows`: straight from the table, row by row, so that the first are there at once and a table of
//! millions needs no memory.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::args::Flows as Options;
use super::output::{self, grouped, number, span};
use super::session::Session;
use super::{Done, Failure};
use crate::api::client::Error;
use crate::api::model::{Flow, FlowQuery, Flows, SCHEMA, Targets};
use crate::datapath::Maps;
use crate::view::View;

/// Rows that are laid out together.
const BATCH: usize = 100;
/// Rows are shown after this long, however few they are.
const PATIENCE: Duration = Duration::from_millis(300);

/// How many flows there are, by target.
#[derive(Serialize)]
struct Counted {
    count: u64,
    targets: BTreeMap<String, u64>,
}

pub(super) fn flows(session: &Session, options: &Options) -> Done {
    let query = query(options);
    if options.count {
        return output::watch(
            session,
            options.watch,
            || count(session, &query),
            |counted| {
                let mut table = output::table(["TARGET", "FLOWS"]);
                for (target, count) in &counted.targets {
                    table.add_row(vec![target.as_str().into(), number(grouped(*count))]);
                }
                format!("{}\n{} flows", output::text(&table), grouped(counted.count))
            },
        );
    }
    if options.watch.watch.is_some() {
        let gather = || session.look("/v1/flows", &query, |view| view.flows(&query));
        return output::watch(session, options.watch, gather, |flows| {
            let mut table = head();
            table.add_rows(flows.flows.iter().map(cells));
            format!("{}{}", output::text(&table), more(flows.more))
        });
    }
    match Maps::open_pinned(&session.paths.instance) {
        Ok(maps) => {
            session.say_if_alone();
            let view = View::new(&maps, &session.paths.instance)?;
            print(session, view.flow_rows(&query)?, options.limit)
        }
        // Not root, or nothing attached: the daemon knows.
        Err(error) => match session.get::<Flows>("/v1/flows", &query) {
            Ok(flows) => {
                let limit = if flows.more { flows.flows.len().saturating_sub(1) } else { usize::MAX };
                print(session, flows.flows.into_iter(), limit.min(options.limit))
            }
            Err(Error::NotRunning(socket)) => match error {
                crate::datapath::Error::NotLoaded(_) => {
                    Err(Failure::NoDaemon(format!("{}, and nothing is attached", Error::NotRunning(socket))))
                }
                other => Err(other.into()),
            },
            Err(other) => Err(other.into()),
        },
    }
}

fn query(options: &Options) -> FlowQuery {
    let filter = options.filter.clone();
    FlowQuery {
        service: filter.service,
        target: filter.target,
        client: filter.client,
        state: filter.state,
        older: filter.older,
        younger: filter.younger,
        limit: Some(options.limit),
    }
}

/// Counts the flows that are asked for. Without a filter the targets know their number.
fn count(session: &Session, query: &FlowQuery) -> Result<Counted, Failure> {
    let mut counted = Counted { count: 0, targets: BTreeMap::new() };
    if let Ok(maps) = Maps::open_pinned(&session.paths.instance) {
        session.say_if_alone();
        let view = View::new(&maps, &session.paths.instance)?;
        for flow in view.flow_rows(query)? {
            counted.count += 1;
            *counted.targets.entry(flow.target).or_insert(0) += 1;
        }
        return Ok(counted);
    }
    let plain = FlowQuery { limit: None, ..query.clone() } == FlowQuery::default();
    if !plain {
        return Err(Failure::Usage("only root can count with a filter, in the pinned maps".to_owned()));
    }
    let targets: Targets = session.look("/v1/targets", &(), |view| view.targets())?;
    for target in targets.targets {
        counted.count += target.live_flows;
        counted.targets.insert(target.name, target.live_flows);
    }
    Ok(counted)
}

fn print(session: &Session, rows: impl Iterator<Item = Flow>, limit: usize) -> Done {
    if session.json() { print_json(rows, limit) } else { print_text(rows, limit) }
}

/// One object, written as it is read.
fn print_json(mut rows: impl Iterator<Item = Flow>, limit: usize) -> Done {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    write!(out, "{{\"schema\":{SCHEMA},\"flows\":[")?;
    for (n, flow) in rows.by_ref().take(limit).enumerate() {
        let comma = if n > 0 { "," } else { "" };
        write!(out, "{comma}\n{}", serde_json::to_string(&flow)?)?;
    }
    writeln!(out, "],\"more\":{}}}", rows.next().is_some())?;
    out.flush()?;
    Ok(())
}

fn print_text(mut rows: impl Iterator<Item = Flow>, limit: usize) -> Done {
    let mut table = head();
    let (mut shown, mut waiting, mut since) = (0, 0, Instant::now());
    let mut first = true;
    for flow in rows.by_ref().take(limit) {
        table.add_row(cells(&flow));
        (shown, waiting) = (shown + 1, waiting + 1);
        if waiting >= BATCH || since.elapsed() >= PATIENCE {
            say_batch(&table, &mut first)?;
            table = head();
            (waiting, since) = (0, Instant::now());
        }
    }
    if waiting > 0 {
        say_batch(&table, &mut first)?;
    }
    if shown == 0 {
        return output::say("no flow is recorded that fits");
    }
    let more = more(rows.next().is_some());
    if more.is_empty() { Ok(()) } else { output::say(more.trim_start()) }
}

/// A part of a long table; only the first part has the head.
fn say_batch(table: &comfy_table::Table, first: &mut bool) -> Done {
    let text = output::text(table);
    let text = if std::mem::replace(first, false) {
        &text
    } else {
        text.split_once('\n').map_or("", |(_, rest)| rest)
    };
    output::say(text)
}

fn more(more: bool) -> &'static str {
    if more { "\n(there are more: --limit N shows more, filters show fewer)" } else { "" }
}

fn head() -> comfy_table::Table {
    output::table(["PROTO", "CLIENT", "VIP", "TARGET", "STATE", "AGE", "IDLE"])
}

fn cells(flow: &Flow) -> Vec<comfy_table::Cell> {
    let unknown = || "-".to_owned();
    let nat = if flow.nat { " nat" } else { "" };
    vec![
        flow.protocol.clone().unwrap_or_else(unknown).into(),
        flow.client.map_or_else(unknown, |client| client.to_string()).into(),
        flow.vip.map_or_else(unknown, |vip| vip.to_string()).into(),
        flow.target.as_str().into(),
        format!("{}{nat}", flow.state.name()).into(),
        number(flow.age.map_or_else(unknown, span)),
        number(span(flow.idle)),
    ]
}
