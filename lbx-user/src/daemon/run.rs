//! The daemon from start to stop.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use lbx_common::limits::SLOTS_PER_FLOW;
use lbx_common::service::address_flags;
use lbx_common::target::State;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::core::{AttachOptions, Core};
use super::handle::Handle;
use super::host::Host;
use super::look::Look;
use super::{notify, paths::Paths};
use crate::answer::{self, Key, machine::Phase};
use crate::api;
use crate::config::Config;
use crate::control::build;
use crate::datapath::{self, Datapath};
use crate::host::Watcher;
use crate::measure::{health, prompt};
use crate::migration::Told;

/// Changes of the host come in bursts: a look at it waits this long for the burst to end.
const SETTLE: Duration = Duration::from_millis(80);
/// The host is looked at without an event after this long: a guest that got another MAC tells nobody.
const LOOK: Duration = Duration::from_secs(10);
/// The same while a target's MAC is waited for.
const SOON: Duration = Duration::from_secs(1);
/// The same while packets are dropped until the way to a VM's new host is known.
const AT_ONCE: Duration = Duration::from_millis(100);
/// Expired flows are freed this often, so that none is around when its epoch has wrapped.
const SWEEP: Duration = Duration::from_mins(30);

/// How to start.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Attach also where the operator could be locked out.
    pub yes: bool,
    /// Compute and count every verdict, change no packet.
    pub observe: bool,
    /// Take the place of foreign XDP programs.
    pub replace: bool,
}

/// What loading needs to know of a config.
pub fn load_options(config: &Config, observe: bool) -> datapath::Options {
    datapath::Options {
        // Of slots, where the file speaks of flows.
        flows: config.limits.flows.saturating_mul(SLOTS_PER_FLOW),
        table_pool: table_pool(config),
        idle: build::idle_times(config),
        learn: config.timeouts.learn,
        observe,
        ..datapath::Options::default()
    }
}

/// Room for all tables, and for one to be made anew beside them.
fn table_pool(config: &Config) -> u32 {
    let sizes = || config.services.iter().map(|service| u64::from(service.table_size));
    let needed = sizes().sum::<u64>() + sizes().max().unwrap_or(0);
    u32::try_from(needed).unwrap_or(u32::MAX).max(lbx_common::limits::TABLE_POOL)
}

/// Reads a config, or says everything that is wrong with it.
///
/// # Errors
/// Its problems, one a line.
pub fn load_config(path: &std::path::Path) -> Result<Config> {
    let config =
        Config::load(path).map_err(|problems| anyhow::anyhow!("the config has problems:\n{problems}"))?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    Ok(config)
}

