//! Which program goes onto which port of a switch, and why.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::config::{Forward, Service, Switch, XdpChoice};
use crate::host::links::{Kind, Link, View};
use crate::host::offload::Offloads;

/// Above this MTU a frame no longer fits a page with XDP's headroom (256 bytes) and the kernel's trailer (320),
/// so drivers refuse native XDP or hand out frames in pieces, which cannot be redirected into a tap.
pub const XDP_MTU: u32 = 4096 - 256 - 320 - 22;

/// Drivers with native XDP, by the name they report (ndo_bpf with XDP_SETUP_PROG in drivers/net). A driver that is
/// missing here gets tc, which is right everywhere; the operator can still ask for `xdp = "native"`.
const NATIVE_DRIVERS: [&str; 31] = [
    "veth",
    "tun",
    "virtio_net",
    "i40e",
    "ice",
    "ixgbe",
    "ixgbevf",
    "igb",
    "igc",
    "mlx4_en",
    "mlx5_core",
    "bnxt_en",
    "nfp",
    "qede",
    "ena",
    "gve",
    "mana",
    "hv_netvsc",
    "st_gmac",
    "mvneta",
    "mvpp2",
    "fsl_dpaa2_eth",
    "fsl_enetc",
    "fec",
    "sfc",
    "tsnep",
    "vmxnet3",
    "vif",
    "rvu-nicpf",
    "atlantic",
    "netdevsim",
];

/// What goes onto a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Attach {
    /// XDP in the driver.
    Native,
    /// XDP after the driver, on an skb.
    Generic,
    /// A tc program.
    Tc,
    /// Nothing.
    None,
}

/// What a port is to lbx.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Leads out; clients are behind it.
    Uplink,
    /// A VM (or container) is behind it.
    Vnic,
    /// The bridge itself: traffic of the host.
    Switch,
}

/// What the switch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SwitchKind {
    /// A Linux bridge.
    Bridge,
    /// A single interface.
    Nic,
}

/// One port of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PortPlan {
    /// ifindex.
    pub index: u32,
    /// Name.
    pub name: String,
    /// What it is to lbx.
    pub role: Role,
    /// What goes onto it.
    pub attach: Attach,
    /// Why that.
    pub reason: String,
    /// The XDP program of somebody else that is taken off first (`--replace`).
    pub replaces: Option<u32>,
}

/// What `lbx attach` will do to a switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The switch's name.
    pub switch: String,
    /// Its index; 0 when there is no such interface.
    pub index: u32,
    /// What it is.
    pub kind: SwitchKind,
    /// Its ports, uplinks first.
    pub ports: Vec<PortPlan>,
    /// Why it cannot be attached as configured; empty when it can.
    pub refusals: Vec<String>,
}

/// Decide for one switch. `own_programs`: the ids of lbx's own XDP programs; `replace`: take over from others.
/// `offloads` by interface name; a port that is missing there is treated as unknown.
pub fn attach_plan(
    view: &View,
    offloads: &BTreeMap<String, Offloads>,
    switch: &Switch,
    services: &[&Service],
    own_programs: &[u32],
    replace: bool,
) -> Plan {
    let mut plan = Plan {
        switch: switch.name.clone(),
        index: 0,
        kind: SwitchKind::Nic,
        ports: Vec::new(),
        refusals: Vec::new(),
    };
    let Some(link) = view.link(&switch.name) else {
        plan.refusals.push(format!("there is no interface \"{}\"", switch.name));
        return plan;
    };
    plan.index = link.index;
    if let Some(reason) = unsupported(view, link) {
        plan.refusals.push(reason);
        return plan;
    }
    let context = Context {
        view,
        offloads,
        switch,
        own_programs,
        replace,
        nat: services
            .iter()
            .find(|service| service.forward == Forward::Nat)
            .map(|service| service.name.as_str()),
        vlan: services.iter().find(|service| service.vlan.is_some()).map(|service| service.name.as_str()),
    };
    if link.is_bridge() {
        plan.kind = SwitchKind::Bridge;
        context.bridge(link, &mut plan);
    } else {
        if let Some(master) = link.master.and_then(|master| view.by_index(master)) {
            plan.refusals.push(format!(
                "{} is a port of {}; attach to that one, or its other ports are not seen",
                link.name, master.name
            ));
            return plan;
        }
        context.uplink(link, &mut plan);
    }
    plan
}

