//! `lbx attach` without a daemon: what `lbx run` does when it starts, once.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use tokio::sync::mpsc;

use super::core::{AttachOptions, Core};
use super::host::Host;
use super::paths::Paths;
use super::run::load_options;
use crate::api::model::AttachRequest;
use crate::config::Config;
use crate::datapath::{self, Datapath};

/// Loads, writes the maps and attaches. Answers why ports failed, by name.
///
/// VIPs are not probed and targets not checked: what an earlier daemon found stays in force.
///
/// # Errors
/// What `lbx run` would not have started for.
pub async fn attach_once(
    paths: Paths,
    mut config: Config,
    request: &AttachRequest,
) -> Result<BTreeMap<String, String>> {
    datapath::check_capabilities()?;
    paths.make_run_dir()?;
    let _lock = paths.lock()?;
    let object = datapath::ebpf_object().ok_or(datapath::Error::NoObject)?;
    let datapath = Datapath::load(&paths.instance, object, &load_options(&config, request.observe))?;
    datapath.maps().set_observe(request.observe)?;
    if !request.switches.is_empty() {
        // Switches that are not asked for keep what they have: nothing, or what was attached before.
        let attached = attached(&paths, &config).await?;
        config.switches.retain(|one| request.switches.contains(&one.name) || attached.contains(&one.name));
    }
    // Nobody probes or checks: what would be asked goes nowhere.
    let (asks, _) = mpsc::channel(1);
    let (checks, _) = mpsc::channel(1);
    // Whoever asks has shown the plan and heard a yes.
    let options = AttachOptions { yes: true, replace: request.replace };
    let mut core = Core::new(paths, config, datapath, options, asks, checks);
    core.adopt().await?;
    core.refresh(true).await?;
    Ok(core.attached.errors)
}

/// Switches of the config with anything attached to one of their ports.
async fn attached(paths: &Paths, config: &Config) -> Result<BTreeSet<String>> {
    let mut host = Host::default();
    host.refresh(config, &paths.instance, false, false).await?;
    let there: BTreeSet<String> =
        datapath::list(&paths.instance)?.into_iter().map(|one| one.device.name).collect();
    let of = host.plans.iter().filter(|plan| plan.ports.iter().any(|port| there.contains(&port.name)));
    Ok(of.map(|plan| plan.switch.clone()).collect())
}
