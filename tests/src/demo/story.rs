//! Telling: headings, sentences, tables and claims on the terminal. Colours only where a person looks.

use std::io::IsTerminal;
use std::time::Duration;

use super::claims::{Claim, Claims};

/// The width that text is wrapped to, in columns.
const WIDTH: usize = 96;

/// What is told, and what was claimed so far.
pub struct Story {
    colours: bool,
    part: u32,
    claims: Claims,
}

impl Story {
    /// Nothing told yet.
    pub fn new() -> Self {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { colours, part: 0, claims: Claims::default() }
    }

    /// A heading.
    pub fn part(&mut self, title: &str) {
        self.part += 1;
        println!("\n{}", self.paint("1;36", &format!("{}. {title}", self.part)));
    }

    /// Sentences.
    pub fn say(&self, text: &str) {
        for line in wrap(text, WIDTH) {
            println!("{line}");
        }
    }

    /// A command and what it printed.
    pub fn quote(&self, command: &str, output: &str) {
        println!("  {}", self.paint("1", &format!("$ {command}")));
        for line in output.trim_end().lines() {
            println!("  {}", self.paint("2", line));
        }
    }

    /// A table: the first row is the heading, numbers are right-aligned.
    pub fn table(&self, rows: &[Vec<String>]) {
        for (n, line) in layout(rows).into_iter().enumerate() {
            println!("  {}", if n == 0 { self.paint("1", &line) } else { line });
        }
    }

    /// Notes a claim and says how it went.
    pub fn claim(&mut self, claim: Claim) {
        let unit = if claim.unit.is_empty() { String::new() } else { format!(" {}", claim.unit) };
        let line = format!("{}: {}{unit} (goal {})", claim.name, claim.figure(), claim.goal);
        println!("  {} {line}", self.verdict(claim.ok));
        self.claims.claims.push(claim);
    }

    /// The table of all claims, and the last line.
    pub fn finish(self, took: Duration) -> Claims {
        println!("\n{}", self.paint("1;36", "Summary"));
        let mut rows = vec![["claim", "measured", "goal", ""].map(String::from).to_vec()];
        for claim in &self.claims.claims {
            let measured = format!("{} {}", claim.figure(), claim.unit);
            let ok = if claim.ok { "ok" } else { "FAILED" };
            rows.push(vec![claim.name.clone(), measured.trim().into(), claim.goal.clone(), ok.into()]);
        }
        for (n, line) in layout(&rows).into_iter().enumerate() {
            let style = match n {
                0 => "1",
                n if self.claims.claims[n - 1].ok => "32",
                _ => "1;31",
            };
            println!("  {}", self.paint(style, &line));
        }
        let held = self.claims.claims.iter().filter(|c| c.ok).count();
        println!("\n{held} of {} claims held, in {:.0} s.", self.claims.claims.len(), took.as_secs_f64());
        self.claims
    }

    fn verdict(&self, ok: bool) -> String {
        if ok { self.paint("32", "ok    ") } else { self.paint("1;31", "FAILED") }
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl Default for Story {
    fn default() -> Self {
        Self::new()
    }
}

/// Breaks a text into lines of at most `width` columns, at spaces.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let Some(last) = lines.last_mut() else { break };
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}

/// The lines of a table with columns as wide as they need to be.
fn layout(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cell = |row: &Vec<String>, n: usize| row.get(n).cloned().unwrap_or_default();
    let width = |n: usize| rows.iter().map(|row| cell(row, n).chars().count()).max().unwrap_or(0);
    // A column of figures is one in which every cell below the heading begins with a digit.
    let figures = |n: usize| {
        rows.len() > 1 && rows[1..].iter().all(|row| cell(row, n).starts_with(|c: char| c.is_ascii_digit()))
    };
    let line = |row: &Vec<String>| {
        let cells = (0..columns).map(|n| {
            let (text, width) = (cell(row, n), width(n));
            if figures(n) { format!("{text:>width$}") } else { format!("{text:<width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_at_spaces() {
        assert_eq!(wrap("one two  three", 7), ["one two", "three"]);
        assert_eq!(wrap("unbreakable", 3), ["unbreakable"]);
    }

    #[test]
    fn figures_are_right_aligned() {
        let row = |cells: [&str; 2]| cells.map(String::from).to_vec();
        let table = layout(&[row(["vm", "flows"]), row(["vm1", "7"]), row(["vm20", "100"])]);
        assert_eq!(table, ["vm    flows", "vm1       7", "vm20    100"]);
    }
}
