//! Health checks in the daemon: who is new, what the checks are told, and what follows from what they find.

use std::collections::{BTreeMap, BTreeSet};

use lbx_common::target::State;
use lbx_common::wish::Owner;

use super::core::Core;
use crate::api::model;
use crate::control::boot_now;
use crate::measure::board::Reading;
use crate::measure::catalogue::{About, find};
use crate::measure::health::{self, Checked, Row};

/// What is known about the health of targets, all by their full names.
#[derive(Debug, Default)]
pub struct Health {
    /// What the checks found last.
    pub found: BTreeMap<String, Checked>,
    /// Checks run: without them nobody would ever end the waiting of a new target.
    pub checking: bool,
    /// Targets that were there before: now or in the maps that an earlier daemon left.
    pub(super) seen: BTreeSet<String>,
    /// Targets that wait for their first success.
    new: BTreeSet<String>,
    /// How often each was away and came back.
    returns: BTreeMap<String, u32>,
}

impl Core {
    /// Finds out who is new: not used until it has succeeded once. Whoever is not checked any more is free.
    pub(super) fn newcomers(&mut self) {
        let mut all = BTreeSet::new();
        for service in &self.config.services {
            for target in &service.targets {
                let name = format!("{}/{}", service.name, target.name());
                let is_new = self.health.seen.insert(name.clone());
                if service.health.checks.is_empty() {
                    self.health.new.remove(&name);
                    self.health.found.remove(&name);
                    self.book.set_state(&name, Owner::Health, None);
                } else if is_new && self.health.checking {
                    tracing::info!("{name} is new: not used until its first successful health check");
                    self.health.new.insert(name.clone());
                    self.book.set_state(&name, Owner::Health, Some(State::Down));
                }
                all.insert(name);
            }
        }
        self.health.seen.retain(|name| all.contains(name));
        self.health.new.retain(|name| all.contains(name));
        self.health.returns.retain(|name, _| all.contains(name));
    }

    /// A target was away and is back: whatever serves there now is as good as new.
    pub(super) fn returned(&mut self, name: &str) {
        let service = name.split_once('/').and_then(|(service, _)| self.config.service(service));
        if !self.health.checking || service.is_none_or(|service| service.health.checks.is_empty()) {
            return;
        }
        *self.health.returns.entry(name.to_owned()).or_default() += 1;
        self.health.new.insert(name.to_owned());
        self.book.set_state(name, Owner::Health, Some(State::Down));
    }

    /// What there is to check.
    pub(super) fn checks(&self) -> Vec<health::Listed> {
        let known = |name: &str| {
            let down = self.book.state_of(name, Owner::Health) == Some(State::Down);
            (!self.health.new.contains(name)).then_some(!down)
        };
        health::checks(&self.config, &self.host.found, &self.host.view, known, |name| self.returns(name))
    }

    fn returns(&self, target: &str) -> u32 {
        self.health.returns.get(target).copied().unwrap_or_default()
    }

    /// News from the checks of a target.
    pub fn checked(&mut self, target: &str, checked: Checked) {
        let checks = |service: &crate::config::Service| !service.health.checks.is_empty();
        let service = target.split_once('/').and_then(|(service, _)| self.config.service(service));
        if !service.is_some_and(checks) {
            // The last words of checks that a reload has ended.
            return;
        }
        // Those of checks from before the target was away: they say nothing about who is back.
        if checked.returns != self.returns(target) {
            return;
        }
        let healthy = checked.healthy == Some(true);
        let was_new = healthy && self.health.new.remove(target);
        if self.book.set_state(target, Owner::Health, (!healthy).then_some(State::Down)) {
            let why = checked.reason().unwrap_or("no check says so");
            match (healthy, was_new) {
                (true, true) => tracing::info!("{target} passes its first health check: {why}"),
                (true, false) => tracing::info!("{target} passes its health check again"),
                (false, _) => tracing::warn!("{target} fails its health check: {why}"),
            }
            let _ = self.flip();
            let _ = self.settle();
        }
        self.note(target, &checked);
        self.health.found.insert(target.to_owned(), checked);
    }

    /// A verdict is as old as the oldest of the checks it rests on.
    fn note(&self, target: &str, checked: &Checked) {
        let ages: Option<Vec<_>> = checked.rows.iter().map(|row| row.at).collect();
        let at = ages.and_then(|ages| ages.into_iter().min());
        if let (Some(metric), Some(healthy), Some(at)) = (find("healthy"), checked.healthy, at) {
            let cost = checked.rows.iter().filter_map(|row| row.took).sum();
            let reading = Reading { value: f64::from(u8::from(healthy)), at, source: "health checks", cost };
            self.board.lock().put(metric, target, reading);
        }
    }

    /// Forgets targets that are no more.
    pub(super) fn forget(&mut self, known: &BTreeSet<String>) {
        self.health.found.retain(|name, _| known.contains(name));
        self.board.lock().retain(About::Target, |name| known.contains(name));
    }

    /// Why health wishes a target to be down.
    pub(super) fn health_reason(&self, target: &str) -> String {
        let found = self.health.found.get(target).and_then(Checked::reason).unwrap_or("not checked yet");
        let new = if self.health.new.contains(target) { "new, and not healthy so far: " } else { "" };
        format!("{new}{found}")
    }

    /// The health checks.
    pub fn health(&self) -> model::Health {
        let rows =
            self.health.found.iter().flat_map(|(name, found)| found.rows.iter().map(move |row| (name, row)));
        let shown = |(target, row): (&String, &Row)| model::HealthCheck {
            target: target.clone(),
            kind: row.kind.to_owned(),
            check: row.what.clone(),
            state: match row.healthy {
                Some(true) => "up",
                Some(false) => "down",
                None => "unknown",
            }
            .to_owned(),
            new: self.health.new.contains(target),
            streak: row.in_row,
            since: row.since.map(|since| boot_now().saturating_sub(since)),
            age_ms: row.at.map(|at| at.elapsed().as_millis() as u64),
            detail: row.detail.clone(),
            error: (!row.good).then(|| row.detail.clone()),
            held: row.held.clone(),
            micros: row.took.map(|took| took.as_micros() as u64),
        };
        model::Health { checks: rows.map(shown).collect() }
    }
}
