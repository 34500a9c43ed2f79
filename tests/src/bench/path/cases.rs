//! The kinds of packets whose cost is measured.

use super::Flows;
use crate::bpf::run::Verdict;
use crate::bpf::world::{self, CLIENT_MAC, CLIENT4, World, packet, tcp_packet};
use crate::packets::arp::who_has;
use crate::packets::{Body, Packet, tcp};
use std::net::Ipv4Addr;

/// What the flow table holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fill {
    /// The flow measured, recorded and confirmed.
    Known,
    /// Nothing, at the start of every so many packets.
    Empty(u32),
    /// Whatever was recorded before the limit was reached.
    Flood,
}

/// A kind of packet.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it is called.
    pub name: &'static str,
    /// Nanoseconds it may cost.
    pub goal: f64,
    /// What the datapath is configured with.
    pub world: World,
    /// At tc rather than at XDP.
    pub tc: bool,
    /// Packets before the measurement.
    pub before: Vec<Vec<u8>>,
    /// The packet.
    pub frame: Vec<u8>,
    /// Of which flows.
    pub flows: Flows,
    /// What the flow table holds.
    pub fill: Fill,
    /// More than the MACs is changed.
    pub whole: bool,
    /// What becomes of it.
    pub verdict: Verdict,
    /// Whether the reference does the same job.
    pub bare: bool,
}

/// A TCP flow: the packet that opens it, the packet that confirms it, and one more.
fn tcp_flow(v4: bool) -> (Vec<Vec<u8>>, Vec<u8>) {
    let syn = tcp_packet(v4, 5000, tcp::SYN).build();
    let ack = tcp_packet(v4, 5000, tcp::ACK).build();
    (vec![syn, ack.clone(), ack.clone()], ack)
}

/// A UDP flow.
fn udp_flow(v4: bool) -> (Vec<Vec<u8>>, Vec<u8>) {
    let frame = world::udp_packet(v4, 5000).build();
    (vec![frame.clone(), frame.clone()], frame)
}

/// A packet of a known flow.
fn known(name: &'static str, goal: f64, world: World, flow: (Vec<Vec<u8>>, Vec<u8>)) -> Case {
    let (before, frame) = flow;
    Case {
        name,
        goal,
        world,
        tc: false,
        before,
        frame,
        flows: Flows::Same,
        fill: Fill::Known,
        whole: false,
        verdict: Verdict::Redirect,
        bare: true,
    }
}

/// A packet that goes on as it came.
fn passed(name: &'static str, goal: f64, frame: Vec<u8>) -> Case {
    let case = known(name, goal, World::dsr(), (Vec::new(), frame));
    Case { verdict: Verdict::Pass, bare: false, ..case }
}

/// Every case, in the order of the table.
pub fn all() -> Vec<Case> {
    let syn = tcp_packet(true, 5000, tcp::SYN).build();
    let opening = |name, goal, world| known(name, goal, world, (Vec::new(), syn.clone()));
    let mut roomy = World::dsr();
    roomy.options.flows = 1 << 16;
    let mut flooded = World::dsr();
    flooded.services.iter_mut().for_each(|service| service.rate = 1);
    let tc = |name, goal, case: Case| Case { name, goal, tc: true, bare: false, ..case };
    let nat = |case: Case| Case { whole: true, ..case };
    let other = packet(
        true,
        Body::Tcp {
            ports: (5000, 80),
            seq: 1,
            ack: 1,
            flags: tcp::ACK,
            options: Vec::new(),
            data: Vec::new(),
        },
    );
    let other = Packet { dst: Ipv4Addr::new(192, 0, 2, 99).into(), ..other };
    vec![
        known("IPv4 TCP, known flow, dsr", 18.0, World::dsr(), tcp_flow(true)),
        known("IPv4 UDP, known flow, dsr", 18.0, World::dsr(), udp_flow(true)),
        known("IPv6 TCP, known flow, dsr", 23.0, World::dsr(), tcp_flow(false)),
        nat(known("IPv4 TCP, known flow, nat", 26.0, World::nat(), tcp_flow(true))),
        nat(known("IPv6 TCP, known flow, nat", 31.0, World::nat(), tcp_flow(false))),
        Case {
            flows: Flows::Sequential(1 << 24),
            fill: Fill::Empty(1 << 15),
            ..opening("new flow, recorded (1 MiB table)", 50.0, roomy)
        },
        Case {
            flows: Flows::Random(1 << 24),
            fill: Fill::Flood,
            bare: false,
            ..opening("new flow under flood, not recorded", 30.0, flooded)
        },
        passed("IPv4 TCP, no service", 3.0, other.build()),
        passed("ARP, not for a VIP", 1.0, who_has(CLIENT_MAC, CLIENT4, Ipv4Addr::new(192, 0, 2, 99))),
        tc("tc: IPv4 TCP, known flow, dsr", 40.0, known("", 0.0, World::dsr(), tcp_flow(true))),
        tc("tc: IPv4 TCP, known flow, nat", 55.0, nat(known("", 0.0, World::nat(), tcp_flow(true)))),
    ]
}
