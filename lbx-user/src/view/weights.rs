//! Weights, tables, shares.

use lbx_common::flow::TargetWord;

use super::report::target_counters;
use super::{Placed, Result, Served, View, part};
use crate::api::model::{QueueWeight, Step, Table, WeightRow, Weights, WhyWeight};
use crate::datapath;

/// A table's words in their order: how many of each there are is found without a map of 65,537 lookups, which the
/// daemon's other work would wait for.
struct Slots(Vec<u32>);

impl Slots {
    fn new(table: &[TargetWord]) -> Self {
        let mut words: Vec<u32> = table.iter().map(|word| word.0).collect();
        words.sort_unstable();
        Self(words)
    }

    fn of(&self, target: &Placed, queue: u8) -> u32 {
        self.count(TargetWord::new(target.index, queue, target.entry.generation))
    }

    fn count(&self, word: TargetWord) -> u32 {
        let below = |end: u64| self.0.partition_point(|one| u64::from(*one) < end);
        (below(u64::from(word.0) + 1) - below(word.0.into())) as u32
    }

    fn size(&self) -> u32 {
        self.0.len() as u32
    }
}

impl View<'_> {
    /// Weights in force, and the tables that follow from them.
    ///
    /// # Errors
    /// The maps could not be read.
    pub fn weights(&self) -> Result<Weights> {
        let counters = self.counters()?;
        let mut weights = Weights::default();
        for service in &self.services {
            let slots = self.slots(service)?;
            weights.tables.push(Table { service: service.name.clone(), size: slots.size(), repair: None });
            let mut sums = (0, 0);
            for target in self.targets_of(service.index) {
                if self.state(target).0.takes_new() {
                    sums.0 += self.weight(target)?.0;
                }
                sums.1 += target_counters(target, &counters).flows;
            }
            for target in self.targets_of(service.index) {
                weights.weights.push(self.weight_row(service, target, &slots, sums, &counters)?);
            }
        }
        Ok(weights)
    }

    /// `sums`: weights of the service's active targets, and new flows of all of them.
    fn weight_row(
        &self,
        service: &Served,
        target: &Placed,
        slots: &Slots,
        sums: (u64, u64),
        counters: &datapath::Counters,
    ) -> Result<WeightRow> {
        let (weight, configured) = self.weight(target)?;
        let state = self.state(target).0;
        let mut queues = Vec::new();
        for queue in 0..target.entry.queues {
            let own = self.maps.weight(target.index.into(), queue.into())?;
            let (weight, configured) = (own.weight, own.configured);
            queues.push(QueueWeight { queue, weight, configured, slots: slots.of(target, queue) });
        }
        let held: u32 = queues.iter().map(|queue| queue.slots).sum();
        let flows = target_counters(target, counters).flows;
        Ok(WeightRow {
            service: service.name.clone(),
            target: target.short().to_owned(),
            state: state.name().to_owned(),
            weight,
            configured,
            scale: None,
            wished: None,
            held: None,
            overridden: false,
            share: if state.takes_new() { part(weight, sums.0) } else { 0.0 },
            slots: held,
            table_share: part(held.into(), slots.size().into()),
            flows,
            flow_share: part(flows, sums.1),
            queues,
        })
    }

    fn slots(&self, service: &Served) -> Result<Slots> {
        let table = self.maps.table(datapath::table_of(&service.entry))?;
        Ok(Slots::new(&table))
    }

    /// Why a target has the share it has.
    ///
    /// # Errors
    /// The name fits no target or several, or the maps could not be read.
    pub fn why_weight(&self, name: &str) -> Result<WhyWeight> {
        let placed = self.find_target(name)?;
        let full = placed.name.clone();
        let weights = self.weights()?;
        let service = self.service_name(placed.entry.service).unwrap_or_default();
        let own = |row: &&WeightRow| row.service == service;
        let Some(row) = weights.weights.iter().filter(own).find(|row| row.target == placed.short()) else {
            return Ok(WhyWeight { target: full, ..WhyWeight::default() });
        };
        let size = weights.tables.iter().find(|table| table.service == service).map_or(0, |table| table.size);
        let active = weights.weights.iter().filter(own).filter(|row| row.share > 0.0).count();
        let mut why = WhyWeight {
            target: full,
            configured: row.configured,
            weight: row.weight,
            state: row.state.clone(),
            share: row.share,
            slots: row.slots,
            table_size: size,
            table_share: row.table_share,
            flow_share: row.flow_share,
            ..WhyWeight::default()
        };
        let mut step = |step: &str, text: String| why.steps.push(Step { step: step.to_owned(), text });
        step("configured", format!("weight {} in the config, over all queues", row.configured));
        if row.weight == row.configured {
            step("weight", format!("{} in force", row.weight));
        } else {
            step("weight", format!("{} in force instead", row.weight));
        }
        let percent = |share: f64| format!("{:.2} %", share * 100.0);
        if row.share > 0.0 {
            let of = percent(row.share);
            step("share", format!("{of} of the weights of {active} active targets of {service}"));
        } else if row.weight > 0 {
            step("share", format!("none: the target is {}", row.state));
        } else {
            step("share", "none: its weight is 0".to_owned());
        }
        step("table", format!("{} of {size} slots, {}", row.slots, percent(row.table_share)));
        if row.slots > 0 && row.share == 0.0 {
            step("table", "flows of these slots are hashed again, to targets that take them".to_owned());
        }
        step(
            "flows",
            format!("{} new flows so far, {} of the service's", row.flows, percent(row.flow_share)),
        );
        Ok(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_is_counted_once() {
        let table = [5, 0, u32::MAX, 5, 7, 5, u32::MAX].map(TargetWord);
        let slots = Slots::new(&table);
        let counts = [0, 5, 6, 7, u32::MAX].map(|word| slots.count(TargetWord(word)));
        assert_eq!((counts, slots.size()), ([1, 3, 0, 1, 2], 7));
        assert_eq!(Slots::new(&[]).count(TargetWord(0)), 0);
    }
}
