//! What a run claims, and what it measured.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// One thing the demo claims, and what it measured.
#[derive(Debug, Clone, Serialize)]
pub struct Claim {
    /// What is claimed.
    pub name: String,
    /// The figure measured.
    pub value: f64,
    /// Its unit.
    pub unit: String,
    /// What it must be, in words: `= 3`, `<= 2`.
    pub goal: String,
    /// Whether it is.
    pub ok: bool,
}

/// All claims of a run, as `--json FILE` writes them.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Claims {
    /// In the order they were made.
    pub claims: Vec<Claim>,
}

impl Claim {
    /// A figure that must equal `goal`.
    pub fn equal(name: &str, value: f64, unit: &str, goal: f64) -> Self {
        Self::new(name, value, unit, format!("= {goal}"), (value - goal).abs() < f64::EPSILON)
    }

    /// A figure that must not exceed `goal`.
    pub fn at_most(name: &str, value: f64, unit: &str, goal: f64) -> Self {
        Self::new(name, value, unit, format!("<= {goal}"), value <= goal)
    }

    /// A figure that must reach `goal`.
    pub fn at_least(name: &str, value: f64, unit: &str, goal: f64) -> Self {
        Self::new(name, value, unit, format!(">= {goal}"), value >= goal)
    }

    fn new(name: &str, value: f64, unit: &str, goal: String, ok: bool) -> Self {
        Self { name: name.into(), value, unit: unit.into(), goal, ok }
    }

    /// The figure without decimals that say nothing.
    pub fn figure(&self) -> String {
        if self.value.fract() == 0.0 { format!("{:.0}", self.value) } else { format!("{:.2}", self.value) }
    }
}

impl Claims {
    /// Whether every claim held; no claims hold nothing.
    pub fn all_hold(&self) -> bool {
        !self.claims.is_empty() && self.claims.iter().all(|c| c.ok)
    }

    /// Writes them as JSON.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_holds_or_not() {
        assert!(Claim::equal("a", 0.0, "", 0.0).ok);
        assert!(!Claim::equal("a", 1.0, "", 0.0).ok);
        assert!(Claim::at_most("a", 2.0, "", 2.0).ok);
        assert!(!Claim::at_most("a", 2.01, "", 2.0).ok);
        assert!(!Claim::at_least("a", f64::NAN, "", 2.0).ok);
        assert!(!Claims::default().all_hold());
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(Claim::at_most("a", 0.456, "points", 2.0).figure(), "0.46");
        assert_eq!(Claim::equal("a", 12_000.0, "", 0.0).figure(), "12000");
    }
}
