//! The state of the daemon, and the one way from it into the maps.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::{Context, Result};
use lbx_common::target::State;
use lbx_common::wish::Owner;
use tokio::sync::mpsc;

use super::attach::{self, Attached};
use super::host::Host;
use super::paths::Paths;
use super::pending;
use crate::answer::{Ask, Key, machine::Phase};
use crate::api::model::{Changed, Problem, Reload};
use crate::config::{Answer, Change, Config, Problems, Scope};
use crate::control::build::{self, Input};
use crate::control::desired::Desired;
use crate::control::overrides::Overrides;
use crate::control::reconcile::Reconciler;
use crate::control::resolve::Found;
use crate::control::wishes::WishBook;
use crate::datapath::Datapath;
use crate::host::plan::lockout;
use crate::measure::health::{self, Checked};
use crate::view;

/// How the daemon was started, or attached since.
#[derive(Debug, Clone, Copy, Default)]
pub struct AttachOptions {
    /// Also where the operator could be locked out.
    pub yes: bool,
    /// Take the place of foreign XDP programs.
    pub replace: bool,
}

/// Everything that changes.
pub struct Core {
    /// Where things are.
    pub paths: Paths,
    /// The config in force.
    pub config: Config,
    /// When it was read, in seconds since 1970.
    pub config_since: u64,
    /// When the daemon started.
    pub started: Instant,
    /// The kernel half.
    pub datapath: Datapath,
    /// The one writer.
    pub reconciler: Reconciler,
    /// What owners wish.
    pub book: WishBook,
    /// What the operator wishes, on disk.
    pub overrides: Overrides,
    /// The host as last seen.
    pub host: Host,
    /// Where probing stands.
    pub answers: BTreeMap<Key, Phase>,
    /// What health checks found, by full name of the target.
    pub health: BTreeMap<String, Checked>,
    /// Why targets are not there, by full name.
    pub absent: BTreeMap<String, String>,
    /// What the maps say.
    pub desired: Desired,
    /// What is attached.
    pub attached: Attached,
    /// Switches that are not attached without `--yes`, and why.
    pub held: BTreeMap<String, String>,
    /// The last pass that failed, and why.
    pub failed: Option<String>,
    pub(super) options: AttachOptions,
    pub(super) allowed: BTreeSet<String>,
    /// Switches that were detached on request.
    pub(super) let_go: BTreeMap<String, String>,
    pub(super) asks: mpsc::Sender<Vec<Ask>>,
    pub(super) checks: mpsc::Sender<Vec<health::Check>>,
    pub(super) ssh: Option<String>,
}

impl Core {
    /// A core that knows nothing of the host yet; [`Core::adopt`] and [`Core::refresh`] follow.
    pub fn new(
        paths: Paths,
        config: Config,
        datapath: Datapath,
        options: AttachOptions,
        asks: mpsc::Sender<Vec<Ask>>,
        checks: mpsc::Sender<Vec<health::Check>>,
    ) -> Self {
        let overrides = Overrides::load(&paths.run_dir);
        let mut book = WishBook::default();
        overrides.apply(&mut book);
        Self {
            paths,
            config,
            config_since: crate::control::unix_now(),
            started: Instant::now(),
            datapath,
            reconciler: Reconciler::default(),
            book,
            overrides,
            host: Host::default(),
            answers: BTreeMap::new(),
            health: BTreeMap::new(),
            absent: BTreeMap::new(),
            desired: Desired::default(),
            attached: Attached::default(),
            held: BTreeMap::new(),
            failed: None,
            options,
            allowed: BTreeSet::new(),
            let_go: BTreeMap::new(),
            asks,
            checks,
            ssh: std::env::var("SSH_CONNECTION").ok(),
        }
    }

    /// Looks at the host and makes maps and attachments follow. `afresh` reads filters too.
    ///
    /// # Errors
    /// The host could not be read, or a write failed; the daemon goes on and tries again at the next change.
    pub async fn refresh(&mut self, afresh: bool) -> Result<()> {
        let instance = self.paths.instance.clone();
        self.host.refresh(&self.config, &instance, self.options.replace, afresh).await?;
        if self.presence() {
            // Who is gone gets no packet from now on; tables follow.
            self.flip()?;
        }
        self.hold_back();
        self.settle()
    }

    /// Whether each target is there: presence's wishes. Whether any changed.
    fn presence(&mut self) -> bool {
        let (mut absent, mut changed) = (BTreeMap::new(), false);
        for found in &self.host.found {
            let name = found.full_name();
            let why = build::absent(found, &self.host.refusals);
            let wish = why.as_ref().map(|_| State::Down);
            if self.book.set_state(&name, Owner::Presence, wish) {
                changed = true;
                if let Some(why) = &why {
                    tracing::warn!("{name} is down: {why}");
                } else {
                    tracing::info!("{name} is there, behind {}", found.port);
                }
            }
            absent.extend(why.map(|why| (name, why)));
        }
        self.absent = absent;
        changed
    }

    /// Which switches wait for somebody to say yes.
    fn hold_back(&mut self) {
        self.held.clone_from(&self.let_go);
        if self.options.yes {
            return;
        }
        for plan in &self.host.plans {
            let before = attach::is_attached(&self.datapath, plan);
            if before || self.allowed.contains(&plan.switch) {
                continue;
            }
            if let Some(why) = lockout(&self.host.view, &plan.switch, self.ssh.as_deref()) {
                self.held.insert(plan.switch.clone(), why);
            }
        }
    }

