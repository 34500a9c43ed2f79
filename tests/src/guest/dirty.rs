//! A program that writes to memory all the time: what makes a migration long.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

/// Memory it writes to, in bytes: a part of the smallest guest's.
const AREA: usize = 24 << 20;
/// Bytes of a page.
const PAGE: usize = 4096;
/// Between two rounds.
const ROUND: Duration = Duration::from_millis(50);

/// MB a second; 0 stops.
static RATE: AtomicU64 = AtomicU64::new(0);

/// Has pages written at a rate in MB a second.
pub fn set(rate: u64) -> std::io::Result<()> {
    if RATE.swap(rate, Ordering::SeqCst) == 0 && rate > 0 {
        thread::Builder::new().name("dirty".into()).spawn(work)?;
    }
    Ok(())
}

fn work() {
    let mut area = vec![0_u8; AREA];
    let mut page = 0;
    loop {
        let rate = RATE.load(Ordering::SeqCst);
        if rate == 0 {
            return;
        }
        let (start, pages) = (Instant::now(), (rate * 1_000_000 / 20) as usize / PAGE);
        for _ in 0..pages {
            // Another value each time: a page that is as it was need not be sent again.
            area[page] = area[page].wrapping_add(1);
            page = (page + PAGE) % AREA;
        }
        std::hint::black_box(&area);
        sleep(ROUND.saturating_sub(start.elapsed()));
    }
}
