//! From the first frame over a queue's threshold to the weight in the kernel's map.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::open::Random;
use crate::bench::{Report, Samples, Settings, clock};
use crate::demo::Claim;
use crate::unread::{RING, SHALLOW, Unread, name, send};

/// Targets, each a tap that nobody reads.
const TAPS: usize = 60;
/// A tap has its turn again after this long: a weight that falls and rises more often swings, and is held.
const AGAIN: Duration = Duration::from_secs(21);
/// Frames sent each time.
const FRAMES: usize = 150;
/// A weight that is so much smaller has been written because of them.
const LESS: f64 = 0.98;
/// The goal, milliseconds.
const GOAL: f64 = 10.0;
/// Where the moments of the rounds come from.
const SEED: u64 = 0x6c62_7802;

/// How frames come to a tap.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From the client, through XDP on the uplink: the kernel tells of the queue.
    Xdp,
    /// As the bridge and tc bring them: the queue is seen at the next look.
    Skb,
}

impl Way {
    const ALL: [Self; 2] = [Self::Xdp, Self::Skb];

    const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "by XDP: the kernel tells",
            Self::Skb => "by the bridge or tc: seen at the next look",
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Xdp => "XDP",
            Self::Skb => "bridge or tc",
        }
    }
}

/// Fills one ring after the other, at moments that have nothing to do with the daemon's.
///
/// # Errors
/// When the lab cannot be built, or a weight does not move.
pub fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    clock::unpin()?;
    report.section("reaction", "From a queue that grows to its weight");
    let rounds = settings.either(10 * TAPS, 2 * TAPS);
    report.say(&format!(
        "{TAPS} taps that nobody reads are the targets of a service with adaptive weights. {rounds} times {FRAMES} \
         frames come into one of them, at a random moment, in turns by XDP (a client sends them to the VIP, as one \
         known flow) and into the tap directly, as the bridge would; the clock runs from when the frame that makes \
         more than {SHALLOW} of {RING} is sent to the store of a smaller weight in the map that the kernel reads."
    ));
    let times = measure(rounds)?;
    let mut rows = vec![["frames come", "p50 ms", "p90 ms", "p99 ms", "max ms"].map(String::from).to_vec()];
    for (way, times) in Way::ALL.iter().zip(&times) {
        let mut row = vec![way.name().to_owned()];
        row.extend([0.5, 0.9, 0.99, 1.0].map(|share| format!("{:.2}", times.quantile(share))));
        rows.push(row);
        let name = format!("reaction: p99, frames by {}", way.word());
        report.claim(Claim::at_most(&name, times.quantile(0.99), "ms", GOAL));
    }
    report.table(&rows);
    Ok(())
}

/// Milliseconds of each round, by way.
fn measure(rounds: usize) -> Result<[Samples; 2]> {
    let mut place = Unread::start(TAPS, "")?;
    let wait = |place: &Unread, n: usize, what: &str, holds: &dyn Fn(f64) -> bool| -> Result<Instant> {
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            let (now, seen) = (place.weight(n)?, Instant::now());
            if holds(now) {
                return Ok(seen);
            }
            ensure!(seen < deadline, "{}: {what}: its weight is {now}\n{}", name(n), place.scenario.story());
            sleep(Duration::from_micros(50));
        }
    };
    let (mut random, mut times) = (Random::new(SEED), [Samples::new(), Samples::new()]);
    let flows = place.flows()?;
    let mut used: Vec<Option<Instant>> = vec![None; TAPS];
    for round in 0..rounds {
        // In turns for each tap, too.
        let (n, way) = (round % TAPS, Way::ALL[(round + round / TAPS) % Way::ALL.len()]);
        let rest = used[n]
            .map_or(Duration::ZERO, |at: Instant| (at + AGAIN).saturating_duration_since(Instant::now()));
        sleep(rest + Duration::from_secs_f64(0.05 + 0.1 * random.next()));
        wait(&place, n, "well again", &|weight| weight > 0.95)?;
        let before = place.weight(n)?;
        let start = match way {
            Way::Xdp => fill(|| send(&flows[n]))?,
            Way::Skb => fill(|| place.put(n))?,
        };
        let seen = wait(&place, n, "filled", &|weight| weight < LESS * before)?;
        times[usize::from(way == Way::Skb)]
            .push(seen.saturating_duration_since(start).as_secs_f64() * 1000.0);
        let taken = place.take(n);
        let all = taken == FRAMES;
        ensure!(all, "{taken} of {FRAMES} frames came into {}; {}", name(n), place.scenario.story());
        used[n] = Some(Instant::now());
    }
    Ok(times)
}

/// Sends frames; when the first one too many was sent.
fn fill(mut send: impl FnMut() -> Result<()>) -> Result<Instant> {
    let mut over = Instant::now();
    for n in 0..FRAMES {
        if n == SHALLOW {
            over = Instant::now();
        }
        send()?;
    }
    Ok(over)
}
