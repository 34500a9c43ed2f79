//! The maps with their types: everything user space reads from and writes to the datapath.

use super::clock::{Clock, Rate};
use super::error::{Error, Result};
use super::mmap::Array;
use super::pins::Instance;
use super::regions::{Region, first_fit};
use super::sys;
use bytemuck::Pod;
use lbx_common::addresses::{self, AddressSpec, Built};
use lbx_common::control::{AddressSelect, Control, flags};
use lbx_common::flow::{Bucket, ColdFlow, IdleLimits, TargetWord};
use lbx_common::limits::{ABI_VERSION, ADDRESS_SLOTS, MAX_SERVICES, NAME_LEN, WAYS};
use lbx_common::port::Port;
use lbx_common::service::{AddressEntry, Back, Rule, Service, address_slot};
use lbx_common::target::{State, StateWord, Target, Weight, weight_index};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What the maps are opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Looking only: what the CLI does without the daemon.
    Read,
    /// Writing: the daemon, and the few verbs that work without it.
    Write,
}

/// A program run takes microseconds; memory that no program can find any more is left alone for this long.
const GRACE: Duration = Duration::from_millis(10);

/// The open maps of an instance. All methods take `&self`; there is to be one writer.
pub struct Maps {
    pub(crate) control: Array<Control>,
    addresses: Array<AddressEntry>,
    more_rules: Array<Rule>,
    backs: Array<Back>,
    services: Array<Service>,
    members: Array<u32>,
    targets: Array<Target>,
    weights: Array<Weight>,
    slots: Array<[u32; 2]>,
    pub(crate) flows: Array<Bucket>,
    pub(crate) cold: Array<ColdFlow>,
    ports: Array<Port>,
    names: Array<[u8; NAME_LEN]>,
    port_of: OwnedFd,
    tx: OwnedFd,
    tx_value: usize,
    pub(crate) reasons: OwnedFd,
    pub(crate) target_stats: OwnedFd,
    pub(crate) service_stats: OwnedFd,
    pub(crate) events: OwnedFd,
    clock: Option<Clock>,
    pending: Mutex<Pending>,
}