/// Runs until SIGTERM or SIGINT. The datapath goes on working afterwards.
///
/// # Errors
/// What kept it from starting; once it runs, failures are logged and tried again.
pub async fn run(paths: Paths, options: Options) -> Result<()> {
    datapath::check_capabilities()?;
    let config = load_config(&paths.config)?;
    paths.make_run_dir()?;
    let _lock = paths.lock()?;
    let object = datapath::ebpf_object().ok_or(datapath::Error::NoObject)?;
    let mut watcher = Watcher::new().context("cannot follow the host's links")?;
    let datapath = Datapath::load(&paths.instance, object, &load_options(&config, options.observe))?;
    for note in datapath.notes() {
        tracing::info!("{note}");
    }
    if options.observe {
        datapath.maps().set_observe(true)?;
    } else if datapath.maps().control()?.flags & lbx_common::control::flags::OBSERVE != 0 {
        // A restart is no reason to begin to steer: whoever had it observe says when that ends.
        tracing::warn!(
            "lbx goes on observing: packets pass until `lbx attach` (without --observe) says otherwise"
        );
    }

    let (asks, asked) = mpsc::channel(8);
    let (answers, mut answered) = mpsc::channel(64);
    let (checks, to_check) = mpsc::channel(8);
    let (results, mut checked) = mpsc::channel(64);
    tokio::spawn(answer::run(asked, answers));
    tokio::spawn(health::run(to_check, results));

    let options = AttachOptions { yes: options.yes, replace: options.replace };
    let mut core = Core::new(paths, config, datapath, options, asks, checks);
    core.health.checking = true;
    core.load_migrations();
    core.start_load()?;
    core.follow_libvirt();
    core.adopt().await?;
    core.peers.go_on(&core.paths.run_dir);
    if let Err(error) = core.refresh(true).await {
        // With nothing attached yet the operator should see it fail; otherwise the old state is better than none.
        if core.attached.ports.is_empty() {
            return Err(error);
        }
        tracing::error!("{error:#}");
    }
    core.start_peers();
    for (switch, why) in &core.held {
        tracing::warn!(
            "{switch} is not attached: {why}; `lbx attach {switch} --yes`, then `lbx attach --confirm`"
        );
    }
    for plan in core.host.plans.iter().filter(|plan| !plan.refusals.is_empty()) {
        tracing::error!("{} is not attached: {}", plan.switch, plan.refusals.join("; "));
    }

    let (handle, mut works) = Handle::new();
    let socket = core.paths.socket(Some(&core.config));
    let server = api::serve(handle.clone(), &socket, core.config.daemon.metrics_listen).await?;
    tracing::info!(
        "{} services with {} targets, {} ports attached; API on {}",
        core.desired.services.len(),
        core.desired.targets().count(),
        core.attached.ports.len(),
        socket.display()
    );
    notify::ready();

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look_at = tokio::time::Instant::now() + LOOK;
    let mut sweep_at = tokio::time::Instant::now() + SWEEP;
    let alarm = core.board.alarm();
    let mut weigh_at = tokio::time::Instant::now();
    let mut rings = core.ring_changes();
    let mut watching = true;
    let mut told = core.migrations.take().context("events of migrations are heard once")?;
    let mut peer_news = core.peers.take().context("peers are heard once")?;
    let mut looking: Option<Look> = None;
    prompt::try_prompt("the daemon's loop");
    loop {
        let due = core.migrations_due();
        if core.waits() {
            let again = if core.host.is_waiting() { AT_ONCE } else { SOON };
            look_at = look_at.min(tokio::time::Instant::now() + again);
        }
        tokio::select! {
            Some(work) = works.recv() => work(&mut core).await,
            event = watcher.next(), if watching => {
                if let Some(event) = event {
                    tracing::trace!("{event:?}");
                    look_at = look_at.min(tokio::time::Instant::now() + SETTLE);
                } else {
                    tracing::error!("the kernel closed the channel of link changes; looking every 10 s instead");
                    watching = false;
                }
            }
            () = sleep_until(look_at), if looking.is_none() => {
                let again = if core.host.is_waiting() { SOON } else { LOOK };
                look_at = tokio::time::Instant::now() + again;
                looking = Some(core.look());
            }
            Some(seen) = seen(&mut looking) => {
                match looking.take().map(|look| core.looked(&look, seen)) {
                    Some(Ok(false)) => look_at = look_at.min(tokio::time::Instant::now() + SETTLE),
                    Some(Err(error)) => tracing::debug!("looking at the host: {error:#}"),
                    _ => {}
                }
            }
            () = sleep_until(sweep_at) => {
                sweep_at = tokio::time::Instant::now() + SWEEP;
                match core.datapath.maps().free_expired() {
                    Ok(freed) => tracing::debug!("{freed} expired flows freed"),
                    Err(error) => tracing::warn!("{error}"),
                }
            }
            () = alarm.notified(), if core.weigh_every().is_some() => core.weigh_queues(),
            () = sleep_until(weigh_at), if core.weigh_every().is_some() => {
                core.weigh();
                weigh_at = tokio::time::Instant::now() + core.weigh_every().unwrap_or(LOOK);
            }
            Ok(()) = rings.changed() => core.rings_changed(),
            Some(news) = peer_news.recv() => {
                core.peer_news(&news);
                // What that says of migrations waits for nothing else.
                hear(&mut core, &mut told);
            }
            Some(news) = answered.recv() => core.answered(&news.key, news.phase),
            Some(first) = told.recv() => {
                core.migration(first);
                hear(&mut core, &mut told);
            }
            Some((target, news)) = checked.recv() => core.checked(&target, news),
            () = sleep_until(due.unwrap_or(look_at)), if due.is_some() => core.migrations_tick(),
            _ = second.tick() => core.tick(),
            _ = hangup.recv() => if let Err(error) = core.reload().await {
                tracing::error!("{error:#}");
                notify::status("the last reload was refused, see the log");
            },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    notify::stopping();
    tracing::info!("stopping; the datapath goes on with what it has (`lbx detach` removes it)");
    server.stop();
    Ok(())
}

/// What a look saw, when it is done; `None` without one.
async fn seen(look: &mut Option<Look>) -> Option<Result<Host>> {
    match look {
        Some(look) => Some(look.seen().await),
        None => None,
    }
}

/// Hears all that was said of migrations and is not heard yet; tables and files follow once.
fn hear(core: &mut Core, told: &mut UnboundedReceiver<Told>) {
    while let Ok(next) = told.try_recv() {
        core.migration(next);
    }
    core.settle_migrations();
}

impl Core {
    /// Takes over what an earlier daemon left in the maps: for whom this host answers, and which targets were
    /// found unhealthy. Neither is to flip for a moment just because the daemon restarts.
    ///
    /// # Errors
    /// Host or maps could not be read.
    pub async fn adopt(&mut self) -> Result<()> {
        let view = crate::host::view().await.context("cannot read the host's links")?;
        self.adopt_weights()?;
        let maps = self.datapath.maps();
        for service in &self.config.services {
            let vlan = build::rule_vlan(&view, service);
            for addr in &service.vips {
                let entry = maps.address((*addr).into())?;
                if entry.is_some_and(|entry| entry.flags & address_flags::ANSWER != 0) {
                    let key = Key { switch: service.switch.clone(), vlan, addr: *addr };
                    self.answers.insert(key, Phase::Answering);
                }
            }
        }
        let names = crate::control::Names::adopt(&maps)?;
        for (name, index) in &names.targets {
            let known = maps.target(u32::from(*index))?;
            if known.ifindex != 0 && known.mac != [0; 6] {
                self.host.macs.insert(name.clone(), (known.ifindex, known.mac));
            }
        }
        for service in &self.config.services {
            for target in &service.targets {
                let name = format!("{}/{}", service.name, target.name());
                let Some(index) = names.targets.get(&crate::control::map_name(&name)) else { continue };
                let known = maps.target(u32::from(*index))?;
                if known.flags & lbx_common::target::flags::IN_USE == 0 {
                    continue;
                }
                if known.state.stored() == State::Down && !service.health.checks.is_empty() {
                    self.book.set_state(&name, lbx_common::wish::Owner::Health, Some(State::Down));
                }
                // Whoever is in the maps was used before, or waits already.
                self.health.seen.insert(name);
            }
        }
        if self.config.switches.is_empty() {
            bail!("the config has no switch to attach to");
        }
        Ok(())
    }
}

/// `lbx run` as a process: log, runtime, daemon.
///
/// # Errors
/// As for [`run`].
pub fn main(paths: Paths, options: Options) -> Result<()> {
    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::prelude::*;
    // `debug`, or `warn,lbx_user::control=trace`.
    let wanted = std::env::var("LBX_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let filter = wanted.unwrap_or_else(|| Targets::new().with_default(tracing::Level::INFO));
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(ansi);
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(run(paths, options))
}
