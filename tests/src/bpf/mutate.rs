//! Seeds and mutations: packets of every kind, and what a wire, a fuzzer or an enemy makes of them.

use std::net::{IpAddr, Ipv6Addr};

use lbx_common::service::flags as service_flags;
use lbx_common::target::{Deliver, Forward, State, StateWord};

use super::bench::{Bench, Hook};
use super::world::{
    CLIENT_MAC, CLIENT4, CLIENT6, FAMILIES, SWITCH_MAC, Svc, UPLINK, VIP4, VIP6, World, ends, vm_mac, vm4,
    vm6,
};
use crate::packets::arp::{solicit, who_has};
use crate::packets::tcp::{ACK, FIN, PSH, SYN};
use crate::packets::{Body, Fragment, Packet, VLAN, protocol};

/// Random numbers (SplitMix64; Steele, Lea, Flood 2014): small, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.number()) * n as u128) >> 64) as usize
    }

    /// True once in `n`.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// The services of [`world`], by the port they are on; the protocol is TCP unless it says otherwise.
pub mod port {
    /// `dsr`.
    pub const DSR: u16 = 80;
    /// `dsr`, UDP.
    pub const DSR_UDP: u16 = 53;
    /// `nat`, UDP and TCP.
    pub const NAT: u16 = 5000;
    /// No target, refused; TCP and UDP.
    pub const REJECT: u16 = 81;
    /// MTU 600.
    pub const NARROW: u16 = 82;
    /// Delivered by the bridge.
    pub const BRIDGE: u16 = 83;
    /// Blackholed.
    pub const BLACKHOLE: u16 = 84;
    /// No target, dropped.
    pub const NOBODY: u16 = 85;
    /// Only for packets with options or extension headers.
    pub const HEADERS: u16 = 86;
    /// On VLAN 5, to ports that want no tag, or tag 7.
    pub const VLAN: u16 = 87;
    /// Out of the uplink.
    pub const REMOTE: u16 = 88;
}

/// Everything that lbx can do, in one configuration. The services are in the order of [`SERVICES`].
pub fn world() -> World {
    let svc = |protocol, port, forward| Svc::new(protocol, port, forward, 2);
    let tcp = protocol::TCP;
    let mut all = Vec::new();
    for (_, protocol, port) in SERVICES {
        let nat = *port == port::NAT;
        let mut svc = svc(*protocol, *port, if nat { Forward::Nat } else { Forward::Dsr });
        for (n, target) in svc.targets.iter_mut().enumerate() {
            match *port {
                port::NAT => target.nat_port = if *protocol == tcp { 8080 } else { 0 },
                port::REJECT | port::NOBODY => target.state = StateWord::new(State::Down),
                port::NARROW => target.mtu = 600,
                port::BRIDGE => target.deliver = Deliver::Bridge,
                port::VLAN => target.vlan = if n == 0 { 0 } else { 7 },
                port::REMOTE => (target.deliver, target.port) = (Deliver::Uplink, UPLINK),
                _ => {}
            }
        }
        if *port == port::REJECT {
            svc.flags |= service_flags::REJECT;
        }
        if *port == port::VLAN {
            svc.vlan = 5;
        }
        all.push(svc);
    }
    let mut world = World::new(all);
    world.options.flows = 65_536;
    world
}

/// Name, protocol and port of the services.
pub const SERVICES: &[(&str, u8, u16)] = &[
    ("dsr, TCP", protocol::TCP, port::DSR),
    ("dsr, UDP", protocol::UDP, port::DSR_UDP),
    ("nat, TCP", protocol::TCP, port::NAT),
    ("nat, UDP", protocol::UDP, port::NAT),
    ("rejecting, TCP", protocol::TCP, port::REJECT),
    ("rejecting, UDP", protocol::UDP, port::REJECT),
    ("narrow", protocol::UDP, port::NARROW),
    ("by the bridge", protocol::TCP, port::BRIDGE),
    ("blackholed", protocol::TCP, port::BLACKHOLE),
    ("without a target", protocol::TCP, port::NOBODY),
    ("behind options or extension headers", protocol::TCP, port::HEADERS),
    ("tagged", protocol::TCP, port::VLAN),
    ("out of the uplink", protocol::TCP, port::REMOTE),
];

/// Opens the flows of the service that is to be blackholed, and blackholes its targets.
pub fn blackhole(bench: &mut Bench, seeds: &[Seed]) {
    let (_, frames) = seeds.iter().find(|(name, _)| *name == "blackhole").expect("it is among the seeds");
    // Twice: a second packet confirms a flow.
    for (hook, frame) in frames.iter().chain(frames) {
        bench.run(*hook, frame);
    }
    let service = SERVICES.iter().position(|(_, _, port)| *port == port::BLACKHOLE);
    let targets: Vec<u32> =
        bench.world.targets().filter(|(_, s, _)| Some(*s) == service).map(|(index, ..)| index).collect();
    for target in targets {
        bench.set_state(target, State::Blackholed);
    }
}

