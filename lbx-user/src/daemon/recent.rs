//! The last sampled events: taken from the kernel's ring once a second, kept for whoever asks.

use std::collections::VecDeque;

use lbx_common::event::Event;

use crate::api::model::Sampled;
use crate::datapath::{Events, Maps};
use crate::view::View;

/// How many are kept.
const KEPT: usize = 256;
/// How many are taken at a time: what a second brings on a large machine, and the ring's size at most.
const AT_ONCE: usize = 4096;

/// The last events, and where more come from.
#[derive(Default)]
pub struct Recent {
    ring: Option<Events>,
    events: VecDeque<Event>,
}

impl Recent {
    /// Takes what the programs sent. Without a ring there is nothing to show, and nothing else suffers.
    pub fn take(&mut self, maps: &Maps) {
        if self.ring.is_none() {
            match maps.events() {
                Ok(ring) => self.ring = Some(ring),
                Err(error) => {
                    tracing::debug!("{error}");
                    return;
                }
            }
        }
        let Some(ring) = &mut self.ring else { return };
        for _ in 0..AT_ONCE {
            let Some(event) = ring.next_event() else { break };
            if self.events.len() == KEPT {
                self.events.pop_front();
            }
            self.events.push_back(event);
        }
    }

    /// What is kept, the oldest first.
    pub fn show(&self, view: &View<'_>) -> Vec<Sampled> {
        self.events.iter().filter_map(|event| view.sampled(event)).collect()
    }
}