/// Why an interface cannot be a switch or a port of one, by the name of what it is.
pub(super) fn unsupported(view: &View, link: &Link) -> Option<String> {
    let name = &link.name;
    let master = link.master.and_then(|master| view.by_index(master));
    if link.kind == Kind::OpenVSwitch || master.is_some_and(|master| master.kind == Kind::OpenVSwitch) {
        return Some(format!(
            "{name} belongs to Open vSwitch, whose flow table lbx would bypass; only Linux bridges in this version"
        ));
    }
    match &link.kind {
        Kind::Macvtap => Some(format!(
            "{name} is a macvtap: its frames do not pass a bridge; only taps on a Linux bridge in this version"
        )),
        Kind::Macvlan => Some(format!("{name} is a macvlan, which is not supported in this version")),
        Kind::Tun => Some(format!("{name} is a tun, which carries no Ethernet frames")),
        Kind::Loopback => Some(format!("{name} is the loopback interface")),
        _ => None,
    }
}

struct Context<'a> {
    view: &'a View,
    offloads: &'a BTreeMap<String, Offloads>,
    switch: &'a Switch,
    own_programs: &'a [u32],
    replace: bool,
    /// A nat service on the switch.
    nat: Option<&'a str>,
    /// A service with a VLAN on the switch.
    vlan: Option<&'a str>,
}

