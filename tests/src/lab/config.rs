//! Config files for lbx on a lab's host: one switch, `br0` with uplink `up0`, and services on its VMs.

use std::fmt::Write;

use super::addr::Pair;
use super::topology::Lab;

/// A TCP service whose targets are all VMs of the lab.
#[derive(Debug, Clone)]
pub struct Service<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its addresses.
    pub vip: Pair,
    /// Its port.
    pub port: u16,
    /// `nat` to this port of the VMs; otherwise `dsr`.
    pub nat_to: Option<u16>,
    /// Weights of the VMs in their order.
    pub weights: &'a [u32],
}

/// The file: native XDP on the uplink, lbx answers for the VIPs.
pub fn file(lab: &Lab, services: &[Service<'_>]) -> String {
    let mut out = String::from("[[switch]]\nname = \"br0\"\nuplinks = [\"up0\"]\nxdp = \"native\"\n\n");
    for service in services {
        let forward = if service.nat_to.is_some() { "nat" } else { "dsr" };
        let _ = writeln!(
            out,
            "[[service]]\nname = \"{}\"\nswitch = \"br0\"\nvip = [\"{}\", \"{}\"]\nprotocol = \"tcp\"\n\
             port = {}\nforward = \"{forward}\"\nanswer = \"probe\"\n",
            service.name, service.vip.v4, service.vip.v6, service.port
        );
        for (vm, weight) in lab.vms.iter().zip(service.weights) {
            let _ = writeln!(
                out,
                "[[service.target]]\nvm = \"{}\"\nweight = {weight}\naddress = \"{}\"\naddress6 = \"{}\"",
                vm.spec.name, vm.addr.v4, vm.addr.v6
            );
            if let Some(port) = service.nat_to {
                let _ = writeln!(out, "port = {port}");
            }
            out.push('\n');
        }
    }
    out
}
