//! `lbx check`: the file, then the host it is for.

use serde::Serialize;

use super::args::Check;
use super::session::Session;
use super::{Done, Failure, attach, output};
use crate::api::model::{Answer, AttachPlan, Problem, SCHEMA};
use crate::config::Config;
use crate::daemon::host::Host;

/// What was found.
#[derive(Serialize)]
struct Checked {
    file: String,
    /// No error, no refusal.
    ok: bool,
    problems: Vec<Problem>,
    /// What attaching would do, and what the guard-rails refuse; absent with `--offline` or an error.
    plan: Option<AttachPlan>,
    /// Why the host could not be read.
    host_error: Option<String>,
}

pub(super) fn check(session: &Session, options: &Check) -> Done {
    if options.example {
        return output::say(Config::example());
    }
    let checked = gather(session, options);
    let text = if session.json() {
        serde_json::to_string_pretty(&Answer { schema: SCHEMA, body: &checked })?
    } else {
        text(&checked)
    };
    output::say(&text)?;
    if checked.ok { Ok(()) } else { Err(Failure::Said) }
}

fn gather(session: &Session, options: &Check) -> Checked {
    let mut checked = Checked {
        file: session.paths.config.display().to_string(),
        ok: true,
        problems: Vec::new(),
        plan: None,
        host_error: None,
    };
    let config = match Config::load(&session.paths.config) {
        Ok(config) => config,
        Err(problems) => {
            checked.ok = false;
            checked.problems = problems.iter().map(Problem::from).collect();
            return checked;
        }
    };
    checked.problems = config.warnings.iter().map(Problem::from).collect();
    if options.offline {
        return checked;
    }
    let mut host = Host::default();
    match session.block(host.refresh(&config, &session.paths.instance, false, true)) {
        Ok(()) => {
            let plan = attach::plan(session, &host, &[]);
            checked.ok = plan.refusals.is_empty() && plan.switches.iter().all(|s| s.refusals.is_empty());
            checked.plan = Some(plan);
        }
        Err(error) => {
            checked.ok = false;
            checked.host_error = Some(format!("{error:#}"));
        }
    }
    checked
}

fn text(checked: &Checked) -> String {
    let mut lines: Vec<String> = checked.problems.iter().map(line).collect();
    let errors = checked.problems.iter().filter(|problem| problem.severity == "error").count();
    lines.push(match errors {
        0 => format!("{}: the config is right", checked.file),
        1 => format!("{}: 1 error", checked.file),
        n => format!("{}: {n} errors", checked.file),
    });
    if let Some(plan) = &checked.plan {
        lines.push(String::new());
        lines.push(attach::text(plan));
    }
    if let Some(error) = &checked.host_error {
        lines.push(format!("the host could not be looked at: {error}"));
    }
    lines.join("\n")
}

/// A problem as the config's own messages show it.
pub(super) fn line(problem: &Problem) -> String {
    let mut line = problem.file.clone();
    if problem.line > 0 {
        line.push_str(&format!(":{}:{}", problem.line, problem.column));
    }
    line.push_str(&format!(": {}: ", problem.severity));
    if !problem.key.is_empty() {
        line.push_str(&format!("{}: ", problem.key));
    }
    line.push_str(&problem.message);
    if let Some(hint) = &problem.hint {
        line.push_str(&format!("\n    hint: {hint}"));
    }
    line
}
