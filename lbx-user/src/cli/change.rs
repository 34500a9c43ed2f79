//! `lbx set` and `lbx reload`: what the operator tells the daemon.

use super::Done;
use super::args::{Set, SetWhat};
use super::output;
use super::session::Session;
use crate::api::model::{Changed, Reload, SetState, SetWeight};

pub(super) fn set(session: &Session, options: &Set) -> Done {
    let answer: Changed = match &options.what {
        SetWhat::Weight(words) => {
            let request = SetWeight { target: words.target.clone(), weight: words.weight };
            session.must_post("/v1/weight", &request)?
        }
        SetWhat::State(words) => {
            let state = words.state.map(|state| state.state().name().to_owned());
            session.must_post("/v1/state", &SetState { target: words.target.clone(), state })?
        }
    };
    output::show(session, &answer, changed)
}

/// What a change came to.
pub(super) fn changed(answer: &Changed) -> String {
    let already = if answer.changed { "" } else { " (nothing changed)" };
    format!("{}{already}", answer.now)
}

pub(super) fn reload(session: &Session) -> Done {
    let answer: Reload = session.must_post("/v1/reload", &())?;
    output::show(session, &answer, |answer| {
        let mut lines: Vec<String> = answer.warnings.iter().map(super::check::line).collect();
        if answer.changes.is_empty() {
            lines.push("reloaded: nothing changed".to_owned());
        } else {
            lines.push(format!("reloaded, {} changes:", answer.changes.len()));
            lines.extend(answer.changes.iter().map(|change| format!("  {change}")));
        }
        lines.join("\n")
    })
}
