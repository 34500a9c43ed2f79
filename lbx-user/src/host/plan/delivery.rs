//! `deliver = "auto"`: past the bridge where nothing is lost by it, through the bridge where something is.

use serde::Serialize;

use crate::host::filters::{Finding, Source};

/// How a target's frames are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Delivered {
    /// Straight into the port.
    Redirect,
    /// By the bridge.
    Bridge,
}

/// Decide from what was found on the target's port; the sentence says why.
pub fn delivery_auto(findings: &[Finding]) -> (Delivered, String) {
    // What is lost on the way in cannot meet anything.
    let lost = |finding: &&Finding| matches!(finding.source, Source::NoRedirect | Source::RedirectUnknown);
    if let Some(lost) = findings.iter().find(lost) {
        return (Delivered::Bridge, lost.to_string());
    }
    match findings {
        [] => (Delivered::Redirect, "no filter, VLAN filtering or shaping on the port".to_owned()),
        [first, rest @ ..] => {
            // A rule says more than a queue does.
            let shown = findings
                .iter()
                .find(|finding| !matches!(finding.source, Source::Shaping | Source::Vlan))
                .unwrap_or(first);
            let more = if rest.is_empty() { String::new() } else { format!(" (and {} more)", rest.len()) };
            (Delivered::Bridge, format!("a redirected frame would not meet: {shown}{more}"))
        }
    }
}
