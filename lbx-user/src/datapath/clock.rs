//! The kernel's clock as the programs see it: jiffies, epochs, deadlines.

use super::error::{Error, Result};
use super::pins::Instance;
use super::sys;
use lbx_common::flow::IdleLimits;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Longest idle time in epochs. Epochs are 16 bits and wrap: beyond half of that range an entry that nobody
/// swept could look fresh again.
pub const MAX_IDLE_EPOCHS: u16 = 1 << 15;

/// Reads jiffies through `lbx_clock` and converts times.
#[derive(Debug)]
pub struct Clock {
    program: OwnedFd,
    rate: Rate,
}

/// Jiffies per second and jiffies per epoch, from which all else follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// Jiffies per second.
    pub hz: u32,
    /// An epoch is `jiffies64 >> shift`.
    pub shift: u32,
}

impl Rate {
    /// With the shift that makes an epoch about a second.
    pub fn new(hz: u32) -> Self {
        Self { hz, shift: epoch_shift(hz) }
    }

    /// Jiffies of a duration, rounded up.
    pub fn jiffies(self, duration: Duration) -> u64 {
        let exact = duration.as_nanos() * u128::from(self.hz);
        exact.div_ceil(1_000_000_000) as u64
    }

    /// Duration of a number of jiffies.
    pub fn duration(self, jiffies: u64) -> Duration {
        let nanos = u128::from(jiffies) * 1_000_000_000 / u128::from(self.hz.max(1));
        Duration::from_nanos(nanos as u64)
    }

    /// Epochs of a duration, rounded up, at least 1 and at most [`MAX_IDLE_EPOCHS`].
    pub fn epochs(self, duration: Duration) -> u16 {
        let epoch = 1u64 << self.shift;
        self.jiffies(duration).div_ceil(epoch).clamp(1, MAX_IDLE_EPOCHS.into()) as u16
    }

    /// Duration of a number of epochs.
    pub fn epoch_duration(self, epochs: u16) -> Duration {
        self.duration(u64::from(epochs) << self.shift)
    }

    /// The epoch of a time.
    pub fn epoch(self, jiffies: u64) -> u16 {
        (jiffies >> self.shift) as u16
    }
}

/// The shift that brings an epoch closest to a second.
fn epoch_shift(hz: u32) -> u32 {
    let floor = hz.max(1).ilog2();
    let (below, above) = (1u32 << floor, 1u64 << (floor + 1));
    // Closest as a ratio: hz / below against above / hz.
    if u64::from(hz) * u64::from(hz) > u64::from(below) * above { floor + 1 } else { floor }
}

/// Idle times as durations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IdleTimes {
    /// One packet seen, or a handshake that did not finish.
    pub new: Duration,
    /// Established TCP.
    pub established: Duration,
    /// Closed TCP.
    pub closed: Duration,
    /// UDP and the rest.
    pub datagram: Duration,
}

impl Default for IdleTimes {
    fn default() -> Self {
        Self {
            new: Duration::from_secs(10),
            // RFC 5382 REQ-5 for NATs: not less than 2 hours 4 minutes.
            established: Duration::from_mins(124),
            closed: Duration::from_secs(10),
            // RFC 4787 REQ-5: 5 minutes recommended.
            datagram: Duration::from_mins(5),
        }
    }
}

impl IdleTimes {
    /// As they stand in the control block.
    pub fn limits(&self, rate: Rate) -> IdleLimits {
        IdleLimits {
            epochs: [self.new, self.established, self.closed, self.datagram].map(|d| rate.epochs(d)),
        }
    }
}

impl Clock {
    /// Over a loaded `lbx_clock` and a known rate.
    pub(crate) fn new(program: OwnedFd, rate: Rate) -> Self {
        Self { program, rate }
    }

    /// Over the pinned `lbx_clock` of the newest version, without loading anything.
    pub fn open_pinned(instance: &Instance, rate: Rate) -> Result<Self> {
        let version = *instance.versions().last().ok_or_else(|| Error::NotLoaded(instance.dir()))?;
        let path = instance.progs(version).join("lbx_clock");
        let program = sys::open_pin(&path).map_err(Error::path("opening", &path))?;
        Ok(Self { program, rate })
    }

    /// The same clock once more, for another thread.
    pub(crate) fn try_clone(&self) -> Result<Self> {
        let program = self.program.try_clone().map_err(Error::io("using lbx_clock twice"))?;
        Ok(Self { program, rate: self.rate })
    }

    /// Rates.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// `jiffies64` now.
    pub fn jiffies_now(&self) -> Result<u64> {
        read(&self.program)
    }

    /// The epoch now.
    pub fn epoch_now(&self) -> Result<u16> {
        Ok(self.rate.epoch(self.jiffies_now()?))
    }

