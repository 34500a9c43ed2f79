//! `lbx doctor`: looks for what commonly goes wrong, and says what to do about it.

mod host;
mod libvirt;
mod probe;
mod system;

use serde::Serialize;

use super::session::Session;
use super::{Done, Failure, output};
use crate::api::model::{Answer, SCHEMA};
use crate::config::Config;
use crate::daemon::host::Host;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Ok,
    /// Not looked at, and why.
    Skipped,
    /// It works, and somebody should know.
    Warn,
    /// It does not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
struct Check {
    /// What kind of thing: `attachment`, `mtu`, ...
    check: &'static str,
    /// What it is about: an interface, a service, a target; empty for the host.
    subject: String,
    level: Level,
    /// What was found.
    text: String,
    /// What to do about it.
    hint: Option<String>,
}

/// Everything that was looked at.
#[derive(Debug, Serialize)]
struct Report {
    /// Nothing failed.
    ok: bool,
    checks: Vec<Check>,
}

/// Collects what is found.
#[derive(Debug, Default)]
struct Findings(Vec<Check>);

impl Findings {
    fn ok(&mut self, check: &'static str, subject: &str, text: impl Into<String>) {
        self.add(Level::Ok, check, subject, text.into(), None);
    }

    fn skipped(&mut self, check: &'static str, subject: &str, why: &str) {
        self.add(Level::Skipped, check, subject, format!("skipped: {why}"), None);
    }

    fn warn(&mut self, check: &'static str, subject: &str, text: impl Into<String>, hint: &str) {
        self.add(Level::Warn, check, subject, text.into(), Some(hint.to_owned()));
    }

    fn fail(&mut self, check: &'static str, subject: &str, text: impl Into<String>, hint: &str) {
        self.add(Level::Fail, check, subject, text.into(), Some(hint.to_owned()));
    }

    fn add(&mut self, level: Level, check: &'static str, subject: &str, text: String, hint: Option<String>) {
        self.0.push(Check { check, subject: subject.to_owned(), level, text, hint });
    }
}

pub(super) fn doctor(session: &Session) -> Done {
    let mut found = Findings::default();
    system::look(session, &mut found);
    match Config::load(&session.paths.config) {
        Err(problems) => {
            let first = problems.iter().next().map_or_else(String::new, ToString::to_string);
            found.fail("config", &session.paths.config.display().to_string(), first, "see `lbx check`");
        }
        Ok(config) => {
            session.block(libvirt::look(&config, &mut found));
            let mut host = Host::default();
            match session.block(host.refresh(&config, &session.paths.instance, false, true)) {
                Ok(()) => {
                    host::look(session, &config, &host, &mut found);
                    session.block(probe::look(&config, &host, &mut found));
                }
                Err(error) => {
                    let hint = "run it as root, in the network namespace of the switch";
                    found.fail("host", "", format!("it cannot be looked at: {error:#}"), hint);
                }
            }
        }
    }
    let report = Report { ok: found.0.iter().all(|check| check.level != Level::Fail), checks: found.0 };
    let text = if session.json() {
        serde_json::to_string_pretty(&Answer { schema: SCHEMA, body: &report })?
    } else {
        text(&report)
    };
    output::say(&text)?;
    if report.ok { Ok(()) } else { Err(Failure::Said) }
}

fn text(report: &Report) -> String {
    let mut table = output::table(["", "CHECK", "ABOUT", "FOUND"]);
    for check in &report.checks {
        let level = match check.level {
            Level::Ok => "ok",
            Level::Skipped => "-",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        let hint = check.hint.as_ref().map_or(String::new(), |hint| format!("\n-> {hint}"));
        table.add_row([level, check.check, &check.subject, &format!("{}{hint}", check.text)]);
    }
    let count = |level| report.checks.iter().filter(|check| check.level == level).count();
    format!(
        "{}\n{} ok, {} skipped, {} to look at, {} failed",
        output::text(&table),
        count(Level::Ok),
        count(Level::Skipped),
        count(Level::Warn),
        count(Level::Fail)
    )
}
