//! A config file, made of the few things that tests vary.

use std::fmt::Write;
use std::net::IpAddr;

use super::addr::Pair;
use super::{Lab, Vm};
use crate::guest::announce::mac_text;

/// A whole file with one switch, `br0`, whose uplink is `up0`.
#[derive(Debug, Clone)]
pub struct File {
    /// `switch.xdp`: `auto` takes tc on a veth.
    pub xdp: &'static str,
    /// `limits.flows`, where it is not the default.
    pub flows: Option<u32>,
    /// `timeouts.learn`, where it is not the default.
    pub learn: Option<&'static str>,
    /// Further lines at the top, such as `[weights]` with its keys.
    pub top: String,
    /// The services.
    pub services: Vec<Service>,
}

/// A service.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub vips: Vec<IpAddr>,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Its port.
    pub port: u16,
    /// Its VLAN; untagged without.
    pub vlan: Option<u16>,
    /// `dsr` or `nat`.
    pub forward: &'static str,
    /// `auto`, `redirect` or `bridge`.
    pub deliver: &'static str,
    /// `reject` or `drop`.
    pub no_target: &'static str,
    /// Redirect past filters.
    pub bypass_filters: bool,
    /// Whether targets are probed by TCP, quickly.
    pub health: bool,
    /// Further keys, a line each.
    pub keys: String,
    /// Its targets.
    pub targets: Vec<Target>,
}

/// A target.
#[derive(Debug, Clone)]
pub struct Target {
    /// `nic = ".."` or `mac = ".."`, as the file says it.
    pub place: String,
    /// Its own addresses.
    pub addr: Pair,
    /// nat: its port, where it is not the service's.
    pub port: Option<u16>,
    /// Share of new flows.
    pub weight: u32,
}

impl File {
    /// For stand-ins: with `xdp = "auto"` and a small flow table.
    pub fn new(services: Vec<Service>) -> Self {
        Self { xdp: "auto", flows: Some(65_536), learn: None, top: String::new(), services }
    }

    /// For guests: native XDP on the uplink, and lbx decides about delivery.
    pub fn of_guests(services: Vec<Service>) -> Self {
        let services = services.into_iter().map(|service| Service { deliver: "auto", ..service }).collect();
        Self { xdp: "native", flows: None, learn: None, top: String::new(), services }
    }

    /// With a choice of front-end.
    #[must_use]
    pub fn xdp(self, xdp: &'static str) -> Self {
        Self { xdp, ..self }
    }

    /// As lbx reads it.
    pub fn text(&self) -> String {
        let mut out = String::new();
        if let Some(flows) = self.flows {
            let _ = writeln!(out, "[limits]\nflows = {flows}\n");
        }
        if let Some(learn) = self.learn {
            let _ = writeln!(out, "[timeouts]\nlearn = \"{learn}\"\n");
        }
        let _ = writeln!(out, "{}", self.top);
        let _ = writeln!(out, "[[switch]]\nname = \"br0\"\nuplinks = [\"up0\"]\nxdp = \"{}\"\n", self.xdp);
        self.services.iter().for_each(|service| service.write(&mut out));
        out
    }
}

impl Service {
    /// A `dsr` service, delivered by redirect, lbx answers for it after probing.
    pub fn dsr(name: &str, vip: Pair, protocol: &'static str, port: u16, targets: Vec<Target>) -> Self {
        Self {
            name: name.into(),
            vips: vip.both().to_vec(),
            protocol,
            port,
            vlan: None,
            forward: "dsr",
            deliver: "redirect",
            no_target: "reject",
            bypass_filters: false,
            health: false,
            keys: String::new(),
            targets,
        }
    }

    /// The same by `nat`, to port `to` of every target.
    pub fn nat(
        name: &str,
        vip: Pair,
        protocol: &'static str,
        port: u16,
        to: u16,
        targets: Vec<Target>,
    ) -> Self {
        let targets = targets.into_iter().map(|target| Target { port: Some(to), ..target }).collect();
        Self { forward: "nat", ..Self::dsr(name, vip, protocol, port, targets) }
    }

    fn write(&self, out: &mut String) {
        let vips: Vec<_> = self.vips.iter().map(|vip| format!("\"{vip}\"")).collect();
        let _ = writeln!(
            out,
            "[[service]]\nname = \"{}\"\nswitch = \"br0\"\nvip = [{}]\nprotocol = \"{}\"\nport = {}\n\
             forward = \"{}\"\ndeliver = \"{}\"\nno_target = \"{}\"\nanswer = \"probe\"",
            self.name,
            vips.join(", "),
            self.protocol,
            self.port,
            self.forward,
            self.deliver,
            self.no_target
        );
        if let Some(vlan) = self.vlan {
            let _ = writeln!(out, "vlan = {vlan}");
        }
        if self.bypass_filters {
            out.push_str("bypass_filters = true\n");
        }
        let _ = writeln!(out, "{}", self.keys);
        for target in &self.targets {
            let _ = writeln!(
                out,
                "[[service.target]]\n{}\nweight = {}\naddress = \"{}\"\naddress6 = \"{}\"",
                target.place, target.weight, target.addr.v4, target.addr.v6
            );
            if let Some(port) = target.port {
                let _ = writeln!(out, "port = {port}");
            }
            out.push('\n');
        }
        if self.health {
            let check = "{ interval = \"200ms\", timeout = \"150ms\", rise = 2, fall = 2 }";
            let _ = writeln!(out, "[service.health]\ntcp = {check}\n");
        }
    }
}

impl Target {
    /// A VM of this host, by its port.
    pub fn local(vm: &str, addr: Pair) -> Self {
        Self { place: format!("nic = \"{vm}\""), addr, port: None, weight: 100 }
    }

    /// Stand-in `n` (from 0) of host `h`, seen from that host: its port is `vifN`.
    pub fn stand_in(h: usize, n: usize) -> Self {
        Self::local(&format!("vif{n}"), super::addr::vm(h, n + 1))
    }

    /// A VM by its name, on whatever tap it is.
    pub fn guest(vm: &Vm) -> Self {
        Self { place: format!("vm = \"{}\"", vm.spec.name), addr: vm.addr, port: None, weight: 100 }
    }

    /// A VM of another host, by its MAC.
    pub fn remote(vm: &Vm) -> Self {
        let place = format!("mac = \"{}\"", mac_text(vm.mac));
        Self { place, addr: vm.addr, port: None, weight: 100 }
    }

    /// With a weight.
    #[must_use]
    pub fn weight(self, weight: u32) -> Self {
        Self { weight, ..self }
    }
}

/// The first `n` stand-ins of the first host.
pub fn stand_ins(n: usize) -> Vec<Target> {
    (0..n).map(|n| Target::stand_in(0, n)).collect()
}

/// All VMs of a lab by their names, with weights in their order.
pub fn guests(lab: &Lab, weights: &[u32]) -> Vec<Target> {
    lab.vms.iter().zip(weights).map(|(vm, weight)| Target::guest(vm).weight(*weight)).collect()
}
