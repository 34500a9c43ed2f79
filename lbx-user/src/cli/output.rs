//! Text, tables, JSON, and showing them again and again.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use super::args::{Global, Watch};
use super::session::Session;
use super::{Done, Failure};
use crate::api::model::{Answer, SCHEMA};
use lbx_common::limits::ABI_VERSION;

/// Columns that a table may have: what a terminal has next to nothing else.
pub(super) const WIDTH: u16 = 100;

/// Shows an answer once: as JSON, or as the text that `text` makes of it.
pub(super) fn show<T: Serialize>(session: &Session, answer: &T, text: impl FnOnce(&T) -> String) -> Done {
    let text = if session.json() {
        serde_json::to_string_pretty(&Answer { schema: SCHEMA, body: answer })?
    } else {
        text(answer)
    };
    say(&text)
}

/// Prints a text and ends its last line.
pub(super) fn say(text: &str) -> Done {
    let mut out = std::io::stdout().lock();
    out.write_all(text.trim_end_matches('\n').as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}

/// Shows an answer, again and again if that is wished: on a terminal in place, else one after the other (JSON:
/// one object a line).
pub(super) fn watch<T: Serialize>(
    session: &Session,
    watch: Watch,
    gather: impl Fn() -> Result<T, Failure>,
    text: impl Fn(&T) -> String,
) -> Done {
    let Some(seconds) = watch.watch else { return show(session, &gather()?, text) };
    let screen = std::io::stdout().is_terminal() && !session.json();
    loop {
        match gather() {
            Ok(answer) if session.json() => {
                say(&serde_json::to_string(&Answer { schema: SCHEMA, body: &answer })?)?;
            }
            Ok(answer) => {
                // Home, the text, and away with what is below: no flicker.
                let home = if screen { "\x1b[H\x1b[J" } else { "" };
                say(&format!("{home}{}", text(&answer)))?;
            }
            // A daemon that restarts is no reason to stop looking.
            Err(Failure::Failed(error)) => eprintln!("lbx: {error:#}"),
            Err(other) => return Err(other),
        }
        std::thread::sleep(Duration::from_secs(seconds));
    }
}

/// A table without lines, as wide as the terminal, at most [`WIDTH`].
pub(super) fn table<const N: usize>(head: [&str; N]) -> Table {
    let mut table = rows();
    table.set_header(head);
    table
}

/// The same without a head.
pub(super) fn rows() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    let width = if std::io::stdout().is_terminal() { table.width().unwrap_or(WIDTH) } else { WIDTH };
    table.set_width(width.clamp(40, WIDTH));
    table
}

/// A table as text, without blanks at the ends of lines.
pub(super) fn text(table: &Table) -> String {
    let mut table = table.clone();
    // Here, where all columns exist: a row may have made them.
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 2));
    });
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// A number at the right of its column.
pub(super) fn number(value: impl std::fmt::Display) -> Cell {
    Cell::new(value).set_alignment(CellAlignment::Right)
}

/// 1,234,567.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the unit that fits.
pub(super) fn bytes(number: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = number as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{number} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// Seconds as people say them: `45s`, `3m12s`, `2h05m`, `4d03h`.
pub(super) fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{minutes}m{:02}s", seconds % 60),
        3_600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// A share as a percentage.
pub(super) fn percent(share: f64) -> String {
    format!("{:.2}%", share * 100.0)
}

/// `lbx version`.
pub(super) fn version(global: &Global) -> Done {
    let version = env!("CARGO_PKG_VERSION");
    let datapath = crate::datapath::ebpf_object().is_some();
    if global.json {
        let object = serde_json::json!({ "schema": SCHEMA, "version": version, "abi": ABI_VERSION, "datapath": datapath });
        return say(&object.to_string());
    }
    let without = if datapath { "" } else { ", built without its datapath" };
    say(&format!("lbx {version} (map layout {ABI_VERSION}{without})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable() {
        assert_eq!([0, 999, 1000, 1234567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1023, 1024, 1 << 31].map(bytes), ["0 B", "1023 B", "1.0 KiB", "2.0 GiB"]);
        assert_eq!([0, 59, 60, 3_900, 90_000].map(span), ["0s", "59s", "1m00s", "1h05m", "1d01h"]);
        assert_eq!(percent(1.0 / 3.0), "33.33%");
    }

    #[test]
    fn a_table_stays_within_its_width() {
        let mut table = table(["NAME", "TEXT"]);
        table.add_row(["x".repeat(60), "words ".repeat(60)]);
        let text = text(&table);
        assert!(text.lines().all(|line| line.chars().count() <= usize::from(WIDTH)), "{text}");
        assert!(text.starts_with("NAME"), "{text}");
    }
}
