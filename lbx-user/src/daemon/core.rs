//! The state of the daemon, and the one way from it into the maps.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use lbx_common::target::State;
use lbx_common::wish::Owner;
use tokio::sync::mpsc;

use super::attach::{self, Attached};
use super::host::Host;
use super::paths::Paths;
use super::pending;
use crate::answer::{Ask, Key, machine::Phase};
use crate::config::{Answer, Change, Config};
use crate::control::build::{self, Input};
use crate::control::desired::Desired;
use crate::control::overrides::Overrides;
use crate::control::reconcile::Reconciler;
use crate::control::wishes::WishBook;
use crate::datapath::Datapath;
use crate::host::plan::lockout;
use crate::measure::health::{self, Checked};

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
    pub(super) asks: mpsc::Sender<Vec<Ask>>,
    pub(super) checks: mpsc::Sender<Vec<health::Check>>,
    pub(super) ssh: Option<String>,
}

impl Core {
    /// Looks at the host and makes maps and attachments follow. `afresh` reads filters too.
    ///
    /// # Errors
    /// The host could not be read, or a write failed; the daemon goes on and tries again at the next change.
    pub async fn refresh(&mut self, afresh: bool) -> Result<()> {
        let instance = self.paths.instance.clone();
        self.host.refresh(&self.config, &instance, self.options.replace, afresh).await?;
        self.presence();
        self.hold_back();
        self.settle()
    }

    /// Whether each target is there: presence's wishes.
    fn presence(&mut self) {
        let mut absent = BTreeMap::new();
        for found in &self.host.found {
            let name = found.full_name();
            let why = build::absent(found, &self.host.refusals);
            let wish = why.as_ref().map(|_| State::Down);
            if self.book.set_state(&name, Owner::Presence, wish) {
                match &why {
                    Some(why) => tracing::warn!("{name} is down: {why}"),
                    None => tracing::info!("{name} is there, behind {}", found.port),
                }
            }
            absent.extend(why.map(|why| (name, why)));
        }
        self.absent = absent;
    }

    /// Which switches wait for somebody to say yes.
    fn hold_back(&mut self) {
        self.held.clear();
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
    pub fn wish_state(&mut self, target: &str, state: Option<State>) -> Result<String> {
        let name = self.target(target)?;
        self.overrides.set_state(&name, state)?;
        if self.book.set_state(&name, Owner::Operator, state) {
            let wish = state.map_or("nothing", State::name);
            tracing::info!("{name}: the operator wishes {wish}");
            self.flip()?;
            self.settle()?;
        }
        Ok(name)
    }

    /// The operator wishes a weight for a target, or the configured one again.
    ///
    /// # Errors
    /// No such target, or the override could not be kept.
    pub fn wish_weight(&mut self, target: &str, weight: Option<u32>) -> Result<String> {
        let name = self.target(target)?;
        self.overrides.set_weight(&name, weight)?;
        if self.book.set_weight(&name, weight) {
            let wish = weight.map_or("the configured weight".to_owned(), |weight| format!("weight {weight}"));
            tracing::info!("{name}: the operator wishes {wish}");
            self.settle()?;
        }
        Ok(name)
    }

    /// The full name of a target, from that or from a name that only one service has.
    ///
    /// # Errors
    /// None has it, or several do.
    pub fn target(&self, name: &str) -> Result<String> {
        let all: Vec<String> =
            self.host.found.iter().map(super::super::control::resolve::Found::full_name).collect();
        super::super::control::find_target(&all, name)
    }

    /// Reads the config again: all of it or nothing. Answers what changed.
    ///
    /// # Errors
    /// The file has problems; the config in force stays.
    pub async fn reload(&mut self) -> Result<Vec<Change>> {
        let new = Config::load(&self.paths.config).map_err(|problems| {
            anyhow::anyhow!("nothing was changed, the config has problems:\n{problems}")
        })?;
        for warning in &new.warnings {
            tracing::warn!("{warning}");
        }
        let changes = Config::diff(&self.config, &new);
        let old = std::mem::replace(&mut self.config, new);
        if let Err(error) = self.refresh(true).await {
            self.config = old;
            // The old config was in force a moment ago: putting it back only undoes what was begun.
            let back = self.refresh(true).await;
            let text =
                back.err().map_or(String::new(), |error| format!(" (and going back failed: {error:#})"));
            bail!("nothing was changed, the datapath refused the new config{text}: {error:#}");
        }
        let names: BTreeSet<String> =
            self.host.found.iter().map(super::super::control::resolve::Found::full_name).collect();
        self.book.retain(&names);
        // Overrides of targets that came back with this config count again.
        self.overrides.apply(&mut self.book);
        self.settle()?;
        self.config_since = crate::control::unix_now();
        for change in &changes {
            tracing::info!("reload: {change}");
        }
        if changes.is_empty() {
            tracing::info!("reload: nothing changed");
        }
        Ok(changes)
    }

    /// News from a probe.
    pub fn answered(&mut self, key: Key, phase: Phase) {
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
            match wish {
                Some(_) => tracing::warn!("{target} fails its health check: {}", checked.detail),
                None => tracing::info!("{target} passes its health check again"),
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
    pub fn detach(&mut self, switches: &[String]) -> Result<()> {
        for plan in self.host.plans.iter().filter(|plan| switches.contains(&plan.switch)) {
            attach::detach(&mut self.datapath, plan)?;
            self.allowed.remove(&plan.switch);
        }
        self.options.yes = false;
        self.hold_back();
        pending::clear(&self.paths.run_dir)?;
        self.settle()
    }
}
