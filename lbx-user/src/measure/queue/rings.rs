//! The rings themselves: found by the iterator, read by their addresses, and what XDP puts into them.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use anyhow::Result;
use lbx_common::queue::{Found, Ring, Run, Watched, is_over, spread};

use super::places::Places;
use super::{Reader, Sample, Vnic, devices};
use crate::control::RingsByPort;
use crate::datapath::{Queues, peak_in};

/// Devices' own counters, and the iterator, are looked at this often.
const LOOK: Duration = Duration::from_secs(1);
/// A vNIC whose queues are empty and stay so is told of this often.
const TELL: Duration = Duration::from_millis(250);
/// After a pause as long as this every queue is read whole.
const PAUSE: Duration = Duration::from_millis(50);
/// A vNIC whose queues are not there is looked for this often.
const SEARCH: Duration = Duration::from_millis(200);

/// The reader.
pub struct Rings {
    queues: Queues,
    places: Places,
    vnics: Vec<Followed>,
    look_at: Option<Instant>,
    seen: Vec<Ring>,
    // By vNIC: nothing has moved since it was last told of.
    quiet: Vec<bool>,
    round: u32,
    read_at: Option<Instant>,
    // Queues were found or let go since somebody asked.
    changed: bool,
}

struct Followed {
    vnic: Vnic,
    // Its queues in the tables; none while nobody holds it open.
    watched: Vec<One>,
    run: Option<Run>,
    search_at: Option<Instant>,
    tell_at: Option<Instant>,
    missing: Option<&'static str>,
    // Of the device: taken at the last look and what the heads moved since; drops of frames that came as skbs.
    tx_packets: Option<u64>,
    moved: Vec<u32>,
    dropped: Option<u64>,
    other_drops: u64,
    // What earlier queues of this vNIC had counted.
    before: (u64, u64),
}

struct One {
    at: Watched,
    last: Ring,
    taken: u64,
    drops: u64,
}

impl Rings {
    /// Loads the programs.
    ///
    /// # Errors
    /// The host does not allow it.
    pub fn new() -> Result<Self> {
        Ok(Self {
            queues: Queues::load()?,
            places: Places::default(),
            vnics: Vec::new(),
            look_at: None,
            seen: Vec::new(),
            quiet: Vec::new(),
            round: 0,
            read_at: None,
            changed: true,
        })
    }

    /// Looks where the queues of these vNICs are, and watches them.
    fn search(&mut self, wanted: &[usize], now: Instant) -> Result<()> {
        // One process after the other, unless somebody holds a vNIC whom the scan of /proc did not see.
        let mut pids: Vec<Option<u32>> = wanted.iter().map(|n| self.vnics[*n].vnic.pid).collect();
        pids.sort_unstable();
        pids.dedup();
        if pids.contains(&None) {
            pids = vec![None];
        }
        let mut found = Vec::new();
        for pid in pids {
            found.extend(self.queues.find(pid)?);
        }
        for &n in wanted {
            let own: Vec<&Found> =
                found.iter().filter(|one| one.at.ifindex == self.vnics[n].vnic.ifindex).collect();
            self.watch(n, &own)?;
            self.vnics[n].search_at = Some(now + if own.is_empty() { SEARCH } else { LOOK });
        }
        Ok(())
    }

    fn watch(&mut self, n: usize, found: &[&Found]) -> Result<()> {
        let one = &self.vnics[n];
        if !found.is_empty() && found.iter().map(|f| f.at).eq(one.watched.iter().map(|w| w.at)) {
            return Ok(());
        }
        self.let_go(n)?;
        let one = &mut self.vnics[n];
        if found.is_empty() {
            one.missing = Some("no process holds its tap open");
            return Ok(());
        }
        self.changed = true;
        let Some(run) = self.places.take(found.len() as u32) else {
            one.missing = Some("too many queues are watched already");
            return Ok(());
        };
        for (place, queue) in (run.first..).zip(found) {
            self.queues.watch(place, &queue.at)?;
        }
        self.queues.count(found[0].at.dev, run)?;
        one.run = Some(run);
        one.missing = None;
        one.watched = found.iter().map(|f| One { at: f.at, last: f.ring, taken: 0, drops: 0 }).collect();
        one.moved = vec![0; found.len()];
        (one.tx_packets, one.dropped) = (None, None);
        Ok(())
    }

