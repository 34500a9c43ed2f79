//! What the benches say: tables and sentences as they come, claims at the end, and the same as Markdown between
//! the marks of a document.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::demo::story::Story;
use crate::demo::{Claim, Claims};

/// Collects what the benches say while it is printed.
pub struct Report {
    story: Story,
    sections: Vec<Section>,
}

/// What one bench said, as Markdown.
struct Section {
    name: String,
    text: String,
}

impl Report {
    /// Nothing said yet.
    pub fn new() -> Self {
        Self { story: Story::new(), sections: Vec::new() }
    }

    /// A bench begins. `name` is that of its marks in the document.
    pub fn section(&mut self, name: &str, title: &str) {
        self.story.part(title);
        self.sections.push(Section { name: name.into(), text: String::new() });
    }

    /// Sentences.
    pub fn say(&mut self, text: &str) {
        self.story.say(text);
        self.add(&format!("{text}\n\n"));
    }

    /// A table: the first row is the heading.
    pub fn table(&mut self, rows: &[Vec<String>]) {
        self.story.table(rows);
        self.add(&markdown(rows));
        self.add("\n");
    }

    /// A picture that was written to a file: of the document it is a neighbour.
    pub fn picture(&mut self, what: &str, file: &Path) {
        self.story.say(&format!("{what}: {}", file.display()));
        let (dir, name) = (file.parent().and_then(Path::file_name), file.file_name());
        if let (Some(dir), Some(name)) = (dir, name) {
            self.add(&format!("![{what}]({}/{})\n\n", dir.display(), name.display()));
        }
    }

    /// Notes a claim and says how it went.
    pub fn claim(&mut self, claim: Claim) {
        self.story.claim(claim);
    }

    /// The table of all claims.
    pub fn finish(self, took: Duration) -> (Claims, Figures) {
        (self.story.finish(took), Figures(self.sections))
    }

    fn add(&mut self, text: &str) {
        if let Some(section) = self.sections.last_mut() {
            section.text.push_str(text);
        }
    }
}

impl Default for Report {
    fn default() -> Self {
        Self::new()
    }
}

/// The figures of a run, as Markdown by bench.
pub struct Figures(Vec<Section>);

impl Figures {
    /// Puts the figures between the marks `<!-- bench NAME -->` and `<!-- end NAME -->` of a document, each with
    /// the machine it is from. What stands elsewhere stays.
    pub fn insert(&self, document: &Path, machine: &str) -> Result<()> {
        let mut text =
            fs::read_to_string(document).with_context(|| format!("reading {}", document.display()))?;
        for section in &self.0 {
            text = replace(&text, &section.name, &format!("Measured on {machine}.\n\n{}", section.text))
                .with_context(|| document.display().to_string())?;
        }
        fs::write(document, text).with_context(|| format!("writing {}", document.display()))
    }
}

/// Replaces what stands between the marks of a bench.
fn replace(text: &str, name: &str, by: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- bench {name} -->\n"), format!("<!-- end {name} -->"));
    let Some((before, rest)) = text.split_once(&begin) else { bail!("there is no mark {}", begin.trim()) };
    let Some((_, after)) = rest.split_once(&end) else { bail!("there is no mark {end}") };
    Ok(format!("{before}{begin}\n{}\n\n{end}{after}", by.trim()))
}

/// A table in Markdown.
fn markdown(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (n, row) in rows.iter().enumerate() {
        let _ = writeln!(text, "| {} |", row.join(" | "));
        if n == 0 {
            let _ = writeln!(text, "|{}", "---|".repeat(row.len()));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let text = "a\n<!-- bench x -->\nold\n<!-- end x -->\nb\n<!-- bench y -->\n<!-- end y -->\n";
        let new = replace(text, "x", "new\n").unwrap();
        assert_eq!(
            new,
            "a\n<!-- bench x -->\n\nnew\n\n<!-- end x -->\nb\n<!-- bench y -->\n<!-- end y -->\n"
        );
        assert_eq!(replace(&new, "x", "new\n").unwrap(), new, "again is the same");
        assert!(replace(text, "z", "").is_err());
    }

    #[test]
    fn tables_have_a_head() {
        let rows = [vec!["a".to_owned(), "b".to_owned()], vec!["1".to_owned(), "2".to_owned()]];
        assert_eq!(markdown(&rows), "| a | b |\n|---|---|\n| 1 | 2 |\n");
    }
}
