//! `lbx drain` and `lbx undrain`.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::args::{Drain, TargetName};
use super::session::{Session, needs_daemon};
use super::{Done, Failure, change, output};
use crate::api::model::{Changed, TargetRequest, Targets};

/// How often flows are counted while waiting.
const POLL: Duration = Duration::from_millis(500);

/// A drain that was waited for.
#[derive(Serialize)]
struct Drained {
    target: String,
    open_flows: u64,
    /// Seconds it took.
    waited: f64,
}

pub(super) fn drain(session: &Session, options: &Drain) -> Done {
    let request = TargetRequest { target: options.target.clone() };
    let answer: Changed = session.must_post("/v1/drain", &request)?;
    if !options.wait {
        return output::show(session, &answer, change::changed);
    }
    let name = answer.target.clone().unwrap_or_else(|| options.target.clone());
    if !session.json() {
        output::say(&change::changed(&answer))?;
    }
    let started = Instant::now();
    let timeout = options.timeout.map(Duration::from_secs);
    let progress = std::io::stderr().is_terminal();
    loop {
        let left = open_flows(session, &name)?;
        if left == 0 {
            break;
        }
        if timeout.is_some_and(|timeout| started.elapsed() >= timeout) {
            let waited = output::span(started.elapsed().as_secs());
            return Err(Failure::TimedOut(format!(
                "{name} still has {left} open flows after {waited}; it keeps draining (`lbx undrain {name}` ends it)"
            )));
        }
        if progress {
            eprint!("\r{left} open flows remain \x1b[K");
        }
        // Not beyond the timeout.
        let rest = timeout.map_or(POLL, |timeout| timeout.saturating_sub(started.elapsed()));
        std::thread::sleep(POLL.min(rest.max(Duration::from_millis(10))));
    }
    if progress {
        eprint!("\r\x1b[K");
    }
    let drained = Drained { target: name, open_flows: 0, waited: started.elapsed().as_secs_f64() };
    output::show(session, &drained, |drained| {
        format!("{} has no open flows any more, after {:.1} s", drained.target, drained.waited)
    })
}

fn open_flows(session: &Session, name: &str) -> Result<u64, Failure> {
    let targets: Targets = session.get("/v1/targets", &()).map_err(needs_daemon)?;
    let target = targets.targets.into_iter().find(|target| target.name == name);
    Ok(target.map_or(0, |target| target.open_flows))
}

pub(super) fn undrain(session: &Session, options: &TargetName) -> Done {
    let request = TargetRequest { target: options.target.clone() };
    let answer: Changed = session.must_post("/v1/undrain", &request)?;
    output::show(session, &answer, change::changed)
}
