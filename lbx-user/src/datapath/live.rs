//! Open flows and live depth: what the datapath compares when a service's algorithm asks who is less busy.

use super::btf::Btf;
use super::error::{Error, Result};
use super::maps::Maps;
use super::pins::Instance;
use super::{queues, sys};
use lbx_common::control::Control;
use lbx_common::flow::{IdleClass, TargetWord, class_index, expired, flags};
use lbx_common::limits::{MAX_QUEUES, WAYS};
use lbx_common::live::{Live, Walked, index};
use lbx_common::queue::OFFSETS;
use lbx_common::response::{self, Response};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

/// Where in the kernel's memory the programs find the depth of a queue; absent where they may not look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sight(pub [u32; OFFSETS]);

impl Sight {
    /// As this kernel's types say.
    pub fn of_kernel() -> Result<Self> {
        Ok(Self(bytemuck::cast(queues::offsets(&Btf::of_kernel("tun")?)?)))
    }
}

/// Where the program that reads a queue's depth is pinned.
pub(super) const DEPTH: &str = "lbx_depth";

/// Opens the pinned program that reads depths, if the version in force has it.
pub(super) fn open_pinned(instance: &Instance) -> Option<OwnedFd> {
    let version = *instance.versions().last()?;
    sys::open_pin(&instance.progs(version).join(DEPTH)).ok()
}

/// What walking the flow table changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Corrected {
    /// Open flows there are.
    pub open: u64,
    /// By how much counts had drifted, over all queues.
    pub drift: u64,
}

impl Maps {
    /// What is known of a queue of a target.
    pub fn live(&self, target: u32, queue: u8) -> Result<Live> {
        self.live.get(index(target, queue))
    }

    /// Frames in the ring of a queue as a first packet would find it; nothing where that is not known.
    pub fn depth(&self, word: TargetWord) -> Result<Option<u32>> {
        let Some(program) = &self.depth else { return Ok(None) };
        let (mut packet, mut out) = ([0; 64], [0; 64]);
        packet[..4].copy_from_slice(&word.0.to_ne_bytes());
        let run = sys::TestRun::of(program).packet(&packet).room(&mut out);
        run.run().map_err(Error::io("running lbx_depth"))?;
        let mut depth = [0; 8];
        depth.copy_from_slice(&out[..8]);
        Ok(u32::try_from(i64::from_ne_bytes(depth)).ok())
    }

    /// Whether first packets can see how deep queues are.
    pub fn sees_depth(&self) -> bool {
        self.depth.is_some()
    }

    /// Response times of a target.
    pub fn response(&self, target: u32) -> Result<Response> {
        self.responses.get(target)
    }

    /// How many of a target's answers were timed: a look that costs next to nothing.
    pub fn responses_counted(&self, target: u32) -> Result<u64> {
        self.responses.load64(target, 0)
    }

    /// Of so many flows one is timed; 0: none.
    pub fn write_sampling(&self, one_in: u32) -> Result<()> {
        const WORD: usize = std::mem::offset_of!(Control, sample_key) / 8;
        const { assert!(std::mem::offset_of!(Control, sample_key) % 8 == 0) };
        let key = self.control()?.secret[1] as u32;
        let word = bytemuck::cast([key, response::below(one_in)]);
        self.control.word64(0, WORD)?.store(word, Ordering::Release);
        Ok(())
    }

    /// Where the ring of a queue is, of the second queue on; 0 unknown.
    pub fn write_live_ring(&self, target: u32, queue: u8, ring: u64) -> Result<()> {
        let word = self.live.word64(index(target, queue), RING)?;
        if word.load(Ordering::Relaxed) != ring {
            word.store(ring, Ordering::Release);
        }
        Ok(())
    }

    /// Nothing is known of a target any more: its index passes to another one.
    pub(super) fn clear_live(&self, target: u32) -> Result<()> {
        self.responses.set(target, &Response::default())?;
        (0..MAX_QUEUES as u8).try_for_each(|queue| self.live.set(index(target, queue), &Live::default()))
    }

    /// Puts the counts of open flows right, by one pass over the flow table: of the first `most` targets.
    pub fn correct_open_flows(&self, most: u32) -> Result<Corrected> {
        let control = self.control()?;
        let epoch = self.rate()?.epoch(self.clock()?.jiffies_now()?);
        let places = index(most.min(self.max_targets()), 0);
        let held = |at: u32| Ok::<_, Error>(self.live.load64(at, HELD)? as i64);
        let before = (0..places).map(held).collect::<Result<Vec<i64>>>()?;
        let mut walked = vec![Walked::default(); places as usize];
        for bucket in 0..self.flows.len() {
            for way in 0..WAYS {
                let Some(entry) = self.entry(bucket, way) else { continue };
                let Some(own) = walked.get_mut(index(entry.target.target(), entry.target.queue()) as usize)
                else {
                    continue;
                };
                own.marked += i64::from(entry.flags & flags::COUNTED != 0);
                let is_open = class_index(entry.flags) != IdleClass::Closed as usize
                    && !expired(&entry, epoch, &control.idle);
                own.open += i64::from(is_open);
            }
        }
        let mut corrected = Corrected::default();
        for (at, (own, before)) in (0..places).zip(walked.iter().zip(before)) {
            let drift = own.correction(before, held(at)?);
            if drift != 0 {
                self.live.word64(at, HELD)?.fetch_add(drift as u64, Ordering::AcqRel);
            }
            let adjust = self.live.word64(at, ADJUST)?;
            if adjust.load(Ordering::Relaxed) as i64 != own.adjust() {
                adjust.store(own.adjust() as u64, Ordering::Release);
            }
            corrected.open += own.open as u64;
            corrected.drift += drift.unsigned_abs();
        }
        Ok(corrected)
    }

    /// A record that carries the mark was freed by user space.
    pub(super) fn uncount(&self, word: TargetWord) -> Result<()> {
        self.live.word64(index(word.target(), word.queue()), HELD)?.fetch_sub(1, Ordering::AcqRel);
        Ok(())
    }
}

/// Words of [`Live`].
const HELD: usize = std::mem::offset_of!(Live, held) / 8;
const ADJUST: usize = std::mem::offset_of!(Live, adjust) / 8;
const RING: usize = std::mem::offset_of!(Live, ring) / 8;
