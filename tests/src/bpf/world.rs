//! What a bench is configured with: ports, services, targets, and the addresses and names of everybody.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use lbx_common::addresses::{AddressSpec, RuleSpec};
use lbx_common::port::{Port, flags as port_flags};
use lbx_common::service::{Back, Rule, address_flags, flags as service_flags};
use lbx_common::target::{Deliver, Forward, State, StateWord, flags as target_flags};
use lbx_user::datapath::Options;

use crate::packets::{Body, Packet, protocol, tcp};

/// MAC of the switch: what the VIP resolves to.
pub const SWITCH_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// MAC of the uplink.
pub const UPLINK_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// MAC of whoever the client's packets come from.
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xc1];
/// The client.
pub const CLIENT4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
/// The client.
pub const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 7);
/// The VIP.
pub const VIP4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The VIP.
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
/// Index of the uplink among the ports.
pub const UPLINK: u32 = 0;
/// Both families.
pub const FAMILIES: [bool; 2] = [true, false];

/// MAC of the n-th VM, from 1.
pub const fn vm_mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 1, n]
}

/// Address of the n-th VM, from 1.
pub const fn vm4(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 10 + n)
}

/// Address of the n-th VM, from 1.
pub const fn vm6(n: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 0x10 + n as u16)
}

/// Client and VIP of a family.
pub const fn ends(v4: bool) -> (IpAddr, IpAddr) {
    if v4 { (IpAddr::V4(CLIENT4), IpAddr::V4(VIP4)) } else { (IpAddr::V6(CLIENT6), IpAddr::V6(VIP6)) }
}

/// From the client to the VIP.
pub fn packet(v4: bool, body: Body) -> Packet {
    let (src, dst) = ends(v4);
    Packet::new((CLIENT_MAC, SWITCH_MAC), src, dst, body)
}

/// Somebody on the way from the VIP to the client.
pub fn router(v4: bool) -> IpAddr {
    if v4 { "198.51.100.1" } else { "2001:db8:5::1" }.parse().unwrap()
}

/// Too big (IPv4: fragmentation needed), MTU 1280, about a packet.
pub fn too_big(v4: bool, quote: Vec<u8>) -> Body {
    let (kind, code) = if v4 { (3, 4) } else { (2, 0) };
    Body::Icmp { kind, code, rest: [0, 0, 5, 0], data: quote }
}

/// From the router to the VIP: too big was what the VIP sent to the client.
pub fn error_about(v4: bool, sent: Body) -> Packet {
    let (client, vip) = ends(v4);
    let quote = Packet::new(([0; 6], [0; 6]), vip, client, sent).ip();
    Packet::new((CLIENT_MAC, SWITCH_MAC), router(v4), vip, too_big(v4, quote))
}

/// TCP from the client to port 80 of the VIP.
pub fn tcp_packet(v4: bool, port: u16, flags: u8) -> Packet {
    let data = if flags & tcp::PSH != 0 { b"odd bytes".to_vec() } else { Vec::new() };
    let body = Body::Tcp { ports: (port, 80), seq: 1000, ack: 2000, flags, options: Vec::new(), data };
    packet(v4, body)
}

/// UDP from the client to port 53 of the VIP.
pub fn udp_packet(v4: bool, port: u16) -> Packet {
    packet(v4, Body::Udp { ports: (port, 53), checksum: true, data: b"question".to_vec() })
}

/// A target.
#[derive(Clone, Debug)]
pub struct Tgt {
    /// Index of its port.
    pub port: u32,
    /// Its MAC.
    pub mac: [u8; 6],
    /// Share of new flows.
    pub weight: u32,
    /// State.
    pub state: StateWord,
    /// Address for nat.
    pub addr4: Option<Ipv4Addr>,
    /// Address for nat.
    pub addr6: Option<Ipv6Addr>,
    /// Port for nat; 0 keeps it.
    pub nat_port: u16,
    /// Tag its port wants to see.
    pub vlan: u16,
    /// Largest IP packet; 0 no limit.
    pub mtu: u16,
    /// How frames get to it.
    pub deliver: Deliver,
    /// nat: its port serves nothing else, and answers are translated without a recorded flow.
    pub exclusive: bool,
}