    /// Watches the queues of a vNIC no more.
    fn let_go(&mut self, n: usize) -> Result<()> {
        let one = &mut self.vnics[n];
        let Some(run) = one.run.take() else { return Ok(()) };
        self.changed = true;
        if let Some(first) = one.watched.first() {
            self.queues.uncount(first.at.dev)?;
        }
        for place in run.first..run.first + run.count {
            self.queues.forget(place)?;
        }
        for queue in one.watched.drain(..) {
            one.before.0 += queue.taken;
            one.before.1 += queue.drops;
        }
        self.places.give_back(run);
        Ok(())
    }

    /// What only the devices count: frames taken that a ring's head went around for, and drops of frames that came
    /// by the bridge.
    fn look(&mut self) -> Result<()> {
        let devices = devices::read()?;
        for one in &mut self.vnics {
            let (Some(device), Some(run)) = (devices.get(&one.vnic.name), one.run) else { continue };
            let size = one.watched.first().map_or(0, |queue| u64::from(queue.last.size));
            if let Some(before) = one.tx_packets.replace(device.tx_packets) {
                let counted = device.tx_packets.saturating_sub(before);
                let known: u64 = one.moved.iter().map(|n| u64::from(*n)).sum();
                // Less than a ring is what moved between the two ways of counting.
                if size > 0 && counted >= known + size {
                    let mut moved: Vec<Option<u32>> = one.moved.iter().map(|n| Some(*n)).collect();
                    spread(&mut moved, counted - (counted - known) % size);
                    for ((queue, after), before) in one.watched.iter_mut().zip(moved).zip(&one.moved) {
                        queue.taken += u64::from(after.unwrap_or(0).saturating_sub(*before));
                    }
                }
            }
            one.moved.fill(0);
            // The device counts one drop for each bulk that XDP could not put in whole: those are known already.
            let mut others = device.tx_dropped;
            for place in run.first..run.first + run.count {
                others = others.saturating_sub(self.queues.arrivals(place)?.cut);
            }
            if let Some(before) = one.dropped.replace(others) {
                one.other_drops += others.saturating_sub(before);
            }
        }
        Ok(())
    }
}

