//! Which VM and which targets somebody speaks of.

use std::collections::BTreeSet;

use lbx_common::migration::Here;

use super::super::core::Core;
use crate::config::Place;
use crate::measure::vm::Vm;
use crate::migration::VmId;
use crate::migration::ledger::About;

impl Core {
    /// What is known of a VM: its process here if it has one, and the targets it is behind.
    pub(in super::super) fn identify(&self, vm: &VmId) -> About {
        let local = self.local_vm(vm);
        let mut targets = BTreeSet::new();
        let mut macs: BTreeSet<_> = vm.macs.iter().copied().collect();
        if let Some(local) = local {
            macs.extend(&local.macs);
        }
        for service in &self.config.services {
            for target in &service.targets {
                let full = format!("{}/{}", service.name, target.name());
                let named = |name: &str| vm.name.as_deref() == Some(name);
                let is = named(&full)
                    || match &target.place {
                        Place::Vm(name) => {
                            named(name)
                                || vm.uuid.as_deref() == Some(name.to_lowercase().as_str())
                                || local.is_some_and(|local| is_called(local, name))
                        }
                        Place::Nic(nic) => named(nic) || local.is_some_and(|local| local.taps.contains(nic)),
                        Place::Mac(mac) => macs.contains(mac) || named(&target.name()),
                    };
                if is {
                    targets.insert(full);
                }
            }
        }
        for found in self.host.found.iter().filter(|found| targets.contains(&found.full_name())) {
            macs.extend(found.base.mac);
        }
        let vm = VmId {
            name: local.map(|local| local.name.clone()).or_else(|| vm.name.clone()),
            uuid: local.and_then(|local| local.uuid.clone()).or_else(|| vm.uuid.clone()),
            macs: macs.into_iter().collect(),
        };
        // A VM that comes from elsewhere and one that is on its way there are told apart by nobody's process.
        let key = self.known_key(&vm).unwrap_or_else(|| vm.to_string());
        let here = match local {
            Some(local) => self.does_here(local),
            None if self.is_port_here(&targets) => Here::Present,
            None => Here::Absent,
        };
        About { key, vm, targets: targets.into_iter().collect(), here }
    }

    /// The process of a VM on this host.
    pub(super) fn local_vm(&self, vm: &VmId) -> Option<&Vm> {
        let by_name = |one: &&Vm| vm.name.as_ref().is_some_and(|name| is_called(one, name));
        let by_uuid = |one: &&Vm| vm.uuid.is_some() && one.uuid == vm.uuid;
        let by_tap = |one: &&Vm| vm.name.as_ref().is_some_and(|name| one.taps.contains(name));
        let by_mac = |one: &&Vm| one.macs.iter().any(|mac| vm.macs.contains(mac));
        let vms = || self.host.vms.iter();
        let found = vms().find(by_uuid).or_else(|| vms().find(by_name)).or_else(|| vms().find(by_tap));
        found.or_else(|| vms().find(by_mac)).or_else(|| {
            // A target's name leads to whoever is behind it.
            let name = vm.name.as_ref()?;
            let behind = self.host.found.iter().find(|found| !found.remote && found.full_name() == *name)?;
            crate::measure::vm::behind(&self.host.vms, &behind.port)
        })
    }

    /// The key of the migration of this VM that is known already, under whatever name it began.
    fn known_key(&self, vm: &VmId) -> Option<String> {
        let open = &self.migrations.ledger.open;
        let same = |known: &VmId| {
            (known.name.is_some() && known.name == vm.name)
                || (known.uuid.is_some() && known.uuid == vm.uuid)
                || known.macs.iter().any(|mac| vm.macs.contains(mac))
        };
        open.iter().find(|(_, record)| same(&record.vm)).map(|(key, _)| key.clone())
    }

    /// What a VM of this host is doing: its monitor's word, or what its command line says.
    fn does_here(&self, vm: &Vm) -> Here {
        match self.migrations.said.get(vm.pid, vm.start_time) {
            Some(here) => here,
            None if vm.incoming && !self.migrations.said.has_run(vm.pid, vm.start_time) => Here::Incoming,
            None => Here::Present,
        }
    }

    /// Whether one of the targets is behind a port of this host, whoever is there.
    fn is_port_here(&self, targets: &BTreeSet<String>) -> bool {
        let here = |name: &String| {
            let found = self.host.found.iter().find(|found| found.full_name() == *name);
            found.is_some_and(|found| found.ifindex != 0 && !found.remote && found.base.error.is_none())
        };
        targets.iter().any(here)
    }
}

fn is_called(vm: &Vm, name: &str) -> bool {
    vm.name == name || vm.uuid.as_deref() == Some(name.to_lowercase().as_str())
}
