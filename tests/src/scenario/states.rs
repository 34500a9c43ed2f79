//! What the kernel makes of a target from one moment to the next: its state as the maps have it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use lbx_common::target::State;
use lbx_user::control::{Names, map_name};
use lbx_user::datapath::{Instance, Maps};

use crate::lab::Lbx;
use crate::lab::migrate::now;

/// How often it is looked at: a pause of a VM that migrates is tens of milliseconds.
const EVERY: Duration = Duration::from_millis(1);

/// A state, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Microseconds since the epoch.
    pub at: u64,
    /// What the kernel does with packets, deadlines included.
    pub state: State,
}

/// Looks at a target in the background. Needs no daemon: the maps are pinned.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Seen>>>,
}

impl Watch {
    /// Begins to look at a target (by its full name) of a host.
    pub fn start(lbx: &Lbx, target: &str) -> Result<Self> {
        let maps = Maps::open_pinned(&Instance::new(Some(&lbx.instance))?)?;
        let index = index(&maps, target)?;
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut seen: Vec<Seen> = Vec::new();
            loop {
                let last = theirs.load(Ordering::SeqCst);
                let (state, _) = maps.target(index)?.state.at(maps.clock()?.jiffies_now()?);
                if seen.last().is_none_or(|before| before.state != state) {
                    seen.push(Seen { at: now(), state });
                }
                if last {
                    return Ok(seen);
                }
                thread::sleep(EVERY);
            }
        });
        Ok(Self { stop, thread })
    }

    /// Ends it; what was seen, each state once until the next.
    pub fn stop(self) -> Result<Vec<Seen>> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().map_err(|_| anyhow!("the thread that looks at a target panicked"))?
    }
}

/// The state of a target now.
pub fn state(lbx: &Lbx, target: &str) -> Result<State> {
    let maps = Maps::open_pinned(&Instance::new(Some(&lbx.instance))?)?;
    let (state, _) = maps.target(index(&maps, target)?)?.state.at(maps.clock()?.jiffies_now()?);
    Ok(state)
}

fn index(maps: &Maps, target: &str) -> Result<u32> {
    let names = Names::adopt(&maps)?;
    let index = names.targets.get(&map_name(target));
    Ok(u32::from(*index.with_context(|| format!("no target {target} in the maps"))?))
}

/// How many of `wanted` were seen in that order, whatever was seen in between.
pub fn in_order(seen: &[Seen], wanted: &[State]) -> usize {
    let mut seen = seen.iter();
    wanted.iter().take_while(|state| seen.any(|one| one.state == **state)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_counts_up_to_what_is_missing() {
        let states = [State::Active, State::Draining, State::Blackholed, State::Active];
        let seen = states.map(|state| Seen { at: 0, state });
        assert_eq!(in_order(&seen, &[State::Draining, State::Blackholed]), 2);
        assert_eq!(in_order(&seen, &[State::Blackholed, State::Draining]), 1);
        assert_eq!(in_order(&seen, &[State::Moved, State::Active]), 0);
    }
}
