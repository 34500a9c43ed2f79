//! What operators ask of the daemon: wishes, bypass, reload, attach, detach.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use lbx_common::target::State;
use lbx_common::wish::Owner;

use super::core::{AttachOptions, Core};
use super::{attach, peers, pending};
use crate::api::model::{Changed, Problem, Reload};
use crate::config::{Change, Config, Problems, Scope};
use crate::control::resolve::Found;
use crate::view;

impl Core {
    /// The operator wishes a state for a target, or nothing any more.
    ///
    /// # Errors
    /// No such target, or the override could not be kept.
    pub async fn wish_state(&mut self, target: &str, state: Option<State>) -> Result<Changed> {
        let name = self.target(target)?;
        if self.absent.contains_key(&name) {
            // Who says that a VM is back may be faster than the look that would find it: without one its flows were given
            // to others.
            if let Err(error) = self.refresh(false).await {
                tracing::warn!("looking for {name}: {error:#}");
            }
        }
        self.overrides.set_state(&name, state)?;
        let changed = self.book.set_state(&name, Owner::Operator, state);
        if changed {
            let wish = state.map_or("nothing", State::name);
            tracing::info!("{name}: the operator wishes {wish}");
            self.flip()?;
            self.settle()?;
        }
        let effective = self.book.effective(&name);
        let by = match self.book.state_of(&name, effective.by) {
            Some(_) if effective.by != Owner::Operator => format!(", as {} wishes", effective.by),
            _ => String::new(),
        };
        let now = match self.held_up(&name) {
            Some(why) => format!("{name} moved{by}: {why}"),
            None => format!("{name} is {}{by}", effective.state.name()),
        };
        Ok(Changed { target: Some(name), changed, now })
    }

    /// The operator wishes a weight for a target, or the configured one again.
    ///
    /// # Errors
    /// No such target, or the override could not be kept.
    pub fn wish_weight(&mut self, target: &str, weight: Option<u32>) -> Result<Changed> {
        let name = self.target(target)?;
        self.overrides.set_weight(&name, weight)?;
        let changed = self.book.set_weight(&name, weight);
        if changed {
            let wish = weight.map_or("the configured weight".to_owned(), |weight| format!("weight {weight}"));
            tracing::info!("{name}: the operator wishes {wish}");
            self.settle()?;
        }
        let configured = self.configured_weight(&name);
        let now = match weight {
            Some(weight) => format!("{name} has weight {weight} (configured {configured})"),
            None => format!("{name} has its configured weight {configured}"),
        };
        Ok(Changed { target: Some(name), changed, now })
    }

    pub(super) fn configured_weight(&self, name: &str) -> u32 {
        let targets = self.config.services.iter().flat_map(|service| {
            service
                .targets
                .iter()
                .map(move |target| (format!("{}/{}", service.name, target.name()), target.weight))
        });
        targets.into_iter().find(|(known, _)| known == name).map_or(0, |(_, weight)| weight)
    }

    /// Every packet passes as on a plain bridge, or is steered again.
    ///
    /// # Errors
    /// The store failed.
    pub fn bypass(&mut self, on: bool) -> Result<Changed> {
        let maps = self.datapath.maps();
        let was = maps.control()?.flags & lbx_common::control::flags::BYPASS != 0;
        maps.set_bypass(on)?;
        if was != on {
            tracing::warn!("bypass is {}", if on { "on: nothing is steered" } else { "off" });
        }
        let now = if on { "bypass is on: every packet passes" } else { "bypass is off: packets are steered" };
        Ok(Changed { target: None, changed: was != on, now: now.to_owned() })
    }

    /// Keeps what the last `attach --yes` did.
    ///
    /// # Errors
    /// The file that says so could not be removed.
    pub fn confirm(&mut self) -> Result<Changed> {
        let changed = pending::clear(&self.paths.run_dir)?;
        let now = if changed { "the attach is confirmed" } else { "no attach waits for a confirmation" };
        Ok(Changed { target: None, changed, now: now.to_owned() })
    }

    /// The full name of a target, from that or from a name that only one service has.
    ///
    /// # Errors
    /// None has it, or several do.
    pub fn target(&self, name: &str) -> view::Result<String> {
        let all: Vec<String> = self.host.found.iter().map(Found::full_name).collect();
        let names: Vec<&str> = all.iter().map(String::as_str).collect();
        let at = view::names::find(&names, name)?;
        Ok(all[at].clone())
    }

