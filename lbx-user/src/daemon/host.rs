//! The host as the daemon last saw it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::config::{Config, Service};
use crate::control::resolve::{Found, KnownMacs, resolve};
use crate::control::tunnel;
use crate::datapath::{self, Instance, Point};
use crate::host::filters::{self, Asked, Finding, Sender};
use crate::host::offload::{self, Offloads};
use crate::host::plan::{
    Attach, GuardInput, Plan, Refusal, ResolvedTarget, attach_plan, guard_rails, senders,
};
use crate::host::{View, vm};
use crate::measure::vm::{Vm, list};
use crate::peers::here;
use crate::peers::message::VmHere;

/// Filter rules change without an event: they are read again after this long.
const FILTERS_AGE: Duration = Duration::from_secs(30);

/// Who does not answer for so long is looked for less often.
const ANSWERS: Duration = Duration::from_secs(30);

/// What was read, and what follows from it for a config.
#[derive(Debug, Default)]
pub struct Host {
    /// Links, addresses, routes, neighbours.
    pub view: View,
    /// Targets as found.
    pub found: Vec<Found>,
    /// Filters on the targets' ports.
    pub findings: Vec<Finding>,
    /// What goes where, by switch.
    pub plans: Vec<Plan>,
    /// What the guard-rails refuse.
    pub refusals: Vec<Refusal>,
    /// MACs that were known once.
    pub macs: KnownMacs,
    /// Every VM with a tap here, targets or not.
    pub vms: Vec<Vm>,
    /// The same for peers, with what else targets are behind local ports.
    pub here: Vec<VmHere>,
    /// Since when somebody on the way to a peer does not answer.
    silent: Option<Instant>,
    /// How often it was looked at.
    pub(super) looks: u64,
    filters: Vec<Finding>,
    filters_read: Option<(Instant, Vec<Asked>)>,
}

impl Host {
    /// What a look beside this one begins with.
    pub(super) fn begin(&self) -> Self {
        Self {
            macs: self.macs.clone(),
            looks: self.looks,
            silent: self.silent,
            filters: self.filters.clone(),
            filters_read: self.filters_read.clone(),
            ..Self::default()
        }
    }

    /// Looks at everything anew. Filters are only read again if the ports changed, after a while, or `afresh`.
    ///
    /// # Errors
    /// The host could not be read; what was seen before stays.
    pub async fn refresh(
        &mut self,
        config: &Config,
        instance: &Instance,
        replace: bool,
        afresh: bool,
    ) -> Result<()> {
        let view = crate::host::view().await.context("cannot read the host's links")?;
        let hops = tunnel::hops(config, &view);
        let silent = hops.iter().any(|(_, mac)| mac.is_none());
        self.silent = silent.then(|| self.silent.unwrap_or_else(Instant::now));
        let asked_for: Vec<_> = hops.iter().map(|(next, _)| (next.index, next.address)).collect();
        if let Err(error) = crate::host::ask(&asked_for).await {
            tracing::debug!("asking for the way to peers: {error}");
        }
        let processes = vm::scan().context("cannot read the host's processes")?;
        self.vms = list(config, &processes);
        let found = resolve(config, &view, &processes, &self.macs);
        self.here = here::list(&processes, &view, &found, &config.daemon.vm_users);
        let known = found.iter().filter_map(|one| Some((one.full_name(), (one.base.link?, one.base.mac?))));
        self.macs.extend(known);
        let own = own_programs(instance);
        let offloads = offloads(config, &view);
        self.plans = config
            .switches
            .iter()
            .map(|switch| {
                let services: Vec<&Service> = config.services_on(&switch.name).collect();
                attach_plan(&view, &offloads, switch, &services, &own, replace)
            })
            .collect();
        let ports = asked(config, &found);
        let stale =
            self.filters_read.as_ref().is_none_or(|(at, of)| at.elapsed() > FILTERS_AGE || *of != ports);
        if stale || afresh {
            let uplinks = self.uplinks();
            match filters::findings(&view, &ports, &uplinks).await {
                Ok(filters) => self.filters = filters,
                // Without the tool there is nothing to read; the rules that were seen before still count.
                Err(error) => tracing::warn!("cannot read the host's filters: {error}"),
            }
            self.filters_read = Some((Instant::now(), ports));
        }
        self.findings.clone_from(&self.filters);
        self.findings.extend(self.lost(&view, &found));
        let targets: Vec<ResolvedTarget> = found.iter().map(|one| one.base.clone()).collect();
        self.refusals =
            guard_rails(&GuardInput { config, view: &view, targets: &targets, findings: &self.findings });
        (self.view, self.found) = (view, found);
        self.looks += 1;
        Ok(())
    }

