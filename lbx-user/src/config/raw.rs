//! The file as a tree that knows where everything stood, and the reader that walks it.
//!
//! A derived deserialiser stops at the first mistake. This reader goes on: a key of the wrong type is reported
//! and treated as absent, and when a table is [`Table::finish`]ed, every key nobody asked for is reported with
//! the nearest one that would have been understood. So unknown keys are refused, all of them, in one go.

use std::cell::RefCell;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Problem, Severity, did_you_mean};

/// A value and the bytes of the file it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Byte range in the text.
    pub span: Range<usize>,
}

/// Collects problems and turns byte offsets into lines and columns.
#[derive(Debug)]
pub struct Report<'t> {
    file: &'t str,
    text: &'t str,
    problems: RefCell<Vec<(usize, Problem)>>,
}

impl<'t> Report<'t> {
    /// An empty report on `text`, which is called `file` in the problems.
    pub fn new(file: &'t str, text: &'t str) -> Self {
        Self { file, text, problems: RefCell::default() }
    }

    /// Add an error.
    pub fn error(&self, span: &Range<usize>, key: &str, message: impl Into<String>, hint: Option<String>) {
        self.add(Severity::Error, span, key, message.into(), hint);
    }

    /// Add a warning.
    pub fn warn(&self, span: &Range<usize>, key: &str, message: impl Into<String>, hint: Option<String>) {
        self.add(Severity::Warning, span, key, message.into(), hint);
    }

    fn add(&self, severity: Severity, span: &Range<usize>, key: &str, message: String, hint: Option<String>) {
        let (line, column) = line_column(self.text, span.start);
        let (file, key) = (self.file.to_owned(), key.to_owned());
        let problem = Problem { severity, file, line, column, key, message, hint };
        self.problems.borrow_mut().push((span.start, problem));
    }

    /// The line (from 1) of a byte offset, for messages that point at a second place.
    pub fn line(&self, span: &Range<usize>) -> usize {
        line_column(self.text, span.start).0
    }

    /// The problems in the order of the file.
    pub fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|(offset, _)| *offset);
        problems.into_iter().map(|(_, problem)| problem).collect()
    }
}

