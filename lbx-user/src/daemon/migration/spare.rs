//! Never zero targets: who keeps its new flows although its VM migrates.

use std::collections::{BTreeMap, BTreeSet};

use lbx_common::migration::Want;
use lbx_common::target::State;

use crate::config::Config;
use crate::control::wishes::WishBook;

/// What is wanted of one target.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub want: Want,
    /// What it comes to when its blackhole ends by itself.
    pub falls_back: State,
    /// It may go on if it is the last.
    pub spared: bool,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { want: Want::Nothing, falls_back: State::Active, spared: false }
    }
}

/// Never zero targets: where only migration keeps the last ones of a service from taking new flows, it does not.
pub(super) fn spare_the_last(
    config: &Config,
    book: &WishBook,
    wants: &mut BTreeMap<String, Wanted>,
) -> BTreeSet<String> {
    let mut spared = BTreeSet::new();
    for service in &config.services {
        let names: Vec<String> =
            service.targets.iter().map(|target| format!("{}/{}", service.name, target.name())).collect();
        let takes = |name: &String, want| book.effective_if(name, want).state == State::Active;
        if names.iter().any(|name| takes(name, wants.get(name).copied().unwrap_or_default().want)) {
            continue;
        }
        for name in names {
            let before = wants.get(&name).copied().unwrap_or_default();
            let after = match before.want {
                Want::Drain(0) if before.spared && takes(&name, Want::Nothing) => {
                    spared.insert(name.clone());
                    Wanted { want: Want::Nothing, ..before }
                }
                // When its blackhole ends by itself, it is all that there is.
                Want::Blackhole if before.falls_back == State::Draining => {
                    Wanted { falls_back: State::Active, ..before }
                }
                _ => continue,
            };
            wants.insert(name, after);
        }
    }
    spared
}