impl Context<'_> {
    fn bridge(&self, bridge: &Link, plan: &mut Plan) {
        let ports: Vec<&Link> = self.view.ports(bridge.index).collect();
        let named = self.switch.uplinks.as_deref();
        for name in named.unwrap_or_default() {
            if !ports.iter().any(|port| port.name == *name) {
                plan.refusals.push(format!("the uplink {name} is not a port of {}", bridge.name));
            }
        }
        let is_uplink = |port: &Link| match named {
            Some(names) => names.contains(&port.name),
            // A veth may lead to a container as well as out, so it is an uplink only by name.
            None => matches!(port.kind, Kind::Physical | Kind::Bond | Kind::Vlan { .. }),
        };
        let (uplinks, others): (Vec<&Link>, Vec<&Link>) = ports.iter().partition(|port| is_uplink(port));
        for port in &uplinks {
            self.uplink(port, plan);
        }
        if uplinks.is_empty() && plan.refusals.is_empty() {
            plan.refusals.push(format!(
                "no uplink found among the ports of {}; name them with `uplinks = [..]`",
                bridge.name
            ));
        }
        for port in others {
            if let Some(reason) = unsupported(self.view, port) {
                plan.ports.push(entry(port, Role::Vnic, Attach::None, reason));
                continue;
            }
            let reason = "traffic that starts on it, and replies of nat";
            plan.ports.push(entry(port, Role::Vnic, Attach::Tc, reason.to_owned()));
        }
        plan.ports.push(entry(
            bridge,
            Role::Switch,
            Attach::Tc,
            "traffic that starts on this host".to_owned(),
        ));
    }

    fn uplink(&self, link: &Link, plan: &mut Plan) {
        if let Some(reason) = unsupported(self.view, link) {
            plan.refusals.push(reason);
            return;
        }
        let (attach, reason) = match self.switch.xdp {
            XdpChoice::Off => (Attach::Tc, "`xdp = \"off\"`".to_owned()),
            XdpChoice::Native => match self.impossible(link).or_else(|| self.blind_to_tags(link)) {
                Some(reason) => {
                    plan.refusals.push(format!("`xdp = \"native\"` on {}: {reason}", link.name));
                    return;
                }
                None => (Attach::Native, "`xdp = \"native\"`".to_owned()),
            },
            XdpChoice::Generic => match self.nat {
                Some(service) => {
                    plan.refusals.push(format!(
                        "`xdp = \"generic\"` on {}: service \"{service}\" is nat, and generic XDP cannot see \
                         checksums that are filled in later; use \"auto\"",
                        link.name
                    ));
                    return;
                }
                None => (Attach::Generic, "`xdp = \"generic\"`".to_owned()),
            },
            XdpChoice::Auto => match self.impossible(link).or_else(|| self.unwise(link)) {
                Some(reason) => (Attach::Tc, reason),
                None => (Attach::Native, format!("driver {} has native XDP", self.driver(link))),
            },
        };
        if attach == Attach::Tc && link.kind == Kind::Bond {
            self.members(link, &reason, plan);
            return;
        }
        let mut port = entry(link, Role::Uplink, attach, reason);
        // Also where lbx only brings a tc program: the other one sees every frame first.
        if let Some(id) = link.xdp.filter(|id| !self.own_programs.contains(id)) {
            if !self.replace {
                plan.refusals.push(format!(
                    "{} already has the XDP program with id {id} (see `bpftool prog show id {id}`); \
                     take it off, or take over with --replace",
                    link.name
                ));
                return;
            }
            port.replaces = Some(id);
        }
        plan.ports.push(port);
    }

    fn members(&self, bond: &Link, reason: &str, plan: &mut Plan) {
        for member in self.view.ports(bond.index) {
            let reason = format!("member of {}: {reason}", bond.name);
            plan.ports.push(entry(member, Role::Uplink, Attach::Tc, reason));
        }
    }

    fn driver(&self, link: &Link) -> &str {
        self.offloads.get(&link.name).map_or("", |offloads| offloads.driver.as_str())
    }

    /// Why native XDP would be refused by the kernel.
    fn impossible(&self, link: &Link) -> Option<String> {
        let name = &link.name;
        match &link.kind {
            Kind::Vlan { .. } => return Some("a VLAN interface has no native XDP".to_owned()),
            Kind::Bond => {
                // The bonding driver passes the program on to its members (bond_xdp_set).
                let members: Vec<&Link> = self.view.ports(link.index).collect();
                if members.is_empty() {
                    return Some(format!("the bond {name} has no members"));
                }
                let without = members.iter().find(|member| !self.is_native(member))?;
                return Some(format!(
                    "member {} of {name} has driver {}, without native XDP",
                    without.name,
                    self.driver(without)
                ));
            }
            Kind::Other(kind) => return Some(format!("a {kind} interface has no native XDP")),
            _ => {}
        }
        if !self.is_native(link) && self.switch.xdp == XdpChoice::Auto {
            let driver = self.driver(link);
            return Some(if driver.is_empty() {
                format!("the driver of {name} is not known")
            } else {
                format!("driver {driver} is not known to have native XDP")
            });
        }
        (link.mtu > XDP_MTU)
            .then(|| format!("MTU {} is above {XDP_MTU}, the most XDP takes in one piece", link.mtu))
    }

    fn is_native(&self, link: &Link) -> bool {
        NATIVE_DRIVERS.contains(&self.driver(link))
    }

    /// Why native XDP would attach, and be wrong.
    fn unwise(&self, link: &Link) -> Option<String> {
        if matches!(link.kind, Kind::Veth { .. }) || self.driver(link) == "veth" {
            return Some(
                "a veth's peer may send unfinished checksums and oversized segments, which XDP cannot see"
                    .to_owned(),
            );
        }
        for (device, offloads) in self.devices(link) {
            if offloads.lro() {
                return Some(format!("{} has LRO on: joined frames would be lost", device.name));
            }
            if offloads.gro_hw() {
                return Some(format!("{} joins frames in hardware (rx-gro-hw)", device.name));
            }
        }
        self.blind_to_tags(link)
    }

    /// Why native XDP would take frames of one VLAN for those of another: their tags are gone before it sees them.
    fn blind_to_tags(&self, link: &Link) -> Option<String> {
        let (device, _) = self.devices(link).find(|(_, offloads)| offloads.rx_vlan())?;
        let name = &device.name;
        if let Some(service) = self.vlan {
            return Some(format!("{name} strips VLAN tags (rxvlan), which service \"{service}\" needs"));
        }
        let bridge = link.master.and_then(|master| self.view.by_index(master))?;
        let Kind::Bridge { vlan_filtering: true, .. } = bridge.kind else { return None };
        let vlan = link.vlans.iter().find(|vlan| !vlan.untagged)?.id;
        Some(format!("{name} strips VLAN tags (rxvlan): frames of VLAN {vlan} would look untagged"))
    }

    /// What a port's frames come in by, where its offloads are known: itself, and a bond's members, since what
    /// one of them does, the bond does.
    fn devices<'a>(&'a self, link: &'a Link) -> impl Iterator<Item = (&'a Link, &'a Offloads)> {
        let members = self.view.ports(link.index).filter(|_| link.kind == Kind::Bond);
        let all = std::iter::once(link).chain(members);
        all.filter_map(|device| Some((device, self.offloads.get(&device.name)?)))
    }
}

fn entry(link: &Link, role: Role, attach: Attach, reason: String) -> PortPlan {
    PortPlan { index: link.index, name: link.name.clone(), role, attach, reason, replaces: None }
}