impl Tgt {
    /// The n-th VM, from 1, behind the n-th port.
    pub fn vm(n: u8) -> Self {
        Self {
            port: n.into(),
            mac: vm_mac(n),
            weight: 1,
            state: StateWord::new(State::Active),
            addr4: Some(vm4(n)),
            addr6: Some(vm6(n)),
            nat_port: 0,
            vlan: 0,
            mtu: 1500,
            deliver: Deliver::Redirect,
            exclusive: false,
        }
    }
}

/// A service.
#[derive(Clone, Debug)]
pub struct Svc {
    /// Addresses.
    pub vips: Vec<IpAddr>,
    /// Protocol.
    pub protocol: u8,
    /// First and last port.
    pub ports: (u16, u16),
    /// VLAN.
    pub vlan: u16,
    /// Forwarding.
    pub forward: Forward,
    /// [`service_flags`].
    pub flags: u16,
    /// New flows per second and CPU; 0 no limit.
    pub rate: u32,
    /// Of the 8 places of a flow, how many its flows leave to others.
    pub kept: u16,
    /// Number of the algorithm.
    pub algorithm: u8,
    /// Whether the VIP is answered for.
    pub answer: bool,
    /// Slots of its table.
    pub table: u32,
    /// Targets.
    pub targets: Vec<Tgt>,
}

impl Svc {
    /// A service on both VIPs with VMs 1 to `n`, that drops when there is no target.
    pub fn new(protocol: u8, port: u16, forward: Forward, n: u8) -> Self {
        Self {
            vips: vec![VIP4.into(), VIP6.into()],
            protocol,
            ports: (port, port),
            vlan: 0,
            forward,
            flags: service_flags::ACTIVE,
            rate: 0,
            kept: 0,
            algorithm: 0,
            answer: true,
            table: 251,
            targets: (1..=n).map(Tgt::vm).collect(),
        }
    }
}

/// Everything.
#[derive(Clone, Debug)]
pub struct World {
    /// Sizes and rates.
    pub options: Options,
    /// Ports by index; the interface is filled in by the bench.
    pub ports: Vec<Port>,
    /// Services by index.
    pub services: Vec<Svc>,
}

impl World {
    /// An uplink and three VMs' ports on switch 0 without VLANs, and the services given.
    pub fn new(services: Vec<Svc>) -> Self {
        let options = Options {
            flows: 16_384,
            table_pool: 1 << 19,
            answer_rate: 1_000_000,
            learn: Duration::from_mins(10),
            ..Options::default()
        };
        let uplink = Port {
            flags: port_flags::UPLINK,
            switch_mac: SWITCH_MAC,
            mac: UPLINK_MAC,
            mtu: 1500,
            ..Port::default()
        };
        let vnic = |n| Port {
            flags: port_flags::VNIC | port_flags::NAT_TARGETS,
            mac: [0xfe, 0, 0, 0, 1, n],
            ..uplink
        };
        Self { options, ports: vec![uplink, vnic(1), vnic(2), vnic(3)], services }
    }

    /// TCP port 80 and UDP port 53, `dsr`, with three VMs.
    pub fn dsr() -> Self {
        Self::new(vec![
            Svc::new(protocol::TCP, 80, Forward::Dsr, 3),
            Svc::new(protocol::UDP, 53, Forward::Dsr, 3),
        ])
    }

    /// The same with `nat`, to ports 8080 and 5353.
    pub fn nat() -> Self {
        let mut world = Self::new(vec![
            Svc::new(protocol::TCP, 80, Forward::Nat, 3),
            Svc::new(protocol::UDP, 53, Forward::Nat, 3),
        ]);
        for (service, port) in world.services.iter_mut().zip([8080, 5353]) {
            service.targets.iter_mut().for_each(|t| t.nat_port = port);
        }
        world
    }

