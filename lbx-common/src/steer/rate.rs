//! A token bucket without a division: a token costs `hz`, each jiffy brings `rate`.

/// Level and time (jiffies) of the last change.
pub type Bucket = [u64; 2];

/// Takes a token at a time (jiffies64). Holds a second's worth of tokens at most. A new bucket is `[0; 2]`.
#[inline(always)]
pub const fn take(bucket: Bucket, now: u64, rate: u32, hz: u32) -> (Bucket, bool) {
    let [level, last] = bucket;
    let most = rate as u64 * hz as u64;
    let elapsed = now.wrapping_sub(last);
    // A second fills the bucket whatever it held, and keeps the product below from overflowing.
    let level = if elapsed >= hz as u64 {
        most
    } else {
        let filled = level + elapsed * rate as u64;
        if filled > most { most } else { filled }
    };
    if rate == 0 || level < hz as u64 { ([level, now], false) } else { ([level - hz as u64, now], true) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(bucket: &mut Bucket, now: u64, tries: u32, rate: u32) -> u32 {
        (0..tries)
            .filter(|_| {
                let (next, ok) = take(*bucket, now, rate, 250);
                *bucket = next;
                ok
            })
            .count() as u32
    }

    #[test]
    fn a_second_grants_the_rate_and_no_more() {
        let mut bucket = [0; 2];
        assert_eq!(granted(&mut bucket, 10_000, 500, 100), 100);
        assert_eq!(granted(&mut bucket, 10_000, 500, 100), 0);
        let over_a_second: u32 = (1..=250).map(|j| granted(&mut bucket, 10_000 + j, 10, 100)).sum();
        assert_eq!(over_a_second, 100);
    }

    #[test]
    fn a_long_pause_fills_it_once_and_zero_grants_none() {
        let mut bucket = [0; 2];
        assert_eq!(granted(&mut bucket, u64::MAX / 2, 1000, 7), 7);
        assert_eq!(granted(&mut bucket, u64::MAX / 2 + 100_000, 1000, 7), 7);
        assert_eq!(granted(&mut bucket, u64::MAX / 2 + 200_000, 1000, 0), 0);
    }

    #[test]
    fn a_rate_below_one_a_jiffy_still_adds_up() {
        let mut bucket = [0, 1000];
        let seen: u32 = (1..=1000).map(|j| granted(&mut bucket, 1000 + j, 3, 1)).sum();
        assert_eq!(seen, 4);
    }
}
