//! The state of the daemon, and the one way from it into the maps.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::Result;
use lbx_common::target::State;
use lbx_common::wish::Owner;
use tokio::sync::mpsc;

pub use super::attach::AttachOptions;
use super::attach::{self, Attached};
use super::health::Health;
use super::host::Host;
use super::migration::Migrations;
use super::open_flows::FlowWatch;
use super::paths::Paths;
use super::recent::Recent;
use crate::answer::{Ask, Key, machine::Phase};
use crate::config::{Answer, Config};
use crate::control::build::{self, Input};
use crate::control::desired::{Desired, Moves};
use crate::control::overrides::Overrides;
use crate::control::reconcile::Reconciler;
use crate::control::weigher::Weigher;
use crate::control::wishes::WishBook;
use crate::datapath::Datapath;
use crate::host::plan::lockout;
use crate::measure::board::Shared as Board;
use crate::measure::health;
use crate::measure::load::Samplers;
use crate::measure::queue::Sampler;
use crate::measure::steered::Steered;
use crate::peers::Peers;

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
    /// Weights that follow what is measured.
    pub weigher: Weigher,
    /// What the datapath itself knows of targets.
    pub(super) steered: Steered,
    /// What is followed of flows.
    pub(super) flows: FlowWatch,
    /// VMs by full name of the target.
    pub(super) vms_of_targets: BTreeMap<String, String>,
    /// CPUs of this host.
    pub(super) cpus: f64,
    /// What the operator wishes, on disk.
    pub overrides: Overrides,
    /// The host as last seen.
    pub host: Host,
    /// Where probing stands.
    pub answers: BTreeMap<Key, Phase>,
    /// What health checks found, and who is new.
    pub health: Health,
    /// Migrations of VMs, and who says what of them.
    pub migrations: Migrations,
    /// Other hosts that run lbx.
    pub peers: Peers,
    /// What was measured last.
    pub board: Board,
    /// What measures the load, once it is started.
    pub samplers: Option<Samplers>,
    /// What looks at the queues of vNICs; none if it could not be started.
    pub queues: Option<Sampler>,
    /// Why targets are not there, by full name.
    pub absent: BTreeMap<String, String>,
    /// What the maps say.
    pub desired: Desired,
    /// What is attached.
    pub attached: Attached,
    /// Switches that are not attached without `--yes`, and why.
    pub held: BTreeMap<String, String>,
    /// The last sampled events.
    pub recent: Recent,
    /// The last pass that failed, and why.
    pub failed: Option<String>,
    pub(super) options: AttachOptions,
    pub(super) allowed: BTreeSet<String>,
    /// Switches that were detached on request.
    pub(super) let_go: BTreeMap<String, String>,
    pub(super) asks: mpsc::Sender<Vec<Ask>>,
    pub(super) checks: mpsc::Sender<Vec<health::Listed>>,
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
        checks: mpsc::Sender<Vec<health::Listed>>,
    ) -> Self {
        let overrides = Overrides::load(&paths.run_dir);
        let mut book = WishBook::default();
        overrides.apply(&mut book);
        let board = Board::default();
        let queues = Sampler::start(paths.instance.clone(), board.clone());
        let queues = queues.inspect_err(|error| tracing::error!("no thread to look at queues: {error}")).ok();
        Self {
            paths,
            config,
            config_since: crate::control::unix_now(),
            started: Instant::now(),
            datapath,
            reconciler: Reconciler::default(),
            book,
            weigher: Weigher::default(),
            steered: Steered::default(),
            flows: FlowWatch::default(),
            vms_of_targets: BTreeMap::new(),
            cpus: super::weigh::cpus(),
            overrides,
            host: Host::default(),
            answers: BTreeMap::new(),
            board,
            health: Health::default(),
            migrations: Migrations::default(),
            peers: Peers::default(),
            samplers: None,
            queues,
            absent: BTreeMap::new(),
            desired: Desired::default(),
            attached: Attached::default(),
            held: BTreeMap::new(),
            recent: Recent::default(),
            failed: None,
            options,
            allowed: BTreeSet::new(),
            let_go: BTreeMap::new(),
            asks,
            checks,
            ssh: std::env::var("SSH_CONNECTION").ok(),
        }
    }

    /// Whether each target is there: presence's wishes. Whether any changed.
    pub(super) fn presence(&mut self) -> bool {
        let (mut absent, mut back, mut changed) = (BTreeMap::new(), Vec::new(), false);
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
                    back.push(name.clone());
                }
            }
            absent.extend(why.map(|why| (name, why)));
        }
        self.absent = absent;
        for name in back {
            self.returned(&name);
        }
        changed
    }

    /// Which switches wait for somebody to say yes.
    pub(super) fn hold_back(&mut self) {
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
        self.follow_migrations();
        let rate = self.datapath.maps().rate()?;
        let hosts = self.migrations.hosts();
        let input = Input {
            config: &self.config,
            view: &self.host.view,
            plans: &self.host.plans,
            found: &self.host.found,
            findings: &self.host.findings,
            refusals: &self.host.refusals,
            book: &self.book,
            weigher: &self.weigher,
            answers: &self.answers,
            hosts: &hosts,
            rate,
        };
        let mut desired = build::desired(&input);
        let switches = desired.switches.iter().map(|switch| switch.name.clone());
        let leaving: BTreeSet<String> =
            switches.filter(|switch| desired.translates_behind_bridge(switch)).collect();
        let plans = &self.host.plans;
        // Ports say so only once the programs are there, and no longer before they go.
        let before = attach::leaving_ready(&self.datapath, plans, &leaving)?;
        for switch in &before {
            desired.translate_at_egress(switch);
        }
        apply(&mut self.reconciler, &self.datapath, &desired)?;
        self.desired = desired;
        let replace = self.options.replace;
        self.attached = attach::sync(&mut self.datapath, &self.config, plans, &self.held, &leaving, replace)?;
        let ready = attach::leaving_ready(&self.datapath, plans, &leaving)?;
        if ready != before {
            for switch in &ready {
                self.desired.translate_at_egress(switch);
            }
            apply(&mut self.reconciler, &self.datapath, &self.desired)?;
        }
        self.put_flow_settings()?;
        self.tell_helpers();
        self.arm_migrations();
        let watch = self.queue_watch();
        if let Some(queues) = &mut self.queues {
            queues.watch(watch);
        }
        self.put_rings()
    }

    /// Only the states, at once; the tables follow with [`Core::settle`].
    ///
    /// # Errors
    /// A store failed.
    pub fn flip(&mut self) -> Result<()> {
        self.follow_migrations();
        let hosts = self.tunnels().then(|| self.migrations.hosts());
        for service in &mut self.desired.services {
            for target in &mut service.targets {
                let name = target.full_name(&service.name);
                target.state = self.book.state(&name);
                if target.ifindex == 0 {
                    target.state = target.state.without_port(target.moves != Moves::Nowhere);
                }
                if hosts.as_ref().is_some_and(|hosts| hosts.get(&name) != target.host.as_ref()) {
                    // Where its flows go was worked out for another host; the pass that follows mends it.
                    target.state = target.state.until_the_way_is_known();
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
        let _ = self.checks.try_send(self.checks());
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
            let ports: Vec<u32> = match service.vlan {
                Some(_) => ifindexes.clone(),
                None if switch.is_bridge() => {
                    self.host.view.untagged_ports(switch, vlan).map(|port| port.index).collect()
                }
                None => vec![switch.index],
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
                    ports: ports.clone(),
                });
            }
        }
        asks
    }

    /// News from a probe.
    pub fn answered(&mut self, key: &Key, phase: Phase) {
        let before = self.answers.insert(key.clone(), phase);
        match phase {
            Phase::Answering if before != Some(phase) => tracing::info!("{}: answering for it", key.addr),
            Phase::Taken { by } => {
                let by = crate::config::checked::format_mac(&by);
                let now = if before == Some(Phase::Answering) { "too, so lbx does not any more" } else { "" };
                tracing::warn!("{}: {by} answers for it {now}", key.addr);
            }
            _ => {}
        }
        // A failure was logged, and the next pass tries again.
        let _ = self.settle();
    }

    /// What passes with time: renews blackholes, forgets what is no more.
    pub fn tick(&mut self) {
        self.recent.take(self.datapath.maps());
        self.flows_tick();
        self.peers_tick();
        self.migrations_tick();
        if self.book.any_deadline() || self.waits() {
            let _ = self.flip();
        }
        let known: BTreeSet<String> =
            self.desired.targets().map(|(service, target)| target.full_name(&service.name)).collect();
        self.forget(&known);
        self.weigher.retain(&self.config);
        let asked: BTreeSet<Key> = self.asks().into_iter().map(|ask| ask.key).collect();
        self.answers.retain(|key, _| asked.contains(key));
    }
}

/// Writes what is desired into the maps.
fn apply(reconciler: &mut Reconciler, datapath: &Datapath, desired: &Desired) -> Result<()> {
    let outcome = reconciler.apply(&mut datapath.maps(), desired)?;
    for change in &outcome.changes {
        tracing::debug!("{change}");
    }
    Ok(())
}