impl Reader for Rings {
    fn source(&self) -> &'static str {
        "tap ring"
    }

    fn follow(&mut self, vnics: &[Vnic]) -> Result<()> {
        for n in 0..self.vnics.len() {
            let stays = |vnic: &Vnic| vnic.ifindex == self.vnics[n].vnic.ifindex;
            if !vnics.iter().any(stays) {
                self.let_go(n)?;
            }
        }
        let mut old = std::mem::take(&mut self.vnics);
        self.vnics = vnics
            .iter()
            .map(|vnic| match old.iter().position(|one| one.vnic.ifindex == vnic.ifindex) {
                // Looked for at once: the process may be another one.
                Some(at) => {
                    Followed { vnic: vnic.clone(), search_at: None, tell_at: None, ..old.swap_remove(at) }
                }
                None => Followed {
                    vnic: vnic.clone(),
                    watched: Vec::new(),
                    run: None,
                    search_at: None,
                    tell_at: None,
                    missing: None,
                    tx_packets: None,
                    moved: Vec::new(),
                    dropped: None,
                    other_drops: 0,
                    before: (0, 0),
                },
            })
            .collect();
        Ok(())
    }

    fn read(&mut self, now: Instant, samples: &mut Vec<Sample>) -> Result<()> {
        let due = |one: &Followed| one.search_at.is_none_or(|at| now >= at);
        let wanted: Vec<usize> = (0..self.vnics.len()).filter(|n| due(&self.vnics[*n])).collect();
        if !wanted.is_empty() {
            self.search(&wanted, now)?;
        }
        if self.look_at.is_none_or(|at| now >= at) {
            self.look_at = Some(now + LOOK);
            self.look()?;
        }
        let window = self.queues.next_window()?;
        self.round = self.round.wrapping_add(1);
        let pause = self.read_at.replace(now).is_none_or(|at| now.saturating_duration_since(at) >= PAUSE);
        self.queues.read(self.places.len(), if pause { None } else { Some(self.round) })?;
        self.quiet.clear();
        self.quiet.resize(self.vnics.len(), false);
        for n in 0..self.vnics.len() {
            let one = &self.vnics[n];
            let Some(run) = one.run else { continue };
            self.seen.clear();
            for place in run.first..run.first + run.count {
                self.seen.push(self.queues.ring(place)?);
            }
            let told = one.tell_at.is_none_or(|at| now >= at);
            let last = one.watched.iter().map(|queue| &queue.last);
            if !told && self.seen.iter().all(Ring::is_empty) && self.seen.iter().eq(last) {
                self.quiet[n] = true;
                continue;
            }
            if self.seen.iter().any(|ring| ring.flags == 0) {
                // Gone, or used otherwise: not one of these addresses is to be trusted.
                self.let_go(n)?;
                self.vnics[n].missing = Some("its queues have changed");
                self.vnics[n].search_at = None;
                continue;
            }
            // Resized while it was read: the next look is whole again.
            if self.seen.iter().any(|ring| !ring.is_valid()) {
                continue;
            }
            let one = &mut self.vnics[n];
            one.tell_at = Some(now + TELL);
            for (place, (queue, ring)) in (run.first..).zip(one.watched.iter_mut().zip(&self.seen)) {
                let number = (place - run.first) as usize;
                let moved = ring.taken_since(&queue.last).unwrap_or(0);
                queue.taken += u64::from(moved);
                one.moved[number] = one.moved[number].saturating_add(moved);
                // Nothing came to a ring that is empty and was not filled.
                let mut peak = None;
                if ring.depth() > 0 || ring.producer != queue.last.producer {
                    let arrivals = self.queues.arrivals(place)?;
                    if arrivals.told != 0 && is_over(ring.depth(), ring.size) {
                        self.queues.rearm(place)?;
                    }
                    queue.drops = arrivals.drops;
                    peak = peak_in(&arrivals, window);
                }
                queue.last = *ring;
                let first = number == 0;
                let before = if first { one.before } else { (0, 0) };
                samples.push(Sample {
                    vnic: n,
                    queue: Some(queue.at.queue),
                    depth: ring.depth(),
                    size: ring.size,
                    peak,
                    taken: queue.taken + before.0,
                    drops: queue.drops + before.1 + if first { one.other_drops } else { 0 },
                });
            }
        }
        Ok(())
    }

    fn told(&self) -> Option<BorrowedFd<'_>> {
        Some(self.queues.told())
    }

    fn hear(&mut self) -> bool {
        self.queues.hear()
    }

    fn is_quiet(&self, vnic: usize) -> bool {
        self.quiet.get(vnic) == Some(&true)
    }

    fn rings(&mut self) -> Option<RingsByPort> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let own = |one: &Followed| {
            let mut rings = vec![0; one.watched.iter().map(|queue| queue.at.queue as usize + 1).max()?];
            for queue in &one.watched {
                rings[queue.at.queue as usize] = self.queues.ring_of(&queue.at);
            }
            Some((one.vnic.ifindex, rings))
        };
        Some(self.vnics.iter().filter_map(own).collect())
    }

    fn missing(&self, vnic: usize) -> Option<&'static str> {
        self.vnics.get(vnic)?.missing
    }
}
