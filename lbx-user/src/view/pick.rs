//! Power of two choices, predicted: the same comparison (lbx-ebpf's `steps/pick.rs`) over what is there now.

use lbx_common::flow::TargetWord;
use lbx_common::key;
use lbx_common::limits::REHASHES;
use lbx_common::steer::fate::{self, Choice};
use lbx_common::steer::pick::{ASKED, Load, is_same_place, second_is_shorter};

use super::{Result, Served, View};

/// What the choice comes to.
pub(super) struct Picked {
    /// Who gets the flow.
    pub word: TargetWord,
    /// Both candidates and their queues, in words.
    pub text: String,
}

impl View<'_> {
    /// Chooses between `first`, which the table selects, and the second candidate.
    pub(super) fn pick(
        &self,
        service: &Served,
        hash: u64,
        ingress: u32,
        first: TargetWord,
    ) -> Result<Picked> {
        let Some(second) = self.second(service, hash, ingress, first)? else {
            let text = format!("p2c: no other target than {} takes a new flow", self.called(first));
            return Ok(Picked { word: first, text });
        };
        let loads = [self.load(first)?, self.load(second)?];
        let shorter = second_is_shorter(&loads[0], &loads[1]);
        let word = if shorter { second } else { first };
        let [a, b] = [(first, loads[0]), (second, loads[1])].map(|(word, load)| {
            let frames = load.depth.map_or("depth not known".to_owned(), |n| format!("{n} frames wait"));
            format!("{} ({frames}, {} open flows, weight {})", self.called(word), load.open, load.weight)
        });
        let text = format!(
            "p2c: {a} or {b}: {} is {}",
            self.called(word),
            if shorter { "shorter" } else { "first and not longer" }
        );
        Ok(Picked { word, text })
    }

    fn called(&self, word: TargetWord) -> &str {
        self.target_at(word.target(), word.generation()).map_or("nobody", |target| target.name.as_str())
    }

    fn load(&self, word: TargetWord) -> Result<Load> {
        Ok(Load {
            depth: self.maps.depth(word)?,
            open: self.maps.live(word.target(), word.queue())?.open(),
            weight: self.maps.weight(word.target(), word.queue().into())?.weight,
        })
    }

    /// The next slots of the flow that name another target, then a few members in order.
    fn second(
        &self,
        service: &Served,
        hash: u64,
        ingress: u32,
        first: TargetWord,
    ) -> Result<Option<TargetWord>> {
        let table = self.maps.table(crate::datapath::table_of(&service.entry))?;
        let takes = |word: TargetWord| {
            let target = self.read(word.target()).filter(|target| fate::is_same(target, word));
            target.is_some_and(|target| {
                !is_same_place(first, word, &target)
                    && fate::choice(&target, self.now, ingress) == Choice::Takes
            })
        };
        // Slots before the first candidate's name nobody who takes the flow: they may be asked again.
        let hashes = (0..=REHASHES).map(|n| if n == 0 { hash } else { key::rehash(hash, n) });
        let slots = hashes.filter_map(|h| table.get(key::slot(h, table.len() as u32) as usize).copied());
        if let Some(word) = slots.into_iter().find(|word| takes(*word)) {
            return Ok(Some(word));
        }
        let members = self.maps.members(crate::datapath::members_of(&service.entry))?;
        let start = key::slot(key::rehash(hash, REHASHES + 1), members.len() as u32) as usize;
        let (before, after) = members.split_at(start.min(members.len()));
        let in_order = after.iter().chain(before).take(ASKED as usize);
        let words = in_order
            .filter_map(|index| Some(TargetWord::new(*index as u16, 0, self.read(*index)?.generation)));
        Ok(words.into_iter().find(|word| takes(*word)))
    }
}
