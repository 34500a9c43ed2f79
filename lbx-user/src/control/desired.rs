//! What the maps should say: one value, computed from config, host, wishes and overrides.
//!
//! Names, not indices: which index a name has in the maps is [`super::reconcile`]'s business.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use lbx_common::addr::Mac;
use lbx_common::flow::IdleLimits;
use lbx_common::port::{self, Port};
use lbx_common::target::{Deliver, Forward, State, Weight};
use lbx_common::tunnel::TunnelWord;

use super::wishes::BLACKHOLE;

/// Everything the datapath is to do.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Desired {
    /// Switches by name; services and ports refer to them.
    pub switches: Vec<SwitchWant>,
    /// Ports the program is attached to, or delivers into.
    pub ports: Vec<PortWant>,
    /// Services, in the order of the config.
    pub services: Vec<ServiceWant>,
    /// What the control block should say.
    pub control: ControlWant,
    /// What comes out of tunnels here, if this host has an end of them.
    pub tunnel: Option<TunnelWant>,
}

impl Desired {
    /// The service of that name.
    pub fn service(&self, name: &str) -> Option<&ServiceWant> {
        self.services.iter().find(|service| service.name == name)
    }

    /// Whether the bridge of that name delivers for a nat service: answers are then translated where they leave.
    pub fn translates_behind_bridge(&self, switch: &str) -> bool {
        self.targets().any(|(service, target)| {
            service.switch == switch
                && service.forward == Forward::Nat
                && service.suspended.is_none()
                && target.deliver == Deliver::Bridge
        })
    }

    /// Notes on the ports of a switch that answers are translated where they leave.
    pub fn translate_at_egress(&mut self, switch: &str) {
        for port in self.ports.iter_mut().filter(|port| port.switch == switch) {
            if port.entry.flags & port::flags::SWITCH == 0 {
                port.entry.flags |= port::flags::BACK_AT_EGRESS;
            }
        }
    }

    /// All targets, each with its service.
    pub fn targets(&self) -> impl Iterator<Item = (&ServiceWant, &TargetWant)> {
        self.services.iter().flat_map(|service| service.targets.iter().map(move |target| (service, target)))
    }
}

/// One switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchWant {
    /// Interface name.
    pub name: String,
    /// Interface index.
    pub ifindex: u32,
}

/// One port.
#[derive(Debug, Clone, PartialEq)]
pub struct PortWant {
    /// Interface name, for people.
    pub name: String,
    /// The switch it belongs to, by name.
    pub switch: String,
    /// The entry; its `switch` is filled in by the reconciler.
    pub entry: Port,
}

/// One service.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceWant {
    /// Unique name.
    pub name: String,
    /// The switch it is on, by name.
    pub switch: String,
    /// VLAN in the rules: 0 where the switch does not filter and frames are untagged.
    pub vlan: u16,
    /// VIPs, and whether this host answers for each of them now.
    pub vips: Vec<VipWant>,
    /// IANA protocol number.
    pub protocol: u8,
    /// First and last port, host order.
    pub ports: (u16, u16),
    /// How packets are changed.
    pub forward: Forward,
    /// Number of the algorithm.
    pub algorithm: u8,
    /// Reject (rather than drop) when no target is left.
    pub reject: bool,
    /// Why its packets pass untouched, if they do.
    pub suspended: Option<String>,
    /// New flows a second and CPU; 0 no limit.
    pub new_flow_rate: u32,
    /// Of the places a flow has in the flow table, how many its flows leave to others.
    pub kept_ways: u16,
    /// Slots of its table.
    pub table_size: u32,
    /// Its targets, in the order of the config.
    pub targets: Vec<TargetWant>,
}

/// One VIP of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VipWant {
    /// The address.
    pub addr: IpAddr,
    /// ARP or neighbour solicitation and echo are answered here.
    pub answer: bool,
}

/// One target.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetWant {
    /// Name, unique within the service.
    pub name: String,
    /// Interface it is reached by; 0 while there is none.
    pub ifindex: u32,
    /// MAC of the vNIC.
    pub mac: Mac,
    /// IPv4 address for `nat`.
    pub addr4: Option<Ipv4Addr>,
    /// IPv6 address for `nat`.
    pub addr6: Option<Ipv6Addr>,
    /// Port for `nat`, host order; 0 keeps the service's.
    pub port: u16,
    /// Tag to put on, 0 untagged.
    pub vlan: u16,
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// Return path without a recorded flow.
    pub exclusive: bool,
    /// Frames go into the queue their flow is bound to.
    pub choose_queue: bool,
    /// How frames get into the port.
    pub deliver: Deliver,
    /// Where its flows go when it has moved.
    pub moves: Moves,
    /// The VM's new host that this was worked out for, if one was named.
    pub host: Option<String>,
    /// Weight per queue, at least one element.
    pub weights: Vec<Weight>,
    /// What the datapath is to do with its packets.
    pub state: StateWant,
}

