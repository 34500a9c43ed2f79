//! Weights over time, read from the maps while somebody else makes the load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use lbx_user::control::{Names, map_name};
use lbx_user::datapath::{Instance, Maps};

/// From one look to the next.
const EVERY: Duration = Duration::from_millis(100);

/// Weights over configured weights at a moment.
#[derive(Debug, Clone)]
pub struct Weighed {
    /// From the start.
    pub at: Duration,
    /// In the order of the targets.
    pub factors: Vec<f64>,
}

/// A watch that runs until it is asked.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Weighed>>>,
}

impl Watch {
    /// Watches targets by their full names.
    ///
    /// # Errors
    /// No thread.
    pub fn start(instance: &str, targets: Vec<String>) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, instance) = (Arc::clone(&stop), instance.to_owned());
        let watch = move || {
            let maps = Maps::open_pinned(&Instance::new(Some(&instance))?)?;
            let names = Names::adopt(&&maps)?;
            let index = |name: &String| names.targets.get(&map_name(name)).copied().context("no such target");
            let indices: Vec<u16> = targets.iter().map(index).collect::<Result<_>>()?;
            let (start, mut seen) = (Instant::now(), Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                let factor = |index: &u16| -> Result<f64> {
                    let weight = maps.weight(u32::from(*index), 0)?;
                    Ok(f64::from(weight.weight) / f64::from(weight.configured.max(1)))
                };
                let factors = indices.iter().map(factor).collect::<Result<_>>()?;
                seen.push(Weighed { at: start.elapsed(), factors });
                sleep(EVERY);
            }
            Ok(seen)
        };
        Ok(Self { stop, thread: Builder::new().name("weights".into()).spawn(watch)? })
    }

    /// What it saw.
    ///
    /// # Errors
    /// The maps could not be read.
    pub fn seen(self) -> Result<Vec<Weighed>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the watch panicked"))?
    }
}