/// Client ports of the seeds: few, so that most packets are of known flows.
pub const CLIENT_PORTS: usize = 64;

fn tcp(v4: bool, client: u16, service: u16, flags: u8, data: usize) -> Packet {
    let body = Body::Tcp {
        ports: (client, service),
        seq: 1,
        ack: 1,
        flags,
        options: Vec::new(),
        data: vec![0x61; data],
    };
    super::world::packet(v4, body)
}

fn udp(v4: bool, client: u16, service: u16, data: usize) -> Packet {
    let body = Body::Udp { ports: (client, service), checksum: true, data: vec![0x62; data] };
    super::world::packet(v4, body)
}

/// Something a packet goes through.
pub type Seed = (&'static str, Vec<(Hook, Vec<u8>)>);

/// Packets of every kind, by what they are meant to reach.
pub fn seeds() -> Vec<Seed> {
    const XDP: Hook = Hook::Xdp(UPLINK);
    let mut all: Vec<Seed> = Vec::new();
    let mut add = |name, frames: Vec<Vec<u8>>| {
        all.push((name, frames.into_iter().map(|f| (XDP, f)).collect()));
    };
    let both = |make: &dyn Fn(bool, u16) -> Packet| -> Vec<Vec<u8>> {
        let ports = 1000..1000 + CLIENT_PORTS as u16;
        ports.flat_map(|port| FAMILIES.map(|v4| make(v4, port).build())).collect()
    };
    add(
        "dsr",
        both(&|v4, p| tcp(v4, p, port::DSR, [SYN, ACK, PSH | ACK, FIN | ACK][usize::from(p % 4)], 30)),
    );
    add("dsr udp", both(&|v4, p| udp(v4, p, port::DSR_UDP, 30)));
    add("nat", both(&|v4, p| tcp(v4, p, port::NAT, ACK, 30)));
    add("nat udp", both(&|v4, p| udp(v4, p, port::NAT, 31)));
    add("reset", both(&|v4, p| tcp(v4, p, port::REJECT, SYN, 0)));
    add("unreachable", both(&|v4, p| udp(v4, p, port::REJECT, 100)));
    add("too big", both(&|v4, p| Packet { dont_fragment: true, ..udp(v4, p, port::NARROW, 800) }));
    add("bridge", both(&|v4, p| tcp(v4, p, port::BRIDGE, ACK, 30)));
    add("blackhole", both(&|v4, p| tcp(v4, p, port::BLACKHOLE, ACK, 30)));
    add("no target", both(&|v4, p| tcp(v4, p, port::NOBODY, ACK, 30)));
    add("remote", both(&|v4, p| tcp(v4, p, port::REMOTE, ACK, 30)));
    add("vlan", both(&|v4, p| tcp(v4, p, port::VLAN, ACK, 30).tagged(5)));
    add("other port", both(&|v4, p| tcp(v4, p, 9999, ACK, 30)));
    add("to a VM", both(&|v4, p| Packet { eth_dst: vm_mac(1), ..tcp(v4, p, port::DSR, ACK, 30) }));
    add(
        "no VIP",
        both(&|v4, p| Packet {
            dst: if v4 { CLIENT4.into() } else { IpAddr::V6(CLIENT6) },
            ..tcp(v4, p, 80, ACK, 9)
        }),
    );
    add(
        "options",
        both(&|v4, p| {
            let mut packet = tcp(v4, p, port::HEADERS, ACK, 30);
            if v4 {
                packet.options = vec![1; 4 + usize::from(p % 10) * 4];
            } else {
                packet.extensions =
                    vec![(protocol::DESTINATION, vec![0, 1, 4, 0, 0, 0, 0]); 1 + usize::from(p % 6)];
            }
            packet
        }),
    );
    for (name, later) in [("first fragment", false), ("later fragment", true)] {
        add(
            name,
            both(&|v4, p| {
                let fragment =
                    Fragment { id: p.into(), offset: if later { 400 } else { 0 }, len: 400, more: !later };
                Packet {
                    fragment: Some(fragment),
                    ..udp(v4, p, [port::DSR_UDP, port::NAT][usize::from(p % 2)], 700)
                }
            }),
        );
    }
    add(
        "icmp error",
        both(&|v4, p| {
            let (client, vip) = ends(v4);
            let service = [port::DSR, port::NAT][usize::from(p % 2)];
            let body = Body::Tcp {
                ports: (service, p),
                seq: 1,
                ack: 2,
                flags: ACK,
                options: vec![],
                data: vec![9; 40],
            };
            let quote = Packet::new(([0; 6], [0; 6]), vip, client, body).ip();
            super::world::packet(v4, super::world::too_big(v4, quote))
        }),
    );
    add(
        "echo",
        both(&|v4, p| {
            let kind = if v4 { 8 } else { 128 };
            super::world::packet(
                v4,
                Body::Icmp { kind, code: 0, rest: [0; 4], data: p.to_be_bytes().repeat(20) },
            )
        }),
    );
    add(
        "arp",
        vec![who_has(CLIENT_MAC, CLIENT4, VIP4), {
            let mut unicast = who_has(CLIENT_MAC, CLIENT4, VIP4);
            unicast[..6].copy_from_slice(&SWITCH_MAC);
            unicast
        }],
    );
    add(
        "nd",
        vec![solicit(CLIENT_MAC, CLIENT6, VIP6).build(), {
            let mut probe = solicit(CLIENT_MAC, Ipv6Addr::UNSPECIFIED, VIP6);
            if let Body::Icmp { data, .. } = &mut probe.body {
                data.truncate(16);
            }
            probe.build()
        }],
    );
    add("two tags", both(&|v4, p| Packet { tags: vec![(VLAN, 5), (VLAN, 5)], ..tcp(v4, p, 80, ACK, 30) }));
    // Only half of them are of flows.
    all.push(("nat return", returns()));
    all.push(("nat return", returns()));
    // A share of everything at tc too.
    for (_, frames) in &mut all {
        let tc: Vec<_> = frames.iter().filter(|(hook, _)| *hook == XDP).step_by(4).cloned().collect();
        frames.extend(tc.into_iter().map(|(_, frame)| (Hook::Tc(UPLINK), frame)));
    }
    all
}

/// Answers of both VMs: some of them of flows.
fn returns() -> Vec<(Hook, Vec<u8>)> {
    let mut all = Vec::new();
    for port in 1000..1000 + CLIENT_PORTS as u16 {
        for v4 in FAMILIES {
            for vm in [1, 2] {
                let from: IpAddr = if v4 { vm4(vm).into() } else { vm6(vm).into() };
                let (client, _) = ends(v4);
                let macs = (vm_mac(vm), CLIENT_MAC);
                let tcp = Body::Tcp {
                    ports: (8080, port),
                    seq: 1,
                    ack: 1,
                    flags: ACK,
                    options: Vec::new(),
                    data: vec![1; 20],
                };
                let udp = Body::Udp { ports: (port::NAT, port), checksum: true, data: vec![2; 21] };
                for body in [tcp, udp] {
                    all.push((Hook::Tc(vm.into()), Packet::new(macs, from, client, body).build()));
                }
            }
        }
    }
    all
}

/// Damages a frame a little.
pub fn mutate(rng: &mut Rng, frame: &mut Vec<u8>, other: &[u8]) {
    /// Bytes in which headers are.
    const HEADERS: usize = 90;
    /// Values that boundaries are made of.
    const EDGES: [u8; 10] = [0, 1, 0x0f, 0x10, 0x3f, 0x40, 0x7f, 0x80, 0xfe, 0xff];
    let at = rng.below(frame.len().min(HEADERS));
    match rng.below(8) {
        0 | 1 => {
            for _ in 0..=rng.below(3) {
                let at = rng.below(frame.len().min(HEADERS));
                frame[at] ^= 1 << rng.below(8);
            }
        }
        2 => frame.truncate(14 + rng.below(frame.len() - 13)),
        3 => {
            // Lengths: of IPv4, IPv6, the header, the data offset, UDP.
            let v4 = frame[12] == 8;
            let fields: &[usize] = if v4 { &[14, 16, 17, 20, 21, 38, 46] } else { &[18, 19, 20, 55, 58, 66] };
            let at = fields[rng.below(fields.len())];
            if let Some(byte) = frame.get_mut(at) {
                *byte = if rng.one_in(2) {
                    EDGES[rng.below(EDGES.len())]
                } else {
                    byte.wrapping_add(rng.number() as u8 & 7)
                };
            }
        }
        4 => {
            // A header more: a tag, or something of 4 to 16 bytes before the IP header or the transport header.
            let place = [12, 14, 34, 54][rng.below(4)].min(frame.len());
            let mut bytes: Vec<u8> = (0..4 + 4 * rng.below(4)).map(|_| rng.number() as u8).collect();
            if place == 12 {
                bytes.truncate(4);
                bytes[..3].copy_from_slice(&[0x81, 0, 0]);
            }
            frame.splice(place..place, bytes);
        }
        5 => {
            // The head of one and the tail of another.
            frame.truncate(at.max(14));
            let from = at.min(other.len());
            frame.extend(&other[from..]);
        }
        6 => frame[at] = EDGES[rng.below(EDGES.len())],
        _ => frame.extend((0..rng.below(40)).map(|_| rng.number() as u8)),
    }
}
