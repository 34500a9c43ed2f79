//! What can be asked of the daemon, and what it answers.

use serde::{Deserialize, Serialize};

use crate::config;

/// POST /v1/drain and /v1/undrain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetRequest {
    /// `web-1`, or `web/web-1` where several services have one.
    pub target: String,
}

/// POST /v1/weight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetWeight {
    /// `web-1`, or `web/web-1`.
    pub target: String,
    /// The weight; absent: the configured one again.
    pub weight: Option<u32>,
}

/// POST /v1/state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetState {
    /// `web-1`, or `web/web-1`.
    pub target: String,
    /// `active`, `draining`, `blackholed` or `down`; absent: the operator wishes nothing any more.
    pub state: Option<String>,
}

/// POST /v1/bypass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bypass {
    /// Every packet passes as on a plain bridge, or is steered again.
    pub on: bool,
}

/// POST /v1/attach.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttachRequest {
    /// Switches of the config by name; empty: all.
    pub switches: Vec<String>,
    /// Also where the operator could be locked out.
    pub yes: bool,
    /// Take the place of foreign XDP programs.
    pub replace: bool,
    /// Compute and count every verdict, change no packet.
    pub observe: bool,
}

/// POST /v1/detach: takes the programs off switches; maps and flows stay.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetachRequest {
    /// Switches by name.
    pub switches: Vec<String>,
}

/// The answer to a change of a target (or of the bypass, without a target).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Changed {
    /// The target by its full name.
    pub target: Option<String>,
    /// It was not so already.
    pub changed: bool,
    /// What holds now, in words: another owner may want more than was asked for.
    pub now: String,
}

/// The answer to POST /v1/reload.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reload {
    /// What changed, a line each; nothing if the file says what it said.
    pub changes: Vec<String>,
    /// What is allowed but looks wrong.
    pub warnings: Vec<Problem>,
}

/// One thing wrong with a config.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Problem {
    /// `error` or `warning`.
    pub severity: String,
    /// The file.
    pub file: String,
    /// Line, from 1; 0 without a place.
    pub line: usize,
    /// Column, from 1; 0 without a place.
    pub column: usize,
    /// The key.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl From<&config::Problem> for Problem {
    fn from(problem: &config::Problem) -> Self {
        let severity = match problem.severity {
            config::Severity::Error => "error",
            config::Severity::Warning => "warning",
        };
        Self {
            severity: severity.to_owned(),
            file: problem.file.clone(),
            line: problem.line,
            column: problem.column,
            key: problem.key.clone(),
            message: problem.message.clone(),
            hint: problem.hint.clone(),
        }
    }
}