/// Where the flows of a target go when it has moved: prepared while it is still here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moves {
    /// Nowhere: they are selected anew.
    Nowhere,
    /// Where it was prepared that they go; the target is not here any more.
    AsBefore,
    /// To this end of a tunnel, once the way there is known; until then where it was prepared, if that is the same end.
    Waiting {
        /// The other host's end.
        end: IpAddr,
        /// Why the way is not known.
        why: String,
    },
    /// There.
    To(Place),
}

/// A place for moved flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Interface that frames leave by.
    pub ifindex: u32,
    /// Tag to put on, 0 untagged.
    pub vlan: u16,
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// MAC they are addressed to.
    pub mac: Mac,
    /// Into the port, or out of it as an uplink.
    pub deliver: Deliver,
    /// Through a tunnel.
    pub through: Option<Through>,
}

/// A tunnel to another host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Through {
    /// MAC of the next hop.
    pub hop: Mac,
    /// This host's end.
    pub own: IpAddr,
    /// The other's.
    pub end: IpAddr,
    /// VXLAN network.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
}

/// What comes out of tunnels here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelWant {
    /// This host's end.
    pub own: IpAddr,
    /// Network and port.
    pub word: TunnelWord,
    /// The other hosts' ends.
    pub peers: Vec<IpAddr>,
    /// VMs here, each once.
    pub vms: Vec<TunnelVm>,
}

/// A VM that frames out of tunnels are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelVm {
    /// Its switch.
    pub switch: String,
    /// Its MAC.
    pub mac: Mac,
    /// Interface index of its vNIC.
    pub ifindex: u32,
    /// Frames go straight into it, as those of its services do; else the bridge delivers them.
    pub straight: bool,
}

impl TargetWant {
    /// The name by which the whole instance knows it: `web/web-1`.
    pub fn full_name(&self, service: &str) -> String {
        format!("{service}/{}", self.name)
    }
}

/// A state, and how long it stands without the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateWant {
    /// The state.
    pub state: State,
    /// What it falls back to when the deadline passes.
    pub fallback: State,
    /// Time from now to the deadline; `None` stands until changed.
    pub deadline: Option<Duration>,
}

impl StateWant {
    /// A state that stands until changed.
    pub const fn lasting(state: State) -> Self {
        Self { state, fallback: state, deadline: None }
    }

    /// What can come of it for a target that nobody can be reached at here (`elsewhere`: its flows have another way):
    /// it is down, whatever was wished. Unless it is only gone from here, or its packets are dropped until it is known
    /// where it runs: the source of a migration ends before its destination is heard of.
    #[must_use]
    pub fn without_port(self, elsewhere: bool) -> Self {
        match (self.state, self.fallback) {
            (State::Moved, _) | (State::Blackholed, State::Moved) if elsewhere => self,
            (State::Blackholed, _) => Self { fallback: State::Down, ..self },
            _ => Self::lasting(State::Down),
        }
    }

    /// What stands while nobody knows the way to the VM's new host: its packets are dropped and counted, and sent again
    /// by whoever sent them. Without the daemon its flows are selected anew in the end: nobody will find the way.
    #[must_use]
    pub fn until_the_way_is_known(self) -> Self {
        if self.state != State::Moved && self.fallback != State::Moved {
            return self;
        }
        let deadline = Some(self.deadline.unwrap_or(BLACKHOLE));
        Self { state: State::Blackholed, fallback: State::Down, deadline }
    }

    /// Whether the target has slots in the table. A blackholed one keeps its slots: the state is short, and
    /// its new flows are re-hashed in the kernel meanwhile.
    pub fn holds_slots(&self) -> bool {
        match self.state {
            State::Active => true,
            State::Blackholed => self.fallback == State::Active,
            State::Draining | State::Moved | State::Down | State::Standby => false,
        }
    }
}

/// The part of the control block that the config decides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ControlWant {
    /// Idle times in seconds by class; turned into epochs of about a second.
    pub idle: IdleLimits,
    /// Epochs after which a client's MAC is shown to the bridge again.
    pub learn: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_can_be_reached_at_is_down_moved_or_blackholed() {
        let blackhole = |fallback| StateWant {
            state: State::Blackholed,
            fallback,
            deadline: Some(Duration::from_secs(5)),
        };
        let down = StateWant::lasting(State::Down);
        for state in [State::Active, State::Draining, State::Standby, State::Down] {
            assert_eq!(StateWant::lasting(state).without_port(true), down, "{state:?}");
        }
        let moved = StateWant::lasting(State::Moved);
        assert_eq!((moved.without_port(true), moved.without_port(false)), (moved, down));
        assert_eq!(blackhole(State::Draining).without_port(true), blackhole(State::Down));
        assert_eq!(blackhole(State::Moved).without_port(true), blackhole(State::Moved));
        assert_eq!(blackhole(State::Moved).without_port(false), blackhole(State::Down));
    }
}
