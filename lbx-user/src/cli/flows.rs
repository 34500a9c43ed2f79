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

/// A flow, or why the next one cannot be had.
type Row = Result<Flow, Failure>;

/// Rows that are laid out together.
const BATCH: usize = 100;
/// Rows that the daemon is asked for at once.
const PORTION: usize = 10_000;
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
            let mut table = output::table(HEAD);
            table.add_rows(flows.flows.iter().map(texts));
            format!("{}{}", output::text(&table), more(flows.more))
        });
    }
    match Maps::open_pinned(&session.paths.instance) {
        Ok(maps) => {
            session.say_if_alone();
            let view = View::new(&maps, &session.paths.instance)?;
            print(session, view.flow_rows(&query)?.map(Ok), options.limit)
        }
        // Not root, or nothing attached: the daemon knows.
        Err(error) => match print(session, Portions::new(session, &query), options.limit) {
            Err(Failure::NoDaemon(socket)) => match error {
                crate::datapath::Error::NotLoaded(_) => {
                    Err(Failure::NoDaemon(format!("{socket}, and nothing is attached")))
                }
                other => Err(other.into()),
            },
            other => other,
        },
    }
}

/// The daemon's listing, asked for portion by portion as it is shown.
struct Portions<'a> {
    session: &'a Session,
    query: FlowQuery,
    flows: std::vec::IntoIter<Flow>,
    /// Where the next portion begins.
    next: Option<u64>,
}

impl<'a> Portions<'a> {
    fn new(session: &'a Session, query: &FlowQuery) -> Self {
        // One more than is shown tells whether there are more.
        let limit = query.limit.unwrap_or(PORTION).saturating_add(1).min(PORTION);
        let query = FlowQuery { limit: Some(limit), ..query.clone() };
        Self { session, query, flows: Vec::new().into_iter(), next: Some(0) }
    }
}

impl Iterator for Portions<'_> {
    type Item = Result<Flow, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(flow) = self.flows.next() {
                return Some(Ok(flow));
            }
            self.query.from = Some(self.next.take()?);
            match self.session.get::<Flows>("/v1/flows", &self.query) {
                Ok(answer) => (self.flows, self.next) = (answer.flows.into_iter(), answer.next),
                Err(Error::NotRunning(socket)) => {
                    return Some(Err(Failure::NoDaemon(Error::NotRunning(socket).to_string())));
                }
                Err(other) => return Some(Err(other.into())),
            }
        }
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
        from: None,
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

fn print(session: &Session, rows: impl Iterator<Item = Row>, limit: usize) -> Done {
    if session.json() { print_json(rows, limit) } else { print_text(rows, limit) }
}

/// One object, written as it is read.
fn print_json(mut rows: impl Iterator<Item = Row>, limit: usize) -> Done {
    let Some(first) = rows.next().transpose()? else {
        return output::say(&format!("{{\"schema\":{SCHEMA},\"flows\":[],\"more\":false}}"));
    };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    write!(out, "{{\"schema\":{SCHEMA},\"flows\":[")?;
    let mut since = Instant::now();
    let mut rows = std::iter::once(Ok(first)).chain(rows);
    for (n, flow) in rows.by_ref().take(limit).enumerate() {
        out.write_all(if n > 0 { b",\n" } else { b"\n" })?;
        serde_json::to_writer(&mut out, &flow?)?;
        if n == 0 || n.is_multiple_of(BATCH) && since.elapsed() >= PATIENCE {
            out.flush()?;
            since = Instant::now();
        }
    }
    let more = rows.next().transpose()?.is_some();
    writeln!(out, "\n],\"more\":{more}}}")?;
    out.flush()?;
    Ok(())
}