    /// The port of the whole bridge filters VLANs: every port is a member of `vlans`, untagged frames belong
    /// to `pvid`.
    pub fn filter_vlans(&mut self, pvid: u16, vlans: &[u16]) {
        for port in &mut self.ports {
            port.flags |= port_flags::VLAN_FILTERING;
            port.pvid = pvid;
            for vlan in vlans {
                port.vlans[usize::from(*vlan) / 64] |= 1 << (vlan % 64);
            }
        }
    }

    /// The targets with their indices in the maps, service by service.
    pub fn targets(&self) -> impl Iterator<Item = (u32, usize, &Tgt)> {
        let all =
            self.services.iter().enumerate().flat_map(|(s, svc)| svc.targets.iter().map(move |t| (s, t)));
        all.enumerate().map(|(index, (service, target))| (index as u32, service, target))
    }

    /// What the address table is built from.
    pub fn addresses(&self) -> Vec<AddressSpec> {
        let mut all: BTreeMap<IpAddr, AddressSpec> = BTreeMap::new();
        for (index, svc) in self.services.iter().enumerate() {
            for vip in &svc.vips {
                let spec = all.entry(*vip).or_default();
                spec.flags |= address_flags::VIP;
                if svc.flags & service_flags::ACTIVE == 0 {
                    spec.flags |= address_flags::SUSPENDED;
                }
                spec.rules.push(RuleSpec::Service(svc.rule(svc.ports, index as u16)));
                if svc.answer {
                    spec.answer(svc.vlan, 0);
                }
            }
        }
        for (index, service, target) in self.targets() {
            let svc = &self.services[service];
            let addrs = [target.addr4.map(IpAddr::V4), target.addr6.map(IpAddr::V6)];
            for addr in addrs.into_iter().flatten().filter(|_| svc.forward == Forward::Nat) {
                for vip in svc.vips.iter().filter(|vip| vip.is_ipv4() == addr.is_ipv4()) {
                    let (from, to) = match target.nat_port {
                        0 => (svc.ports, 0),
                        port => ((port, port), svc.ports.0.to_be()),
                    };
                    let back = Back {
                        vip: (*vip).into(),
                        port: to,
                        service: service as u16,
                        target: index as u16,
                        vlan: svc.vlan,
                    };
                    let spec = all.entry(addr).or_default();
                    spec.flags |= address_flags::NAT_TARGET;
                    spec.rules.push(RuleSpec::Back(svc.rule(from, 0), back));
                }
            }
        }
        all.into_iter().map(|(addr, spec)| AddressSpec { addr: addr.into(), ..spec }).collect()
    }
}

impl Svc {
    fn rule(&self, ports: (u16, u16), index: u16) -> Rule {
        Rule {
            protocol: self.protocol,
            vlan: self.vlan,
            port_first: ports.0,
            port_last: ports.1,
            index,
            ..Rule::default()
        }
    }
}

impl Tgt {
    /// As the kernel sees it. `ifindex`: of its port.
    pub fn entry(&self, service: usize, svc: &Svc, ifindex: u32) -> lbx_common::target::Target {
        lbx_common::target::Target {
            state: self.state,
            addr6: self.addr6.map(|a| IpAddr::V6(a).into()).unwrap_or_default(),
            addr4: self.addr4.map_or(0, |a| u32::from_ne_bytes(a.octets())),
            ifindex,
            mac: self.mac,
            port: self.nat_port.to_be(),
            port_index: self.port as u16,
            vlan: self.vlan,
            mtu: self.mtu,
            flags: target_flags::IN_USE | if self.exclusive { target_flags::EXCLUSIVE } else { 0 },
            service: service as u16,
            forward: svc.forward as u8,
            queues: 1,
            generation: 1,
            deliver: self.deliver as u8,
            ..lbx_common::target::Target::default()
        }
    }
}
