//! `lbx health`.

use super::Done;
use super::args::Watch;
use super::output::{self, number};
use super::session::{Session, needs_daemon};
use crate::api::model::{Health, HealthCheck};

pub(super) fn health(session: &Session, watch: Watch) -> Done {
    output::watch(session, watch, || session.get("/v1/health", &()).map_err(needs_daemon), table)
}

fn table(health: &Health) -> String {
    if health.checks.is_empty() {
        return "no target is checked; add a [service.health]".to_owned();
    }
    let mut table = output::table(["TARGET", "CHECK", "STATE", "IN ROW", "SINCE", "AGE", "TOOK"]);
    for check in &health.checks {
        table.add_row(vec![
            check.target.as_str().into(),
            check.check.as_str().into(),
            state(check).into(),
            number(check.streak),
            number(check.since.map_or("-".to_owned(), output::span)),
            number(check.age_ms.map_or("-".to_owned(), |age| format!("{:.1} s", age as f64 / 1e3))),
            number(check.micros.map_or("-".to_owned(), |micros| format!("{:.2} ms", micros as f64 / 1e3))),
        ]);
    }
    let mut text = output::text(&table);
    for check in &health.checks {
        let why = check.held.as_ref().map(|why| format!("failures do not count: {why}"));
        for line in why.iter().chain(&check.error) {
            text.push_str(&format!("\n{}: {line}", check.target));
        }
    }
    text
}

fn state(check: &HealthCheck) -> String {
    match (check.new, check.held.is_some()) {
        (true, _) => format!("{} (new)", check.state),
        (false, true) => format!("{} (held)", check.state),
        _ => check.state.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_and_doubts_are_told_below_the_table() {
        let check = |target: &str, state: &str| HealthCheck {
            target: target.into(),
            check: "tcp 192.0.2.1:80".into(),
            state: state.into(),
            ..HealthCheck::default()
        };
        let held = HealthCheck {
            held: Some("br0 has no carrier".into()),
            error: Some("no answer".into()),
            ..check("web/a", "up")
        };
        let new = HealthCheck { new: true, ..check("web/b", "unknown") };
        let text = table(&Health { checks: vec![held, new] });
        for says in
            ["up (held)", "unknown (new)", "web/a: failures do not count: br0 has no", "web/a: no answer"]
        {
            assert!(text.contains(says), "{says}: {text}");
        }
        assert!(table(&Health::default()).contains("[service.health]"));
    }
}
