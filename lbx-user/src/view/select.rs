//! The datapath's selection, predicted: the same functions over the same maps (lbx-ebpf's `steps/open.rs`).

use lbx_common::flow::TargetWord;
use lbx_common::key;
use lbx_common::limits::{MAX_SERVICE_TARGETS, REHASHES};
use lbx_common::steer::fate::{self, Choice};
use lbx_common::target::Target;

use super::{Result, Served, View};

/// What a first packet would select.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Selected {
    /// The slot its hash selects; nothing without a table.
    pub slot: Option<u32>,
    /// What stands in that slot.
    pub first: Option<TargetWord>,
    /// How often it was hashed again.
    pub rehashes: u32,
    /// It was found by walking the members.
    pub walked: bool,
    /// What it comes to; `None`: no target takes it.
    pub word: Option<TargetWord>,
    /// The only targets left are behind the port it came in by.
    pub only_itself: bool,
    /// A target that would take it, if it were not blackholed.
    pub paused: Option<u32>,
}

impl Selected {
    /// Notes what a target said that did not take it.
    fn refused(&mut self, index: u32, choice: Choice) {
        match choice {
            Choice::Paused => self.paused = Some(index),
            Choice::Returns => self.only_itself = true,
            Choice::Takes | Choice::Closed => {}
        }
    }
}

impl View<'_> {
    /// Selects as a first packet from port `ingress` would. The targets are read anew: what is predicted is
    /// what holds now.
    pub(super) fn select(&self, service: &Served, hash: u64, ingress: u32) -> Result<Selected> {
        let entry = &service.entry;
        let table = self.maps.table(crate::datapath::table_of(entry))?;
        let len = table.len() as u32;
        let mut selected = Selected::default();
        if len > 0 {
            for n in 0..=REHASHES {
                let h = if n == 0 { hash } else { key::rehash(hash, n) };
                let slot = key::slot(h, len);
                let Some(word) = table.get(slot as usize).copied() else { break };
                if n == 0 {
                    (selected.slot, selected.first) = (Some(slot), Some(word));
                }
                selected.rehashes = n;
                if let Some(target) = self.read(word.target()).filter(|target| fate::is_same(target, word)) {
                    let choice = fate::choice(&target, self.now, ingress);
                    if choice == Choice::Takes {
                        selected.word = Some(word);
                        return Ok(selected);
                    }
                    selected.refused(word.target(), choice);
                }
            }
        }
        let rounds = if len == 0 { 0 } else { REHASHES + 1 };
        let members = self.maps.members(crate::datapath::members_of(entry))?;
        let start = key::slot(key::rehash(hash, rounds), members.len() as u32) as usize;
        let (before, after) = members.split_at(start.min(members.len()));
        for index in after.iter().chain(before).take(MAX_SERVICE_TARGETS as usize).copied() {
            let Some(target) = self.read(index) else { continue };
            let choice = fate::choice(&target, self.now, ingress);
            if choice == Choice::Takes {
                selected.walked = true;
                selected.word = Some(TargetWord::new(index as u16, 0, target.generation));
                return Ok(selected);
            }
            selected.refused(index, choice);
        }
        Ok(selected)
    }

    pub(super) fn read(&self, index: u32) -> Option<Target> {
        self.maps.target(index).ok()
    }
}