/// Line and column, both from 1, of a byte offset; columns count characters, as editors do.
pub fn line_column(text: &str, offset: usize) -> (usize, usize) {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// One table of the file, being read.
#[derive(Debug)]
pub struct Table<'a, 'i> {
    entries: &'a DeTable<'i>,
    /// Where the table stands: its header, or its braces.
    pub span: Range<usize>,
    /// The path that leads here, such as `service[web].target[2]`.
    pub path: String,
    report: &'a Report<'a>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a, 'i> Table<'a, 'i> {
    /// Start reading a table.
    pub fn new(entries: &'a DeTable<'i>, span: Range<usize>, path: String, report: &'a Report<'a>) -> Self {
        Self { entries, span, path, report, asked: RefCell::default() }
    }

    /// The same table, with nothing asked for yet: to report problems found after it was read.
    #[must_use]
    pub fn fresh(&self) -> Self {
        Self::new(self.entries, self.span.clone(), self.path.clone(), self.report)
    }

    /// The full name of one of this table's keys.
    pub fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Whether the key is there, whatever its type.
    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Whether the key is there and holds a string.
    pub fn is_string(&self, key: &str) -> bool {
        matches!(self.entries.get(key).map(Spanned::get_ref), Some(DeValue::String(_)))
    }

    /// Where the key's value stands; the table itself when the key is absent.
    pub fn span_of(&self, key: &str) -> Range<usize> {
        self.entries.get(key).map_or_else(|| self.span.clone(), Spanned::span)
    }

    /// Report an error at one of this table's keys.
    pub fn error(&self, key: &str, message: impl Into<String>, hint: Option<String>) {
        self.report.error(&self.span_of(key), &self.key(key), message, hint);
    }

    /// Report a warning at one of this table's keys.
    pub fn warn(&self, key: &str, message: impl Into<String>, hint: Option<String>) {
        self.report.warn(&self.span_of(key), &self.key(key), message, hint);
    }

    /// The report that problems go to.
    pub fn report(&self) -> &'a Report<'a> {
        self.report
    }

    fn get(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'i>>> {
        self.asked.borrow_mut().push(key);
        self.entries.get(key)
    }

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str) {
        self.report.error(
            &value.span(),
            &self.key(key),
            format!("expected {wanted}, found {}", kind(value.get_ref())),
            None,
        );
    }

    /// A string.
    pub fn string(&self, key: &'static str) -> Option<At<String>> {
        let value = self.get(key)?;
        let DeValue::String(text) = value.get_ref() else {
            self.wrong_type(key, value, "a string");
            return None;
        };
        Some(At { value: text.to_string(), span: value.span() })
    }

    /// A string that has to be there.
    pub fn required_string(&self, key: &'static str) -> Option<At<String>> {
        let value = self.string(key);
        if !self.has(key) {
            self.missing(key);
        }
        value
    }

    /// Report a key that has to be there and is not.
    pub fn missing(&self, key: &str) {
        let name = self.key(key);
        self.report.error(
            &self.span,
            &name,
            format!("`{key}` is missing"),
            Some(format!("add `{key} = …` to this table")),
        );
    }

    /// A whole number within `range`.
    pub fn integer(&self, key: &'static str, range: std::ops::RangeInclusive<u64>) -> Option<At<u64>> {
        let value = self.get(key)?;
        let Some(number) = integer(value.get_ref()) else {
            self.wrong_type(key, value, "a whole number");
            return None;
        };
        self.in_range(key, number, value.span(), &range)
    }

    fn in_range(
        &self,
        key: &str,
        number: i128,
        span: Range<usize>,
        range: &std::ops::RangeInclusive<u64>,
    ) -> Option<At<u64>> {
        if let Some(value) = u64::try_from(number).ok().filter(|number| range.contains(number)) {
            Some(At { value, span })
        } else {
            self.report.error(
                &span,
                &self.key(key),
                format!("{number} is outside {} to {}", range.start(), range.end()),
                None,
            );
            None
        }
    }

    /// `true` or `false`.
    pub fn boolean(&self, key: &'static str) -> Option<At<bool>> {
        let value = self.get(key)?;
        let DeValue::Boolean(flag) = value.get_ref() else {
            self.wrong_type(key, value, "true or false");
            return None;
        };
        Some(At { value: *flag, span: value.span() })
    }

    /// A whole number or a string, as text (`port = 80`, `port = "8000-8100"`).
    pub fn number_or_text(&self, key: &'static str) -> Option<At<String>> {
        let value = self.get(key)?;
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            other => {
                if let Some(number) = integer(other) {
                    number.to_string()
                } else {
                    self.wrong_type(key, value, "a number or a string");
                    return None;
                }
            }
        };
        Some(At { value: text, span: value.span() })
    }

    /// A list of strings; a single string counts as a list of one.
    pub fn strings(&self, key: &'static str) -> Option<Vec<At<String>>> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some(vec![At { value: text.to_string(), span: value.span() }]),
            DeValue::Array(items) => {
                let mut strings = Vec::new();
                for item in items {
                    match item.get_ref() {
                        DeValue::String(text) => {
                            strings.push(At { value: text.to_string(), span: item.span() });
                        }
                        _ => self.wrong_type(key, item, "a string"),
                    }
                }
                Some(strings)
            }
            _ => {
                self.wrong_type(key, value, "a list of strings");
                None
            }
        }
    }

    /// A list of whole numbers within `range`.
    pub fn integers(
        &self,
        key: &'static str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Option<At<Vec<At<u64>>>> {
        let value = self.get(key)?;
        let DeValue::Array(items) = value.get_ref() else {
            self.wrong_type(key, value, "a list of whole numbers");
            return None;
        };
        let mut numbers = Vec::new();
        for item in items {
            match integer(item.get_ref()) {
                Some(number) => numbers.extend(self.in_range(key, number, item.span(), &range)),
                None => self.wrong_type(key, item, "a whole number"),
            }
        }
        Some(At { value: numbers, span: value.span() })
    }

    /// A table inside this one.
    pub fn table(&self, key: &'static str) -> Option<Table<'a, 'i>> {
        let value = self.get(key)?;
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type(key, value, "a table");
            return None;
        };
        Some(Table::new(table, value.span(), self.key(key), self.report))
    }

    /// A list of tables (`[[key]]`). Each is named by its `name` where it has one, else counted from 1.
    pub fn tables(&self, key: &'static str) -> Vec<Table<'a, 'i>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let DeValue::Array(items) = value.get_ref() else {
            let found = kind(value.get_ref());
            self.report.error(
                &value.span(),
                &self.key(key),
                format!("expected a list of tables, found {found}"),
                Some(format!(
                    "write `[[{}]]`, with two brackets, for each one",
                    strip_indexes(&self.key(key))
                )),
            );
            return Vec::new();
        };
        let mut tables = Vec::new();
        for (n, item) in items.iter().enumerate() {
            let DeValue::Table(table) = item.get_ref() else {
                self.wrong_type(key, item, "a table");
                continue;
            };
            let index = match table.get("name").map(Spanned::get_ref) {
                Some(DeValue::String(name)) if !name.is_empty() => name.to_string(),
                _ => (n + 1).to_string(),
            };
            let path = format!("{}[{index}]", self.key(key));
            tables.push(Table::new(table, item.span(), path, self.report));
        }
        tables
    }

    /// Report every key that nobody asked for. Called last, so that every known key has been asked for.
    pub fn finish(&self) {
        let asked = self.asked.borrow();
        for key in self.entries.keys() {
            let name: &str = key.get_ref();
            if asked.contains(&name) {
                continue;
            }
            let hint = did_you_mean(name, asked.iter().copied()).map_or_else(
                || format!("known here: {}", asked.join(", ")),
                |known| format!("did you mean `{known}`?"),
            );
            self.report.error(&key.span(), &self.key(name), format!("unknown key `{name}`"), Some(hint));
        }
    }
}

/// `service[web].target[1]` → `service.target`, as a header is written.
fn strip_indexes(path: &str) -> String {
    let mut depth = 0;
    path.chars()
        .filter(|c| {
            match c {
                '[' => depth += 1,
                ']' => {
                    depth -= 1;
                    return false;
                }
                _ => {}
            }
            depth == 0
        })
        .collect()
}

fn integer(value: &DeValue<'_>) -> Option<i128> {
    let DeValue::Integer(number) = value else { return None };
    i128::from_str_radix(number.as_str(), number.radix()).ok()
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_from_one_and_in_characters() {
        let text = "a\nbé x\n";
        assert_eq!(line_column(text, 0), (1, 1));
        assert_eq!(line_column(text, 2), (2, 1));
        assert_eq!(line_column(text, text.find('x').unwrap()), (2, 4));
        assert_eq!(line_column(text, 4), (2, 2), "inside a character: its start");
        assert_eq!(line_column(text, 999), (3, 1));
    }

    #[test]
    fn headers_are_written_without_indexes() {
        assert_eq!(strip_indexes("service[web].target"), "service.target");
        assert_eq!(strip_indexes("switch"), "switch");
    }
}
