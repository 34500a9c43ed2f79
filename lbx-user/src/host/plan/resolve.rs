//! The targets of a config, found on the host.

use super::guard::ResolvedTarget;
use crate::config::{Config, Place, Service, Target};
use crate::host::links::{Kind, View};
use crate::host::vm::{self, Process};

/// Every target in the order of the config, with what became of it. A VM with several vNICs is met on the one
/// that is on the service's switch; two there are an error.
pub fn resolve(config: &Config, view: &View, processes: &[Process]) -> Vec<ResolvedTarget> {
    let each = config.services.iter().flat_map(|service| service.targets.iter().map(move |t| (service, t)));
    each.map(|(service, target)| one(config, service, target, view, processes)).collect()
}

fn one(
    config: &Config,
    service: &Service,
    target: &Target,
    view: &View,
    processes: &[Process],
) -> ResolvedTarget {
    let mut resolved = ResolvedTarget {
        service: service.name.clone(),
        target: target.name(),
        link: None,
        mac: None,
        queues: 1,
        error: None,
    };
    match &target.place {
        Place::Mac(mac) => resolved.mac = Some(*mac),
        Place::Nic(name) => match view.link(name) {
            Some(link) => {
                resolved.link = Some(link.index);
                let owners =
                    processes.iter().flat_map(|process| process.taps.iter().map(move |tap| (process, tap)));
                let given =
                    owners.filter(|(_, tap)| tap.name == *name).find_map(|(p, tap)| p.identity.mac_of(tap));
                resolved.mac = given.or_else(|| view.learnt_mac(link.index));
                if let Kind::Tap { queues } = link.kind {
                    resolved.queues = queues.max(1);
                }
            }
            None => resolved.error = Some(format!("there is no interface \"{name}\"")),
        },
        Place::Vm(name) => match vm::find(processes, view, &config.daemon.vm_users, name) {
            Err(error) => resolved.error = Some(error.to_string()),
            Ok(vm) => {
                let switch = view.link(&service.switch).map(|link| link.index);
                let here: Vec<_> = vm.taps.iter().filter(|tap| tap.master == switch).collect();
                // One elsewhere is kept where there is none here, so that the refusal can say where it is.
                let candidates = if here.is_empty() { vm.taps.iter().take(1).collect() } else { here };
                match &candidates[..] {
                    [tap] => {
                        resolved.link = Some(tap.index);
                        resolved.mac = tap.mac;
                        resolved.queues = tap.queues.max(1);
                    }
                    [] => resolved.error = Some(format!("process {} has no vNIC here any more", vm.pid)),
                    several => {
                        let names: Vec<_> = several.iter().map(|tap| tap.nic.as_str()).collect();
                        let names = names.join(" and ");
                        resolved.error = Some(format!(
                            "it has several vNICs on {}: {names}; name one with `nic`",
                            service.switch
                        ));
                    }
                }
            }
        },
    }
    resolved
}