    /// The time `after` from now, for [`lbx_common::target::StateWord::until`].
    pub fn deadline(&self, after: Duration) -> Result<u64> {
        Ok(self.jiffies_now()?.wrapping_add(self.rate.jiffies(after).max(1)))
    }

    /// Time left until a deadline as it stands in a state word (40 bits); zero if it has passed.
    pub fn remaining(&self, deadline: u64) -> Result<Duration> {
        let now = self.jiffies_now()? & ((1 << 40) - 1);
        Ok(self.rate.duration(deadline.saturating_sub(now)))
    }
}

/// Runs the clock program once.
pub(crate) fn read(program: &OwnedFd) -> Result<u64> {
    // The smallest frame test_run.c takes is an Ethernet header; a little more keeps every driver path happy.
    let packet = [0u8; 64];
    let mut out = [0u8; 64];
    sys::TestRun::of(program).packet(&packet).room(&mut out).run().map_err(Error::io("running lbx_clock"))?;
    let mut jiffies = [0; 8];
    jiffies.copy_from_slice(&out[..8]);
    match u64::from_ne_bytes(jiffies) {
        0 => Err(Error::Clock("it wrote nothing")),
        jiffies => Ok(jiffies),
    }
}

/// Measures jiffies per second against the monotonic clock, from one tick to another.
pub(crate) fn measure(program: &OwnedFd) -> Result<u32> {
    const WINDOW: Duration = Duration::from_millis(60);
    let (first, start) = next_tick(program)?;
    while start.elapsed() < WINDOW {
        std::thread::sleep(Duration::from_millis(1));
    }
    let (last, end) = next_tick(program)?;
    let rate = (last - first) as f64 / end.duration_since(start).as_secs_f64();
    Ok(known_rate(rate))
}

/// Waits for jiffies to count on, and says when they did: a tick that is seen late, because the thread was not
/// running, is not one to measure by.
fn next_tick(program: &OwnedFd) -> Result<(u64, Instant)> {
    const SHARP: Duration = Duration::from_micros(500);
    // On a busy machine the thread may not run for a second, which says nothing about the clock.
    const LOOKS: u32 = 1000;
    let start = Instant::now();
    let (mut before, mut looked) = (read(program)?, start);
    let (mut blurred, mut looks) = (None, 0);
    while start.elapsed() < Duration::from_secs(1) || looks < LOOKS {
        looks += 1;
        let now = read(program)?;
        let at = Instant::now();
        if now != before {
            if at.duration_since(looked) < SHARP {
                return Ok((now, at));
            }
            blurred = Some((now, at));
        }
        (before, looked) = (now, at);
    }
    blurred.ok_or(Error::Clock("it does not count"))
}

/// The value of CONFIG_HZ a measurement stands for: nobody runs 247 Hz.
fn known_rate(measured: f64) -> u32 {
    const RATES: [u32; 7] = [100, 128, 200, 250, 300, 512, 1000];
    let near = |rate: &u32| (measured / f64::from(*rate) - 1.0).abs() < 0.1;
    let distance = |rate: &u32| ((measured - f64::from(*rate)).abs() * 1000.0) as u64;
    RATES.into_iter().filter(near).min_by_key(distance).unwrap_or((measured.round() as u32).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_about_a_second() {
        for hz in [100, 250, 300, 1000, 1024, 24] {
            let rate = Rate::new(hz);
            let epoch = rate.epoch_duration(1).as_secs_f64();
            assert!((0.70..1.42).contains(&epoch), "HZ {hz}: {epoch} s");
        }
        assert_eq!((Rate::new(250).shift, Rate::new(1000).shift), (8, 10));
    }

    #[test]
    fn durations_round_up_and_are_bounded() {
        let rate = Rate::new(250);
        assert_eq!(rate.jiffies(Duration::from_millis(1)), 1);
        assert_eq!(rate.jiffies(Duration::from_secs(4)), 1000);
        assert_eq!(rate.epochs(Duration::ZERO), 1);
        assert_eq!(rate.epochs(Duration::from_millis(1025)), 2);
        assert_eq!(rate.epochs(Duration::from_secs(1_000_000)), MAX_IDLE_EPOCHS);
        assert_eq!(rate.epoch(0x1_0000_0100), 1);
        let limits = IdleTimes::default().limits(rate);
        assert!(limits.epochs[0] < limits.epochs[3] && limits.epochs[3] < limits.epochs[1]);
    }

    #[test]
    fn measured_rates_snap_to_configured_ones() {
        for (measured, hz) in [(99.2, 100), (251.9, 250), (297.0, 300), (1013.0, 1000), (64.2, 64)] {
            assert_eq!(known_rate(measured), hz);
        }
    }
}
