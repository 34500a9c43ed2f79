//! Services with what they name: tables, members, addresses. Everything is written beside what is in force,
//! then named with one store.

use super::{Maps, absent};
use crate::datapath::error::{Error, Result};
use crate::datapath::mmap::Array;
use crate::datapath::regions::{Region, first_fit};
use bytemuck::Pod;
use lbx_common::addresses::{self, AddressSpec, Built};
use lbx_common::control::{Absent, AddressSelect, Control};
use lbx_common::flow::TargetWord;
use lbx_common::limits::{ADDRESS_SLOTS, MAX_SERVICES};
use lbx_common::service::{AddressEntry, Back, Rule, Service, address_slot};
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A program run takes microseconds; memory that no program can find any more is left alone for this long.
const GRACE: Duration = Duration::from_millis(10);

/// What the writer has to remember between calls.
#[derive(Default)]
pub(super) struct Pending {
    /// Regions written but not yet named by their service, or just given up: service, region, until when.
    slots: Vec<(u32, Region, Option<Instant>)>,
    members: Vec<(u32, Region, Option<Instant>)>,
    /// When the address table was flipped last.
    flipped: Option<Instant>,
}

impl Maps {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
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
        let (first, end) = (region.base / 2, (region.base + region.len).div_ceil(2));
        let mut slots = Vec::with_capacity(region.len as usize + 2);
        for at in first..end {
            let pair: [u32; 2] = bytemuck::cast(self.slots.load64(at, 0)?);
            slots.extend(pair.map(TargetWord));
        }
        // A table may begin and end in the middle of a pair.
        slots.drain(..(region.base % 2) as usize);
        slots.truncate(region.len as usize);
        Ok(slots)
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

    /// Writes single slots of a table in place.
    pub fn write_slots(&self, region: Region, slots: &[(u32, TargetWord)]) -> Result<()> {
        for (slot, word) in slots.iter().filter(|(slot, _)| *slot < region.len) {
            let at = region.base + slot;
            self.slots.word32(at / 2, at as usize % 2)?.store(word.0, Ordering::Release);
        }
        Ok(())
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
        let absent = Absent::of(specs.iter().map(|spec| spec.addr));
        let half = now.base() / ADDRESS_SLOTS;
        let built = addresses::build(specs, half)?;
        if built.seed == now.seed() && self.stands(&built, half)? {
            absent::write(&self.absent, absent)?;
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
        // No address of either generation may be missed while the one gives way to the other.
        absent::write(&self.absent, absent.and(absent::read(&self.absent)?))?;
        self.control.word64(0, SELECT)?.store(select.0, Ordering::Release);
        absent::write(&self.absent, absent)?;
        pending.flipped = Some(Instant::now());
        Ok(true)
    }

    /// Whether a generation is what the maps hold.
    fn stands(&self, built: &Built, half: u32) -> Result<bool> {
        Ok(holds(&self.backs, built.backs_base, &built.backs)?
            && holds(&self.more_rules, built.rules_base, &built.more_rules)?
            && holds(&self.addresses, half * ADDRESS_SLOTS, &built.entries)?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_given_up_stays_reserved_for_a_moment() {
        let (old, new) = (Region { base: 0, len: 5 }, Region { base: 5, len: 7 });
        let mut pending = vec![(3, new, None), (4, new, None)];
        let until = Some(Instant::now() + GRACE);
        settle(&mut pending, 3, old, new, until);
        assert_eq!(pending, [(4, new, None), (3, old, until)]);
    }
}
