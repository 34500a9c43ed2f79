//! The maps as people and programs see them: the models of [`crate::api::model`], built from what the datapath
//! holds.
//!
//! Needs no daemon. The daemon's API calls the same functions and adds what only it knows: wishes, overrides,
//! health, reasons.

mod events;
pub mod flows;
pub mod names;
mod pick;
mod report;
mod select;
mod weights;
mod why;

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};

use lbx_common::control::Control;
use lbx_common::limits::MAX_SERVICES;
use lbx_common::port::{self, Port};
use lbx_common::service::Service;
use lbx_common::target::{self, State, Target};

use crate::datapath::{self, FlowCount, Instance, Maps};

/// Why a question cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The maps could not be read.
    #[error(transparent)]
    Maps(#[from] datapath::Error),
    /// No such service or target.
    #[error("{0}")]
    NotFound(String),
    /// A name that fits several targets.
    #[error("several targets are called \"{name}\": {}", candidates.join(", "))]
    Ambiguous {
        /// The name.
        name: String,
        /// The full names it fits.
        candidates: Vec<String>,
    },
    /// A question that makes no sense.
    #[error("{0}")]
    Invalid(String),
}

/// Result of a question.
pub type Result<T> = std::result::Result<T, Error>;

/// A service and where it is.
#[derive(Debug, Clone)]
struct Served {
    index: u16,
    name: String,
    entry: Service,
}

/// A target and where it is.
#[derive(Debug, Clone)]
struct Placed {
    index: u16,
    /// Service and name: `web/web-1`.
    name: String,
    entry: Target,
}

impl Placed {
    /// Its name within its service.
    fn short(&self) -> &str {
        self.name.split_once('/').map_or(self.name.as_str(), |(_, short)| short)
    }
}

/// A port and where it is.
#[derive(Debug, Clone)]
struct Plugged {
    index: u32,
    /// Interface name; `#7` where no interface of this namespace has the index.
    name: String,
    entry: Port,
}

/// The maps at (nearly) one moment.
pub struct View<'a> {
    maps: &'a Maps,
    instance: &'a Instance,
    control: Control,
    /// jiffies64.
    now: u64,
    services: Vec<Served>,
    /// By service, in the order of its members.
    targets: Vec<Placed>,
    /// Places in `targets` by index: every row of the flow table asks.
    places: HashMap<u32, usize>,
    ports: Vec<Plugged>,
    live: OnceCell<HashMap<(u32, u8), FlowCount>>,
}

impl<'a> View<'a> {
    /// Reads services, targets and ports; the rest when it is asked for.
    ///
    /// # Errors
    /// The maps could not be read.
    pub fn new(maps: &'a Maps, instance: &'a Instance) -> Result<Self> {
        let mut services = Vec::new();
        for index in 0..MAX_SERVICES {
            let name = maps.service_name(index)?;
            if !name.is_empty() {
                services.push(Served { index: index as u16, name, entry: maps.service(index)? });
            }
        }
        let mut targets = Vec::new();
        for service in &services {
            for index in maps.members(datapath::members_of(&service.entry))? {
                let (name, entry) = (maps.target_name(index)?, maps.target(index)?);
                if entry.flags & target::flags::IN_USE != 0 && entry.service == service.index {
                    targets.push(Placed { index: index as u16, name, entry });
                }
            }
        }
        let mut ports = Vec::new();
        for index in 0..maps.max_ports() {
            let entry = maps.port(index)?;
            if entry.ifindex != 0 {
                ports.push(Plugged { index, name: interface(entry.ifindex), entry });
            }
        }
        Ok(Self {
            maps,
            instance,
            control: maps.control()?,
            now: maps.clock()?.jiffies_now()?,
            services,
            places: targets.iter().enumerate().map(|(n, target)| (u32::from(target.index), n)).collect(),
            targets,
            ports,
            live: OnceCell::new(),
        })
    }

    fn service_name(&self, index: u16) -> Option<&str> {
        self.services.iter().find(|service| service.index == index).map(|service| service.name.as_str())
    }

    /// A target by index; only if it is still the one of that generation.
    fn target_at(&self, index: u32, generation: u8) -> Option<&Placed> {
        let target = self.targets.get(*self.places.get(&index)?)?;
        (target.entry.generation == generation).then_some(target)
    }

    fn targets_of(&self, service: u16) -> impl Iterator<Item = &Placed> {
        self.targets.iter().filter(move |target| target.entry.service == service)
    }

    fn port(&self, index: u32) -> Option<&Plugged> {
        self.ports.iter().find(|port| port.index == index)
    }

    /// The name of a switch: of the port that is the switch itself, else (a NIC) of its uplink.
    fn switch_name(&self, switch: u16) -> String {
        let mut own = self.ports.iter().filter(|port| port.entry.switch == switch);
        let itself = own.clone().find(|port| port.entry.flags & port::flags::SWITCH != 0);
        itself.or_else(|| own.next()).map_or_else(|| format!("#{switch}"), |port| port.name.clone())
    }

    /// The state of a target now, and whether a deadline passed.
    fn state(&self, target: &Placed) -> (State, bool) {
        target.entry.state.at(self.now)
    }

    /// Live flows by target index and generation; read once.
    fn live(&self) -> Result<&HashMap<(u32, u8), FlowCount>> {
        if let Some(live) = self.live.get() {
            return Ok(live);
        }
        let mut live: HashMap<(u32, u8), FlowCount> = HashMap::new();
        for (word, count) in self.maps.flows_by_target()? {
            *live.entry((word.target(), word.generation())).or_default() += count;
        }
        Ok(self.live.get_or_init(|| live))
    }

    fn live_flows(&self, target: &Placed) -> Result<FlowCount> {
        Ok(self.live()?.get(&(target.index.into(), target.entry.generation)).copied().unwrap_or_default())
    }

    /// What is attached, by interface name.
    fn attached(&self) -> Result<BTreeMap<String, Vec<String>>> {
        let mut attached: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for one in datapath::list(self.instance)?.into_iter().filter(|one| !one.is_dead()) {
            let mode = one.mode.map_or(String::new(), |mode| format!(" {}", mode.name()));
            attached.entry(one.device.name).or_default().push(format!("{}{mode}", one.point));
        }
        Ok(attached)
    }
}

/// Name of an interface of this namespace.
fn interface(ifindex: u32) -> String {
    let name = nix::net::if_::if_indextoname(ifindex).ok().and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| format!("#{ifindex}"))
}

/// Name of a protocol number.
fn protocol_name(number: u8) -> String {
    match number {
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        other => format!("protocol {other}"),
    }
}

/// Name of a way of forwarding.
fn forward_name(number: u8) -> &'static str {
    match number {
        0 => "dsr",
        1 => "nat",
        2 => "encap",
        _ => "unknown",
    }
}

/// Name of a way of delivery.
fn deliver_name(number: u8) -> &'static str {
    match number {
        0 => "redirect",
        1 => "bridge",
        2 => "uplink",
        _ => "unknown",
    }
}

/// One part of a whole; 0 of nothing.
fn part(some: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { some as f64 / all as f64 }
}
