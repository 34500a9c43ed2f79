//! Flipping the address table from one generation to the other.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use lbx_common::control::AddressSelect;
use lbx_common::limits::ADDRESS_SLOTS;
use lbx_common::service::{AddressEntry, Back, Rule, rule_flags};

use super::addresses::{self, Image, Lines, Placed};
use super::reconcile::{Pass, Reconciler};
use super::store::Store;

impl Reconciler {
    /// Puts the addresses in force: nothing to do if they already are, else the generation that is not in
    /// force is written in full and selected with one store.
    pub(super) fn put_addresses<S: Store>(
        &mut self,
        pass: &mut Pass<'_, S>,
        placed: &[Placed<'_>],
    ) -> Result<()> {
        let lines = addresses::lines(placed)?;
        if self.lines.as_ref() == Some(&lines) {
            return Ok(());
        }
        let store = &mut *pass.store;
        let select = store.control()?.addresses;
        let half = store.sizes().more_rules / 2;
        let (now, later) = if select.base() == 0 { (0, 1) } else { (1, 0) };
        let backs = Backs::adopt(store, select)?.assign(store, &lines)?;

        // The same places as now: is what stands there already what it should be?
        let same = addresses::place(&lines, select.seed(), (now * half) as u16, half, &backs)?;
        if same.seed == select.seed() && stands(store, select.base(), &same)? {
            self.lines = Some(lines);
            return Ok(());
        }
        let image = addresses::place(&lines, select.seed(), (later * half) as u16, half, &backs)?;
        for (back, index) in lines.backs.iter().zip(&backs) {
            if store.back(*index)? != *back {
                store.put_back(*index, back)?;
            }
        }
        for (n, rule) in image.more.iter().enumerate() {
            store.put_more_rule(image.more_base + n as u16, rule)?;
        }
        let base = later * ADDRESS_SLOTS;
        let entries: BTreeMap<u32, AddressEntry> = image.entries.iter().copied().collect();
        for slot in 0..ADDRESS_SLOTS {
            let entry = entries.get(&slot).copied().unwrap_or_default();
            if store.address(base + slot)? != entry {
                store.put_address(base + slot, &entry)?;
            }
        }
        store.select_addresses(AddressSelect::new(image.seed, base))?;
        pass.changes.push(format!("address table: {} addresses in force", image.entries.len()));
        self.lines = Some(lines);
        Ok(())
    }
}

fn stands(store: &impl Store, base: u32, image: &Image) -> Result<bool> {
    let entries: BTreeMap<u32, AddressEntry> = image.entries.iter().copied().collect();
    for slot in 0..ADDRESS_SLOTS {
        if store.address(base + slot)? != entries.get(&slot).copied().unwrap_or_default() {
            return Ok(false);
        }
    }
    for (n, rule) in image.more.iter().enumerate() {
        if store.more_rule(image.more_base + n as u16)? != *rule {
            return Ok(false);
        }
    }
    Ok(true)
}

/// All rules of an entry: its own, then the overflow.
pub fn rules_of(store: &impl Store, entry: &AddressEntry) -> Result<Vec<Rule>> {
    let mut rules: Vec<Rule> = entry.rules.iter().copied().filter(|rule| rule.protocol != 0).collect();
    for n in 0..entry.more_count {
        rules.push(store.more_rule(entry.more_first + n)?);
    }
    Ok(rules)
}

/// The ways back in force: an index in use is never written with another content.
struct Backs(BTreeMap<u16, Back>);

impl Backs {
    fn adopt(store: &impl Store, select: AddressSelect) -> Result<Self> {
        let mut used = BTreeMap::new();
        for slot in 0..ADDRESS_SLOTS {
            let entry = store.address(select.base() + slot)?;
            if entry.addr.is_unspecified() {
                continue;
            }
            for rule in rules_of(store, &entry)? {
                if rule.flags & rule_flags::BACK != 0 {
                    used.insert(rule.index, store.back(rule.index)?);
                }
            }
        }
        Ok(Self(used))
    }

    /// An index for every way back of the lines.
    fn assign(&self, store: &impl Store, lines: &Lines) -> Result<Vec<u16>> {
        let mut free = (0..store.sizes().backs as u16).filter(|index| !self.0.contains_key(index));
        let mut taken = std::collections::BTreeSet::new();
        lines
            .backs
            .iter()
            .map(|back| {
                let known = self.0.iter().find(|(index, known)| *known == back && !taken.contains(*index));
                let index = match known {
                    Some((index, _)) => *index,
                    None => free.next().with_context(|| {
                        format!("there is room for {} ways back of nat targets", store.sizes().backs)
                    })?,
                };
                taken.insert(index);
                Ok(index)
            })
            .collect()
    }
}
