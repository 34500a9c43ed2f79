//! The maps with their types: everything user space reads from and writes to the datapath.

pub(super) mod absent;
mod tables;
mod tunnel;

pub use tables::{members_of, table_of};

use super::clock::{Clock, Rate};
use super::cpus::Cpus;
use super::error::{Error, Result};
use super::flips::{Flips, Words};
use super::mmap::Array;
use super::pins::Instance;
use super::{live, sys};
use lbx_common::control::{Control, flags};
use lbx_common::elsewhere::Elsewhere;
use lbx_common::flow::{Bucket, ColdFlow, IdleLimits};
use lbx_common::limits::{ABI_VERSION, MAX_SERVICES, NAME_LEN, WAYS};
use lbx_common::live::Live;
use lbx_common::port::{NearPort, Port};
use lbx_common::response::Response;
use lbx_common::service::{AddressEntry, Back, Rule, Service};
use lbx_common::target::{StateWord, Target, Weight, weight_index};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// What the maps are opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Looking only: what the CLI does without the daemon.
    Read,
    /// Writing: the daemon, and the few verbs that work without it.
    Write,
}

/// The open maps of an instance. All methods take `&self`; there is to be one writer.
pub struct Maps {
    pub(crate) control: Array<Control>,
    absent: OwnedFd,
    addresses: Array<AddressEntry>,
    more_rules: Array<Rule>,
    backs: Array<Back>,
    services: Array<Service>,
    members: Array<u32>,
    targets: Arc<Words>,
    weights: Array<Weight>,
    pub(super) live: Array<Live>,
    pub(super) responses: Array<Response>,
    pub(super) queue_ports: OwnedFd,
    pub(super) cpus: Option<Cpus>,
    /// Reads the depth of a queue.
    pub(super) depth: Option<OwnedFd>,
    slots: Array<[u32; 2]>,
    pub(crate) flows: Array<Bucket>,
    pub(crate) cold: Array<ColdFlow>,
    ports: Array<Port>,
    elsewhere: Array<Elsewhere>,
    tunnels: tunnel::Tunnels,
    names: Array<[u8; NAME_LEN]>,
    port_near: Array<NearPort>,
    port_of: OwnedFd,
    tx: OwnedFd,
    tx_value: usize,
    pub(crate) reasons: OwnedFd,
    pub(crate) target_stats: OwnedFd,
    pub(crate) service_stats: OwnedFd,
    pub(crate) events: OwnedFd,
    clock: Option<Clock>,
    pending: Mutex<tables::Pending>,
}

impl Maps {
    /// Opens the pinned maps for reading. Needs neither the daemon nor the eBPF object.
    pub fn open_pinned(instance: &Instance) -> Result<Self> {
        Self::open_with_clock(instance, Access::Read)
    }

    /// Opens the pinned maps for the few verbs that write without the daemon (`bypass`).
    pub fn open_pinned_writable(instance: &Instance) -> Result<Self> {
        Self::open_with_clock(instance, Access::Write)
    }

    fn open_with_clock(instance: &Instance, access: Access) -> Result<Self> {
        let mut maps = Self::open(instance, access, None)?;
        maps.clock = Clock::open_pinned(instance, maps.rate()?).ok();
        Ok(maps)
    }

    pub(crate) fn open(instance: &Instance, access: Access, clock: Option<Clock>) -> Result<Self> {
        let write = access == Access::Write;
        macro_rules! array {
            ($name:literal) => {
                Array::new($name, &instance.open_map($name)?, write)?
            };
        }
        let control: Array<Control> = array!("control");
        match control.get(0)?.abi {
            ABI_VERSION => {}
            0 => return Err(Error::NotLoaded(instance.dir())),
            found => return Err(Error::Abi { found, expected: ABI_VERSION }),
        }
        let tx = instance.open_map("tx")?;
        let tx_value =
            sys::map_info(&tx).map_err(Error::io("reading the shape of map tx"))?.value_size as usize;
        Ok(Self {
            control,
            absent: instance.open_map("absent")?,
            addresses: array!("addresses"),
            more_rules: array!("more_rules"),
            backs: array!("backs"),
            services: array!("services"),
            members: array!("members"),
            targets: Arc::new(Words::new(array!("targets"))),
            weights: array!("weights"),
            live: array!("live"),
            responses: array!("responses"),
            queue_ports: instance.open_map("queue_ports")?,
            cpus: Cpus::open_pinned(instance),
            depth: live::open_pinned(instance),
            slots: array!("slots"),
            flows: array!("flows"),
            cold: array!("flows_cold"),
            ports: array!("ports"),
            elsewhere: array!("elsewhere"),
            tunnels: tunnel::Tunnels::open(instance)?,
            names: array!("names"),
            port_near: array!("port_near"),
            port_of: instance.open_map("port_of")?,
            tx,
            tx_value,
            reasons: instance.open_map("reasons")?,
            target_stats: instance.open_map("target_stats")?,
            service_stats: instance.open_map("service_stats")?,
            events: instance.open_map("events")?,
            clock,
            pending: Mutex::default(),
        })
    }

