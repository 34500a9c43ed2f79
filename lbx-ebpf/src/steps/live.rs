//! Open flows by target and queue: as many as there are records with the mark [`flags::COUNTED`].
//!
//! [`flags::COUNTED`]: lbx_common::flow::flags::COUNTED

use crate::atomic;
use crate::maps::LIVE;
use lbx_common::flow::TargetWord;
use lbx_common::live::{Live, index};

/// What is known of a queue of a target.
#[inline(always)]
pub fn live(word: TargetWord) -> Option<Live> {
    let at = LIVE.get_ptr(index(word.target(), word.queue()))?;
    // SAFETY: a non-null value pointer of an array map, read as a copy of aligned words; no two of them need to agree.
    Some(unsafe { *at })
}

/// A flow with the mark was recorded.
#[inline(always)]
pub fn began(word: TargetWord) {
    add(word, 1);
}

/// A record lost the mark, or was freed, or given to another flow.
#[inline(always)]
pub fn ended(word: TargetWord) {
    add(word, -1);
}

#[inline(always)]
fn add(word: TargetWord, n: i64) {
    if let Some(at) = LIVE.get_ptr_mut(index(word.target(), word.queue())) {
        // SAFETY: a non-null value pointer of an array map, whose words are aligned.
        unsafe { atomic::add((&raw mut (*at).held).cast(), n) };
    }
}