/// What the writer has to remember between calls.
#[derive(Default)]
struct Pending {
    /// Regions written but not yet named by their service, or just given up: service, region, until when.
    slots: Vec<(u32, Region, Option<Instant>)>,
    members: Vec<(u32, Region, Option<Instant>)>,
    /// When the address table was flipped last.
    flipped: Option<Instant>,
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
            addresses: array!("addresses"),
            more_rules: array!("more_rules"),
            backs: array!("backs"),
            services: array!("services"),
            members: array!("members"),
            targets: array!("targets"),
            weights: array!("weights"),
            slots: array!("slots"),
            flows: array!("flows"),
            cold: array!("flows_cold"),
            ports: array!("ports"),
            names: array!("names"),
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

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Flows the table can hold.
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
        self.targets.get(index)
    }

    /// Number of target entries.
    pub fn max_targets(&self) -> u32 {
        self.targets.len()
    }

    /// Flips a target's state: one store.
    pub fn set_state(&self, index: u32, state: StateWord) -> Result<()> {
        self.targets.word64(index, 0)?.store(state.0, Ordering::Release);
        Ok(())
    }

    /// Writes a target. If the index passes to another target (another generation), it is down meanwhile.
    pub fn write_target(&self, index: u32, target: &Target) -> Result<()> {
        if self.targets.get(index)?.generation != target.generation {
            self.set_state(index, StateWord::new(State::Down))?;
        }
        self.targets.set(index, target)
    }

    /// The weight of a queue of a target.
    pub fn weight(&self, target: u32, queue: u32) -> Result<Weight> {
        self.weights.get(weight_index(target, queue))
    }

    /// Writes it.
    pub fn write_weight(&self, target: u32, queue: u32, weight: Weight) -> Result<()> {
        self.weights.set(weight_index(target, queue), &weight)
    }

    /// A service.
    pub fn service(&self, index: u32) -> Result<Service> {
        self.services.get(index)
    }

    /// Writes a service; its table and members must have been placed before. The word that names the table
    /// is stored last.
    pub fn write_service(&self, index: u32, service: &Service) -> Result<()> {
        let before = self.services.get(index)?;
        self.services.set(index, service)?;
        let mut pending = self.pending();
        let until = Some(Instant::now() + GRACE);
        settle(&mut pending.slots, index, table_of(&before), table_of(service), until);
        settle(&mut pending.members, index, members_of(&before), members_of(service), until);
        Ok(())
    }

    /// The table of a service.
    pub fn table(&self, region: Region) -> Result<Vec<TargetWord>> {
        (region.base..region.base + region.len).map(|at| Ok(TargetWord(self.slot(at)?))).collect()
    }

    fn slot(&self, at: u32) -> Result<u32> {
        let pair = self.slots.load64(at / 2, 0)?;
        let pair: [u32; 2] = bytemuck::cast(pair);
        Ok(pair[at as usize % 2])
    }

    /// Writes a table where it is, only the slots that differ. Answers how many did.
    pub fn write_table(&self, base: u32, table: &[TargetWord]) -> Result<u32> {
        let mut written = 0;
        for (at, word) in (base..).zip(table) {
            let place = self.slots.word32(at / 2, at as usize % 2)?;
            if place.load(Ordering::Relaxed) != word.0 {
                place.store(word.0, Ordering::Release);
                written += 1;
            }
        }
        Ok(written)
    }

    /// Puts a service's table in place: over the one it has if that is as long, else beside all others, to
    /// come into force when [`Self::write_service`] names it. Answers where, and how many slots were written.
    pub fn place_table(&self, service: u32, table: &[TargetWord]) -> Result<(Region, u32)> {
        let len = table.len() as u32;
        let now = table_of(&self.service(service)?);
        if now.len == len {
            return Ok((now, self.write_table(now.base, table)?));
        }
        let mut pending = self.pending();
        let mut used = self.in_use(&mut pending.slots, service, table_of)?;
        let Some(base) = first_fit(&mut used, self.table_pool(), len) else {
            let used = used.iter().map(|r| u64::from(r.len)).sum();
            return Err(Error::TablePool { len, used, pool: self.table_pool().into() });
        };
        let region = Region { base, len };
        pending.slots.push((service, region, None));
        drop(pending);
        Ok((region, self.write_table(base, table)?))
    }

    /// Target indices of a service.
    pub fn members(&self, region: Region) -> Result<Vec<u32>> {
        (region.base..region.base + region.len).map(|at| self.members.get(at)).collect()
    }

    /// Puts the target indices of a service in place, beside the ones it has unless they are the same.
    pub fn place_members(&self, service: u32, targets: &[u32]) -> Result<Region> {
        let len = targets.len() as u32;
        let now = members_of(&self.service(service)?);
        if now.len == len && self.members(now)? == targets {
            return Ok(now);
        }
        let mut pending = self.pending();
        let mut used = self.in_use(&mut pending.members, service, members_of)?;
        let Some(base) = first_fit(&mut used, self.members.len(), len) else {
            let used = used.iter().map(|r| u64::from(r.len)).sum();
            return Err(Error::TablePool { len, used, pool: self.members.len().into() });
        };
        let region = Region { base, len };
        pending.members.push((service, region, None));
        drop(pending);
        for (at, target) in (base..).zip(targets) {
            self.members.set(at, target)?;
        }
        Ok(region)
    }

    /// Regions that services name, are about to name, or named a moment ago. What `service` was about to name
    /// is given up: its writer starts over.
    fn in_use(
        &self,
        pending: &mut Vec<(u32, Region, Option<Instant>)>,
        service: u32,
        of: fn(&Service) -> Region,
    ) -> Result<Vec<Region>> {
        let now = Instant::now();
        pending.retain(|(of, _, until)| until.map_or(*of != service, |until| until > now));
        let mut used: Vec<Region> = pending.iter().map(|(_, region, _)| *region).collect();
        for index in 0..MAX_SERVICES {
            used.push(of(&self.service(index)?));
        }
        Ok(used)
    }

    /// Builds the address table and puts it in force with one store; answers whether it was another one.
    pub fn write_addresses(&self, specs: &[AddressSpec]) -> Result<bool> {
        const SELECT: usize = std::mem::offset_of!(Control, addresses) / 8;
        let mut pending = self.pending();
        let now = self.control()?.addresses;
        let half = now.base() / ADDRESS_SLOTS;
        let built = addresses::build(specs, half)?;
        if built.seed == now.seed() && self.stands(&built, half)? {
            return Ok(false);
        }
        let other = 1 - half.min(1);
        let built = addresses::build(specs, other)?;
        // A packet that was being looked up when the table was flipped last may still read the other half.
        if let Some(since) = pending.flipped.map(|at| at.elapsed())
            && since < GRACE
        {
            std::thread::sleep(GRACE.saturating_sub(since));
        }
        for (index, back) in (built.backs_base..).zip(&built.backs) {
            self.backs.set(index, back)?;
        }
        for (index, rule) in (built.rules_base..).zip(&built.more_rules) {
            self.more_rules.set(index, rule)?;
        }
        for (index, entry) in (other * ADDRESS_SLOTS..).zip(&built.entries) {
            self.addresses.set(index, entry)?;
        }
        let select = AddressSelect::new(built.seed, other * ADDRESS_SLOTS);
        self.control.word64(0, SELECT)?.store(select.0, Ordering::Release);
        pending.flipped = Some(Instant::now());
        Ok(true)
    }

    /// Whether a generation is what the maps hold.
    fn stands(&self, built: &Built, half: u32) -> Result<bool> {
        Ok(holds(&self.backs, built.backs_base, &built.backs)?
            && holds(&self.more_rules, built.rules_base, &built.more_rules)?
            && holds(&self.addresses, half * ADDRESS_SLOTS, &built.entries)?)
    }

    /// Writes the idle times.
    pub fn write_idle(&self, idle: IdleLimits) -> Result<()> {
        const WORD: usize = std::mem::offset_of!(Control, idle) / 8;
        self.control.word64(0, WORD)?.store(bytemuck::cast(idle), Ordering::Release);
        Ok(())
    }

    /// The entry of an address, if it is in the table in force.
    pub fn address(&self, addr: lbx_common::addr::Ip) -> Result<Option<AddressEntry>> {
        let select = self.control()?.addresses;
        let slot = address_slot(&addr, select.seed());
        let entry = self.addresses.get(select.base() + slot)?;
        Ok((entry.addr == addr).then_some(entry))
    }

    /// All entries of the address table in force.
    pub fn address_entries(&self) -> Result<Vec<AddressEntry>> {
        loop {
            let select = self.control()?.addresses;
            let all = (select.base()..select.base() + ADDRESS_SLOTS).map(|at| self.addresses.get(at));
            let entries: Vec<AddressEntry> = all.collect::<Result<_>>()?;
            // Flipped meanwhile: the half that was read may be being written again.
            if self.control()?.addresses == select {
                return Ok(entries.into_iter().filter(|entry| !entry.addr.is_unspecified()).collect());
            }
        }
    }

    /// All rules of an address.
    pub fn rules(&self, entry: &AddressEntry) -> Result<Vec<Rule>> {
        let mut rules: Vec<Rule> = entry.rules.iter().copied().take_while(|r| r.protocol != 0).collect();
        for index in 0..u32::from(entry.more_count) {
            rules.push(self.more_rules.get(u32::from(entry.more_first) + index)?);
        }
        Ok(rules)
    }

    /// A way back.
    pub fn back(&self, index: u32) -> Result<Back> {
        self.backs.get(index)
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
            .map_err(Error::io(format!("entering interface {} into port_of", port.ifindex)))
    }

    fn forget_device(&self, index: u32, ifindex: u32) -> Result<()> {
        // The devmap empties itself when a device goes.
        sys::delete(&self.tx, &index.to_ne_bytes()).map_err(Error::io("clearing tx"))?;
        if self.port_of(ifindex)? == Some(index) {
            sys::delete(&self.port_of, &ifindex.to_ne_bytes()).map_err(Error::io("clearing port_of"))?;
        }
        Ok(())
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

/// Where a service's table is.
pub fn table_of(service: &Service) -> Region {
    Region { base: service.table_base, len: service.table_len }
}

/// Where a service's targets are listed.
pub fn members_of(service: &Service) -> Region {
    Region { base: service.members_first, len: service.members.into() }
}

/// A service names another region: the new one needs no reservation any more, the old one a short one.
fn settle(
    pending: &mut Vec<(u32, Region, Option<Instant>)>,
    service: u32,
    before: Region,
    now: Region,
    until: Option<Instant>,
) {
    pending.retain(|(of, _, until)| *of != service || until.is_some());
    if before != now && before.len > 0 {
        pending.push((service, before, until));
    }
}

/// Whether an array holds these elements from `base` on.
fn holds<T: Pod + PartialEq>(array: &Array<T>, base: u32, wanted: &[T]) -> Result<bool> {
    for (index, element) in (base..).zip(wanted) {
        if array.get(index)? != *element {
            return Ok(false);
        }
    }
    Ok(true)
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

    #[test]
    fn a_region_given_up_stays_reserved_for_a_moment() {
        let (old, new) = (Region { base: 0, len: 5 }, Region { base: 5, len: 7 });
        let mut pending = vec![(3, new, None), (4, new, None)];
        let until = Some(Instant::now() + GRACE);
        settle(&mut pending, 3, old, new, until);
        assert_eq!(pending, [(4, new, None), (3, old, until)]);
    }
}