    /// The control block.
    pub fn control(&self) -> Result<Control> {
        self.control.get(0)
    }

    /// Jiffies per second and per epoch, as measured at load.
    pub fn rate(&self) -> Result<Rate> {
        let control = self.control()?;
        Ok(Rate { hz: control.hz, shift: control.epoch_shift })
    }

    /// The kernel's clock; absent only if its program is not pinned.
    pub fn clock(&self) -> Result<&Clock> {
        self.clock.as_ref().ok_or(Error::Clock("lbx_clock is not pinned"))
    }

    /// Slots of the flow table: the flows it holds when there is not one more place.
    pub fn flow_capacity(&self) -> u64 {
        u64::from(self.flows.len()) * u64::from(WAYS)
    }

    /// Slots of the pool of tables.
    pub fn table_pool(&self) -> u32 {
        self.slots.len() * 2
    }

    /// Sets or clears one of [`flags`] with one store.
    fn set_flag(&self, flag: u32, on: bool) -> Result<()> {
        let word = self.control.word32(0, 0)?;
        if on {
            word.fetch_or(flag, Ordering::Release);
        } else {
            word.fetch_and(!flag, Ordering::Release);
        }
        Ok(())
    }

    /// Every packet passes as it came (or no longer).
    pub fn set_bypass(&self, on: bool) -> Result<()> {
        self.set_flag(flags::BYPASS, on)
    }

    /// Verdicts are computed and counted, packets pass (or no longer).
    pub fn set_observe(&self, on: bool) -> Result<()> {
        self.set_flag(flags::OBSERVE, on)
    }

    /// A target.
    pub fn target(&self, index: u32) -> Result<Target> {
        self.targets.targets.get(index)
    }

    /// Number of target entries.
    pub fn max_targets(&self) -> u32 {
        self.targets.targets.len()
    }

    /// Flips a target's state: one store.
    pub fn set_state(&self, index: u32, state: StateWord) -> Result<()> {
        self.targets.set_state(index, state)
    }

    /// The way past the writer, for monitors.
    pub fn flips(&self) -> Result<Flips> {
        Ok(Flips::new(self.targets.clone(), self.clock()?.try_clone()?))
    }

    /// Writes a target. If the index passes to another target (another generation), it is down meanwhile.
    pub fn write_target(&self, index: u32, target: &Target) -> Result<()> {
        self.targets.write_target(index, target)
    }

    /// The weight of a queue of a target.
    pub fn weight(&self, target: u32, queue: u32) -> Result<Weight> {
        self.weights.get(weight_index(target, queue))
    }

    /// Writes it.
    pub fn write_weight(&self, target: u32, queue: u32, weight: Weight) -> Result<()> {
        self.weights.set(weight_index(target, queue), &weight)
    }

    /// Writes the idle times.
    pub fn write_idle(&self, idle: IdleLimits) -> Result<()> {
        const WORD: usize = std::mem::offset_of!(Control, idle) / 8;
        self.control.word64(0, WORD)?.store(bytemuck::cast(idle), Ordering::Release);
        Ok(())
    }

    /// Writes after how many epochs a client's MAC is shown to the bridge again.
    pub fn write_learn(&self, epochs: u16) -> Result<()> {
        // The word also holds reserved fields, which are 0.
        const WORD: usize = std::mem::offset_of!(Control, learn_epochs) / 8;
        const { assert!(std::mem::offset_of!(Control, learn_epochs) % 8 == 0) };
        let word = [epochs, 0, 0, 0];
        self.control.word64(0, WORD)?.store(bytemuck::cast(word), Ordering::Release);
        Ok(())
    }