/// Columns as wide as the first rows need, then row by row; a later row that is wider widens them.
fn print_text(mut rows: impl Iterator<Item = Row>, limit: usize) -> Done {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut lines = Lines::default();
    let since = Instant::now();
    let mut waiting = Vec::new();
    let mut left = limit;
    while left > 0
        && waiting.len() < BATCH
        && since.elapsed() < PATIENCE
        && let Some(flow) = rows.next()
    {
        waiting.push(texts(&flow?));
        left -= 1;
    }
    if waiting.is_empty() && (limit == 0 || rows.next().is_none()) {
        return output::say("no flow is recorded that fits");
    }
    for row in std::iter::once(&HEAD.map(str::to_owned)).chain(&waiting) {
        lines.widen(row);
    }
    lines.write(&mut out, &HEAD.map(str::to_owned))?;
    for row in &waiting {
        lines.write(&mut out, row)?;
    }
    out.flush()?;
    let mut since = Instant::now();
    for (n, flow) in rows.by_ref().take(left).enumerate() {
        lines.write(&mut out, &texts(&flow?))?;
        if n.is_multiple_of(BATCH) && since.elapsed() >= PATIENCE {
            out.flush()?;
            since = Instant::now();
        }
    }
    let more = more(rows.next().transpose()?.is_some());
    out.write_all(more.as_bytes())?;
    if !more.is_empty() {
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(())
}

fn more(more: bool) -> &'static str {
    if more { "\n(there are more: --limit N shows more, filters show fewer)" } else { "" }
}

/// The columns of a listing that may be long: laid out without knowing the rows to come.
#[derive(Default)]
struct Lines {
    widths: [usize; COLUMNS],
    line: String,
}

impl Lines {
    fn widen(&mut self, row: &[String; COLUMNS]) {
        for (width, cell) in self.widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }

    fn write(&mut self, out: &mut impl Write, row: &[String; COLUMNS]) -> std::io::Result<()> {
        self.widen(row);
        self.line.clear();
        for (n, (cell, width)) in row.iter().zip(self.widths).enumerate() {
            if n > 0 {
                self.line.push_str("  ");
            }
            let blanks = width - cell.chars().count();
            // Times at the right of their columns.
            let (before, after) = if n >= COLUMNS - 2 { (blanks, 0) } else { (0, blanks) };
            self.line.extend(std::iter::repeat_n(' ', before));
            self.line.push_str(cell);
            self.line.extend(std::iter::repeat_n(' ', after));
        }
        self.line.truncate(self.line.trim_end().len());
        self.line.push('\n');
        out.write_all(self.line.as_bytes())
    }
}

/// Number of columns.
const COLUMNS: usize = 7;
/// Their heads.
const HEAD: [&str; COLUMNS] = ["PROTO", "CLIENT", "VIP", "TARGET", "STATE", "AGE", "IDLE"];

fn texts(flow: &Flow) -> [String; COLUMNS] {
    let unknown = || "-".to_owned();
    let nat = if flow.nat { " nat" } else { "" };
    [
        flow.protocol.clone().unwrap_or_else(unknown),
        flow.client.map_or_else(unknown, |client| client.to_string()),
        flow.vip.map_or_else(unknown, |vip| vip.to_string()),
        flow.target.clone(),
        format!("{}{nat}", flow.state.name()),
        flow.age.map_or_else(unknown, span),
        span(flow.idle),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_grow_with_their_rows() {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        let row = |client: &str, idle: &str| {
            ["tcp", client, "192.0.2.10:80", "web/a", "new", "1s", idle].map(str::to_owned)
        };
        lines.widen(&row("10.0.0.1:1", "1s"));
        lines.write(&mut out, &row("10.0.0.1:1", "1s")).unwrap();
        lines.write(&mut out, &row("10.0.0.100:1", "10s")).unwrap();
        lines.write(&mut out, &row("-", "1s")).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "tcp  10.0.0.1:1  192.0.2.10:80  web/a  new  1s  1s\n\
             tcp  10.0.0.100:1  192.0.2.10:80  web/a  new  1s  10s\n\
             tcp  -             192.0.2.10:80  web/a  new  1s   1s\n"
        );
    }
}
