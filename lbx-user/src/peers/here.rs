//! The VMs of this host, as peers are told of them.

use std::collections::BTreeSet;

use super::message::VmHere;
use crate::config::checked::format_mac;
use crate::control::resolve::Found;
use crate::host::View;
use crate::host::vm::Process;

/// Every VM with a tap here that a configured user runs, and whatever else targets are behind local ports.
pub fn list(processes: &[Process], view: &View, found: &[Found], vm_users: &[String]) -> Vec<VmHere> {
    let mut all = BTreeSet::new();
    let mut taps = BTreeSet::new();
    for process in processes.iter().filter(|one| !one.taps.is_empty() && one.allowed(vm_users)) {
        let identity = &process.identity;
        let known = [&identity.name, &identity.id, &identity.uuid];
        let Some(name) = known.into_iter().flatten().next() else { continue };
        let macs: BTreeSet<String> = process
            .taps
            .iter()
            .filter_map(|tap| {
                let link = view.link(&tap.name)?;
                let learnt = || view.learnt_mac(link.index);
                identity.mac_of(tap).or_else(learnt).map(|mac| format_mac(&mac))
            })
            .collect();
        taps.extend(process.taps.iter().map(|tap| tap.name.as_str()));
        let macs = macs.into_iter().collect();
        all.insert(VmHere {
            name: name.clone(),
            uuid: identity.uuid.clone(),
            macs,
            runs: None,
            holds: false,
        });
    }
    for one in found.iter().filter(|one| !one.remote && one.ifindex != 0) {
        let Some(mac) = one.base.mac.filter(|_| !taps.contains(one.port.as_str())) else { continue };
        all.insert(VmHere {
            name: one.port.clone(),
            uuid: None,
            macs: vec![format_mac(&mac)],
            runs: None,
            holds: false,
        });
    }
    all.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::{link, process, tap};

    #[test]
    fn vms_have_names_uuids_and_macs() {
        let qemu =
            ["qemu", "-name", "guest=web-1", "-uuid", "0A", "-netdev", "tap,id=n,ifname=tap1", "-device"];
        let qemu = [qemu.as_slice(), &["virtio-net-pci,netdev=n,mac=52:54:00:00:00:05"]].concat();
        let all = [
            process(7, 0, &qemu, &[("tap1", 3)]),
            process(7, 1_000, &["qemu", "-name", "stranger"], &[("tap2", 3)]),
        ];
        let links = [(5, "tap1"), (6, "tap2")].map(|(index, name)| link(index, name, tap(), Some(1)));
        let view = View { links: links.to_vec(), ..View::default() };
        let here = list(&all, &view, &[], &[]);
        let expected = VmHere {
            name: "web-1".into(),
            uuid: Some("0a".into()),
            macs: vec!["52:54:00:00:00:05".into()],
            runs: None,
            holds: false,
        };
        assert_eq!(here, [expected]);
    }
}