    /// Makes maps and attachments follow config, host, wishes and answers as they stand.
    ///
    /// # Errors
    /// A write failed; what was written before stands, and is right as far as it goes.
    pub fn settle(&mut self) -> Result<()> {
        let result = self.try_settle();
        let failed = result.as_ref().err().map(|error| format!("{error:#}"));
        if let Some(text) = failed.as_ref().filter(|text| self.failed.as_ref() != Some(text)) {
            tracing::error!("the datapath does not follow the config: {text}");
        }
        self.failed = failed;
        result
    }

    fn try_settle(&mut self) -> Result<()> {
        let rate = self.datapath.maps().rate()?;
        let input = Input {
            config: &self.config,
            view: &self.host.view,
            plans: &self.host.plans,
            found: &self.host.found,
            findings: &self.host.findings,
            refusals: &self.host.refusals,
            book: &self.book,
            answers: &self.answers,
            rate,
        };
        let desired = build::desired(&input);
        let mut maps = self.datapath.maps();
        let outcome = self.reconciler.apply(&mut maps, &desired)?;
        for change in &outcome.changes {
            tracing::debug!("{change}");
        }
        self.desired = desired;
        let replace = self.options.replace;
        self.attached =
            attach::sync(&mut self.datapath, &self.config, &self.host.plans, &self.held, replace)?;
        self.tell_helpers();
        Ok(())
    }

    /// Only the states, at once; the tables follow with [`Core::settle`].
    ///
    /// # Errors
    /// A store failed.
    pub fn flip(&mut self) -> Result<()> {
        for service in &mut self.desired.services {
            for target in &mut service.targets {
                target.state = self.book.state(&target.full_name(&service.name));
                if target.ifindex == 0 {
                    target.state = crate::control::desired::StateWant::lasting(State::Down);
                }
            }
        }
        let mut maps = self.datapath.maps();
        self.reconciler.apply_states(&mut maps, &self.desired)
    }

    /// Tells probes and health checks what there is to probe and check.
    fn tell_helpers(&self) {
        // A full queue means that an older list is still to be read; the next pass sends this one again.
        let _ = self.asks.try_send(self.asks());
        let _ = self.checks.try_send(health::checks(&self.config, &self.host.found, &self.host.view));
    }

    fn asks(&self) -> Vec<Ask> {
        let mut asks = Vec::new();
        for service in self.config.services.iter().filter(|service| service.answer == Answer::Probe) {
            let suspended = self.desired.service(&service.name).is_none_or(|want| want.suspended.is_some());
            let Some(switch) = self.host.view.link(&service.switch).filter(|_| !suspended) else { continue };
            if self.held.contains_key(&service.switch) {
                continue;
            }
            let vlan = build::rule_vlan(&self.host.view, service);
            // Tagged frames are asked about where the tags are: on the uplinks.
            let ifindexes = match service.vlan {
                None => vec![switch.index],
                Some(_) => self
                    .desired
                    .ports
                    .iter()
                    .filter(|port| port.switch == service.switch)
                    .filter(|port| port.entry.flags & lbx_common::port::flags::UPLINK != 0)
                    .map(|port| port.entry.ifindex)
                    .collect(),
            };
            for addr in &service.vips {
                let key = Key { switch: service.switch.clone(), vlan, addr: *addr };
                if asks.iter().any(|ask: &Ask| ask.key == key) {
                    continue;
                }
                asks.push(Ask {
                    answering: self.answers.get(&key) == Some(&Phase::Answering),
                    key,
                    mac: switch.mac,
                    tag: service.vlan.unwrap_or(0),
                    ifindexes: ifindexes.clone(),
                });
            }
        }
        asks
    }

    /// The operator wishes a state for a target, or nothing any more.
    ///
    /// # Errors
    /// No such target, or the override could not be kept.
    pub fn wish_state(&mut self, target: &str, state: Option<State>) -> Result<Changed> {
        let name = self.target(target)?;
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
        let now = format!("{name} is {}{by}", effective.state.name());
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

    fn configured_weight(&self, name: &str) -> u32 {
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
        self.settle().map_err(ReloadError::Failed)?;
        self.config_since = crate::control::unix_now();
        for change in &changes {
            tracing::info!("reload: {change}");
        }
        if changes.is_empty() {
            tracing::info!("reload: nothing changed");
        }
        Ok(Reload { changes: changes.iter().map(ToString::to_string).collect(), warnings })
    }

    /// News from a probe.
    pub fn answered(&mut self, key: &Key, phase: Phase) {
        let before = self.answers.insert(key.clone(), phase);
        match phase {
            Phase::Answering if before != Some(phase) => tracing::info!("{}: answering for it", key.addr),
            Phase::Taken { by } => {
                tracing::warn!("{}: {} answers for it", key.addr, crate::config::checked::format_mac(&by));
            }
            _ => {}
        }
        // A failure was logged, and the next pass tries again.
        let _ = self.settle();
    }

    /// News from a health check.
    pub fn checked(&mut self, target: &str, checked: Checked) {
        let wish = (checked.healthy == Some(false)).then_some(State::Down);
        if self.book.set_state(target, Owner::Health, wish) {
            if wish.is_some() {
                tracing::warn!("{target} fails its health check: {}", checked.detail);
            } else {
                tracing::info!("{target} passes its health check again");
            }
            let _ = self.flip();
            let _ = self.settle();
        }
        self.health.insert(target.to_owned(), checked);
    }

    /// What passes with time: renews blackholes, forgets what is no more.
    pub fn tick(&mut self) {
        if self.book.any_deadline() {
            let _ = self.flip();
        }
        let known: BTreeSet<String> =
            self.desired.targets().map(|(service, target)| target.full_name(&service.name)).collect();
        self.health.retain(|name, _| known.contains(name));
        let asked: BTreeSet<Key> = self.asks().into_iter().map(|ask| ask.key).collect();
        self.answers.retain(|key, _| asked.contains(key));
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