    /// The targets' ports that XDP cannot redirect into, where it is XDP that would: tc can always.
    fn lost(&self, view: &View, found: &[Found]) -> Vec<Finding> {
        let xdp = |plan: &Plan| plan.ports.iter().any(|port| port.attach == Attach::Native);
        let by_xdp: Vec<u32> = self.plans.iter().filter(|plan| xdp(plan)).map(|plan| plan.index).collect();
        let ports: BTreeSet<u32> =
            found.iter().filter(|one| one.ifindex != 0 && !one.remote).map(|one| one.ifindex).collect();
        let links = ports.into_iter().filter_map(|index| view.by_index(index));
        links
            .filter(|link| link.master.is_some_and(|master| by_xdp.contains(&master)))
            .filter_map(|link| match datapath::takes_redirects(link.index) {
                Ok(takes) => filters::redirect_finding(link, takes),
                Err(error) => {
                    tracing::debug!("{}: {error}", link.name);
                    None
                }
            })
            .collect()
    }

    /// Whether a target's port is there and its MAC is not known yet, or that of the way to a peer: nobody tells when
    /// it is.
    pub fn is_waiting(&self) -> bool {
        self.silent.is_some_and(|since| since.elapsed() < ANSWERS)
            || self.found.iter().any(|one| one.ifindex != 0 && one.base.mac.is_none())
    }

    /// Names of the uplinks of all switches.
    pub fn uplinks(&self) -> Vec<String> {
        let ports = self.plans.iter().flat_map(|plan| &plan.ports);
        ports
            .filter(|port| port.role == crate::host::plan::Role::Uplink)
            .map(|port| port.name.clone())
            .collect()
    }
}

/// Ids of lbx's own XDP programs.
pub fn own_programs(instance: &Instance) -> Vec<u32> {
    let attached = datapath::list(instance).unwrap_or_default();
    attached.iter().filter(|one| one.point == Point::Xdp).map(|one| one.prog_id).collect()
}

/// The targets' ports, each with what `dsr` targets behind it answer with.
fn asked(config: &Config, found: &[Found]) -> Vec<Asked> {
    let mut ports: BTreeMap<&str, BTreeSet<Sender>> = BTreeMap::new();
    for one in found.iter().filter(|one| one.ifindex != 0) {
        let port = ports.entry(&one.port).or_default();
        // What is behind an uplink answers elsewhere.
        if !one.remote {
            port.extend(config.service(&one.base.service).map(senders).unwrap_or_default());
        }
    }
    let asked = ports
        .into_iter()
        .map(|(port, senders)| Asked { port: port.to_owned(), senders: senders.into_iter().collect() });
    asked.collect()
}

fn offloads(config: &Config, view: &View) -> BTreeMap<String, Offloads> {
    let mut all = BTreeMap::new();
    for switch in &config.switches {
        let Some(link) = view.link(&switch.name) else { continue };
        let ports: Vec<_> = view.ports(link.index).collect();
        let members = ports.iter().flat_map(|port| view.ports(port.index));
        for device in std::iter::once(link).chain(ports.iter().copied()).chain(members) {
            match offload::offloads(&device.name) {
                Ok(offloads) => drop(all.insert(device.name.clone(), offloads)),
                Err(error) => tracing::debug!("offloads of {}: {error}", device.name),
            }
        }
    }
    all
}