    /// Reads the config again: all of it or nothing. Answers what changed.
    ///
    /// # Errors
    /// The file has problems, or the datapath refused it; the config in force stays.
    pub async fn reload(&mut self) -> Result<Reload, ReloadError> {
        let new = Config::load(&self.paths.config).map_err(ReloadError::Config)?;
        for warning in &new.warnings {
            tracing::warn!("{warning}");
        }
        let mut warnings: Vec<Problem> = new.warnings.iter().map(Problem::from).collect();
        let changes = Config::diff(&self.config, &new);
        warnings.extend(needs_restart(&changes).map(|key| Problem {
            severity: "warning".to_owned(),
            file: self.paths.config.display().to_string(),
            key,
            message: "takes effect when the daemon is started again".to_owned(),
            hint: Some("restart it: the datapath goes on meanwhile".to_owned()),
            ..Problem::default()
        }));
        let prepared = peers::prepare(&new);
        let prepared = prepared.context("nothing was changed, the files of [peers] are not right");
        let prepared = prepared.map_err(ReloadError::Failed)?;
        let old = std::mem::replace(&mut self.config, new);
        if let Err(error) = self.refresh(true).await {
            self.config = old;
            // The old config was in force a moment ago: putting it back only undoes what was begun.
            let back = self.refresh(true).await;
            let text =
                back.err().map_or(String::new(), |error| format!(" (and going back failed: {error:#})"));
            let error = error.context(format!("nothing was changed, the new config cannot be applied{text}"));
            return Err(ReloadError::Failed(error));
        }
        let names: BTreeSet<String> = self.host.found.iter().map(Found::full_name).collect();
        self.book.retain(&names);
        // Overrides of targets that came back with this config count again.
        self.overrides.apply(&mut self.book);
        self.peers.follow(prepared);
        self.settle().map_err(ReloadError::Failed)?;
        self.config_since = crate::control::unix_now();
        self.follow_libvirt();
        for change in &changes {
            tracing::info!("reload: {change}");
        }
        if changes.is_empty() {
            tracing::info!("reload: nothing changed");
        }
        Ok(Reload { changes: changes.iter().map(ToString::to_string).collect(), warnings })
    }

    /// Attaches what was held back.
    ///
    /// # Errors
    /// A switch that is not configured, a plan that is refused, or what the datapath refused.
    pub async fn attach(&mut self, switches: &[String], options: AttachOptions, observe: bool) -> Result<()> {
        for name in switches {
            self.config
                .switch(name)
                .with_context(|| format!("the config in force has no switch \"{name}\""))?;
        }
        self.options.replace |= options.replace;
        self.datapath.maps().set_observe(observe)?;
        self.let_go.retain(|name, _| !switches.is_empty() && !switches.contains(name));
        if options.yes {
            let named = |name: &String| switches.is_empty() || switches.contains(name);
            let all: Vec<String> = self.config.switches.iter().map(|switch| switch.name.clone()).collect();
            self.allowed.extend(all.into_iter().filter(named));
        }
        self.refresh(true).await
    }

    /// Takes the programs off switches again: what an attach that nobody confirmed ends with.
    ///
    /// # Errors
    /// What the datapath refused.
    pub fn detach(&mut self, switches: &[String]) -> Result<Changed> {
        let mut changed = false;
        for plan in self.host.plans.iter().filter(|plan| switches.contains(&plan.switch)) {
            changed |= attach::detach(&mut self.datapath, plan)?;
            self.allowed.remove(&plan.switch);
            let why = "it was detached".to_owned();
            self.let_go.insert(plan.switch.clone(), why);
        }
        pending::clear(&self.paths.run_dir)?;
        self.hold_back();
        self.settle()?;
        Ok(Changed { target: None, changed, now: format!("{} detached", switches.join(", ")) })
    }
}

/// Sections that are only read at the start.
fn needs_restart(changes: &[Change]) -> impl Iterator<Item = String> {
    let sections: BTreeSet<String> = changes
        .iter()
        .filter(|change| matches!(change.scope, Scope::Daemon | Scope::Limits))
        .map(|change| change.scope.to_string())
        .collect();
    sections.into_iter()
}

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file has problems.
    #[error("nothing was changed, the config has problems:\n{0}")]
    Config(Problems),
    /// It could not be applied.
    #[error("{0:#}")]
    Failed(anyhow::Error),
}
