//! The demo: a lab with three guests, and what lbx does to their traffic, told as it goes.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::lab::client::http;
use crate::lab::vm::Family;
use crate::lab::{Lab, LabSpec, VmKind};

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

impl Claims {
    /// Notes a figure that must equal `goal`.
    pub fn equal(&mut self, name: &str, value: f64, unit: &str, goal: f64) {
        self.note(name, value, unit, format!("= {goal}"), (value - goal).abs() < f64::EPSILON);
    }

    /// Notes a figure that must not exceed `goal`.
    pub fn at_most(&mut self, name: &str, value: f64, unit: &str, goal: f64) {
        self.note(name, value, unit, format!("<= {goal}"), value <= goal);
    }

    /// Notes a figure that must reach `goal`.
    pub fn at_least(&mut self, name: &str, value: f64, unit: &str, goal: f64) {
        self.note(name, value, unit, format!(">= {goal}"), value >= goal);
    }

    /// Whether every claim held; no claims hold nothing.
    pub fn all_hold(&self) -> bool {
        !self.claims.is_empty() && self.claims.iter().all(|c| c.ok)
    }

    /// Writes them as JSON.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }

    fn note(&mut self, name: &str, value: f64, unit: &str, goal: String, ok: bool) {
        println!("  {} {name}: {value} {unit} (goal {goal})", if ok { "ok  " } else { "FAIL" });
        self.claims.push(Claim { name: name.into(), value, unit: unit.into(), goal, ok });
    }
}

/// Runs the demo: brings the lab up and asks every VM directly, without lbx, over both families.
pub fn run() -> Result<Claims> {
    let mut claims = Claims::default();
    println!("Three guests on one host's bridge:");
    let lab = Lab::start(LabSpec::one_host(3, VmKind::Guest))?;
    print!("{}", lab.guide());
    println!("Each answers on its own addresses, as it would without lbx:");
    let mut answered = 0;
    for vm in &lab.vms {
        for family in [Family::V4, Family::V6] {
            let at = vm.http(family);
            let answer = lab.client().ns.run(|| http::request(at, "GET", "/", b""))??;
            print!("  GET http://{at}/ -> {}", answer.text());
            answered += u32::from(answer.vm == vm.spec.name);
        }
    }
    claims.equal("direct requests answered by the VM asked", answered.into(), "requests", 6.0);
    Ok(claims)
}