    /// A place for the flows of moved targets.
    pub fn elsewhere(&self, index: u32) -> Result<Elsewhere> {
        self.elsewhere.get(index)
    }

    /// Writes one; no target may name it yet.
    pub fn write_elsewhere(&self, index: u32, place: &Elsewhere) -> Result<()> {
        self.elsewhere.set(index, place)
    }

    /// A port.
    pub fn port(&self, index: u32) -> Result<Port> {
        self.ports.get(index)
    }

    /// Number of port entries.
    pub fn max_ports(&self) -> u32 {
        self.ports.len()
    }

    /// Writes a port, and makes its interface reachable by index and by redirect; an `ifindex` of 0 frees it.
    pub fn write_port(&self, index: u32, port: &Port) -> Result<()> {
        let before = self.ports.get(index)?;
        if before.ifindex != 0 && before.ifindex != port.ifindex {
            self.forget_device(index, before.ifindex)?;
        }
        self.ports.set(index, port)?;
        if port.ifindex == 0 {
            return Ok(());
        }
        let mut value = vec![0; self.tx_value];
        value[..4].copy_from_slice(&port.ifindex.to_ne_bytes());
        sys::update(&self.tx, &index.to_ne_bytes(), &value)
            .map_err(Error::io(format!("entering interface {} into tx", port.ifindex)))?;
        sys::update(&self.port_of, &port.ifindex.to_ne_bytes(), &index.to_ne_bytes())
            .map_err(Error::io(format!("entering interface {} into port_of", port.ifindex)))?;
        // Of two interfaces with the same low bits the last has the place; the other is found in `port_of`.
        self.near(port.ifindex)?.store(NearPort::new(port.ifindex, index).0, Ordering::Release);
        Ok(())
    }

    fn forget_device(&self, index: u32, ifindex: u32) -> Result<()> {
        // The devmap empties itself when a device goes.
        sys::delete(&self.tx, &index.to_ne_bytes()).map_err(Error::io("clearing tx"))?;
        let near = self.near(ifindex)?;
        let _ =
            near.compare_exchange(NearPort::new(ifindex, index).0, 0, Ordering::AcqRel, Ordering::Relaxed);
        if self.port_of(ifindex)? == Some(index) {
            sys::delete(&self.port_of, &ifindex.to_ne_bytes()).map_err(Error::io("clearing port_of"))?;
        }
        Ok(())
    }

    fn near(&self, ifindex: u32) -> Result<&AtomicU64> {
        self.port_near.word64(NearPort::place(ifindex), 0)
    }

    /// Index of an interface's port.
    pub fn port_of(&self, ifindex: u32) -> Result<Option<u32>> {
        port_of(&self.port_of, ifindex)
    }

    /// Name of a service, for readers without the daemon.
    pub fn service_name(&self, service: u32) -> Result<String> {
        Ok(text(&self.names.get(service)?))
    }

    /// Name of a target, for readers without the daemon.
    pub fn target_name(&self, target: u32) -> Result<String> {
        Ok(text(&self.names.get(MAX_SERVICES + target)?))
    }

    /// Writes the name of a service, cut to 63 bytes.
    pub fn write_service_name(&self, service: u32, name: &str) -> Result<()> {
        self.names.set(service, &padded(name))
    }

    /// Writes the name of a target, cut to 63 bytes.
    pub fn write_target_name(&self, target: u32, name: &str) -> Result<()> {
        self.names.set(MAX_SERVICES + target, &padded(name))
    }
}

/// Looks an interface up.
pub(crate) fn port_of(map: &OwnedFd, ifindex: u32) -> Result<Option<u32>> {
    let mut index = [0; 4];
    let found = sys::lookup(map, &ifindex.to_ne_bytes(), &mut index).map_err(Error::io("reading port_of"))?;
    Ok(found.then(|| u32::from_ne_bytes(index)))
}

fn padded(name: &str) -> [u8; NAME_LEN] {
    let mut end = name.len().min(NAME_LEN - 1);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let mut bytes = [0; NAME_LEN];
    bytes[..end].copy_from_slice(&name.as_bytes()[..end]);
    bytes
}

fn text(bytes: &[u8; NAME_LEN]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(NAME_LEN);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_at_characters() {
        assert_eq!(text(&padded("web-1")), "web-1");
        let long = "ü".repeat(40);
        assert_eq!(text(&padded(&long)), "ü".repeat(31));
    }
}
