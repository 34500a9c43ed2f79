//! Response times, seen by the datapath: of one flow in so many, from a request on its way to the target to the first
//! answer. What is kept, and what a packet means for it.

use crate::algo::tcp::packet;
use crate::flow::TargetWord;
use bytemuck::{Pod, Zeroable};

/// Places for requests under way.
pub const STAMPS: u32 = 8192;
/// Buckets of a histogram.
pub const BUCKETS: usize = 32;
/// Nanoseconds after which a request is given up: whatever comes then is hardly its answer.
pub const LIMIT: u64 = 30_000_000_000;

/// Whether a flow is one of those that are timed. `key` and `below`: [`crate::control::Control::sample_key`] and
/// [`crate::control::Control::sampled_below`]; `client`: the last word of its address; `ports`: as in the flow's key.
/// Cheaper than the flow's hash, so that packets of the others pay next to nothing, in both directions.
///
/// The multiplier is 2^32 over the golden ratio (Knuth, The Art of Computer Programming 3, section 6.4): ports that follow
/// each other spread evenly whatever the key is, which a random multiplier does not promise.
#[inline(always)]
pub const fn is_sampled(key: u32, below: u32, client: u32, ports: u32) -> bool {
    (client ^ ports ^ key).wrapping_mul(0x9E37_79B1) < below
}

/// [`crate::control::Control::sampled_below`] for one flow in `n`; 0: none.
pub const fn below(n: u32) -> u32 {
    match n {
        0 => 0,
        1 => u32::MAX,
        n => u32::MAX / n + 1,
    }
}

/// The ports of a flow's key, from those of an answer.
#[inline(always)]
pub const fn turned(ports: u32) -> u32 {
    ports.rotate_left(16)
}

/// What a packet means to the clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sign {
    /// A request: the time runs from here, unless it runs already.
    Asks,
    /// The answer.
    Answers,
    /// Nothing.
    Nothing,
}

/// A packet to the target. `remote`: its answers do not pass lbx. Then the handshake is timed: from SYN to the ACK that
/// follows the target's answer, which takes the client's round trip too.
#[inline(always)]
pub const fn inward(remote: bool, tcp: bool, flags: u8, payload: bool) -> Sign {
    const KINDS: u8 = packet::SYN | packet::ACK | packet::RST;
    if !remote {
        return if payload || !tcp { Sign::Asks } else { Sign::Nothing };
    }
    match flags & KINDS {
        packet::SYN if tcp => Sign::Asks,
        packet::ACK if tcp => Sign::Answers,
        _ => Sign::Nothing,
    }
}

/// A packet from the target: one without data acknowledges, and answers nothing.
#[inline(always)]
pub const fn outward(tcp: bool, payload: bool) -> Sign {
    if payload || !tcp { Sign::Answers } else { Sign::Nothing }
}

/// A request under way.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug, Default)]
pub struct Stamp {
    /// Hash of the flow, time and target, one over the other: of two writes at once nothing fits together.
    pub seal: u64,
    /// When it was seen, in nanoseconds; 0: no request.
    pub at: u64,
    /// Where it went.
    pub target: TargetWord,
    #[doc(hidden)]
    pub reserved: u32,
}

impl Stamp {
    /// Of a request seen now.
    #[inline(always)]
    pub const fn new(hash: u64, now: u64, target: TargetWord) -> Self {
        Self { seal: hash ^ now ^ target.0 as u64, at: now, target, reserved: 0 }
    }
    /// How long the flow's request has been under way, if there is one.
    #[inline(always)]
    pub const fn age(&self, hash: u64, now: u64) -> Option<u64> {
        let fits = self.at != 0 && self.seal ^ self.at ^ self.target.0 as u64 == hash;
        // Another CPU's clock may be a little behind.
        if fits && now.saturating_sub(self.at) < LIMIT { Some(now.saturating_sub(self.at)) } else { None }
    }
}

/// Where a flow's request is kept.
#[inline(always)]
pub const fn place(hash: u64) -> u32 {
    (hash >> 32) as u32 & (STAMPS - 1)
}

/// Response times of a target. The kernel counts.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug, Default)]
pub struct Response {
    /// Answers timed.
    pub count: u64,
    /// Nanoseconds in all.
    pub sum: u64,
    /// Nanoseconds, smoothed ([`smooth`]).
    pub smoothed: u64,
    #[doc(hidden)]
    pub reserved: u64,
    /// Answers by [`bucket`].
    pub buckets: [u64; BUCKETS],
}

/// The smoothed time after another one: an eighth of the way, as TCP smooths round trips (RFC 6298). 0: none before.
#[inline(always)]
pub const fn smooth(before: u64, time: u64) -> u64 {
    if before == 0 {
        time
    } else if time > before {
        before + (time - before) / 8
    } else {
        before - (before - time) / 8
    }
}

/// Bucket `n` of a time counts those below 2^`n` microseconds that bucket `n - 1` does not.
#[inline(always)]
pub const fn bucket(nanoseconds: u64) -> u32 {
    let mut rest = nanoseconds / 1000;
    let mut n = 0;
    // Without a loop, and without an instruction for it that BPF has not.
    if rest >> 16 != 0 {
        rest >>= 16;
        n += 16;
    }
    if rest >> 8 != 0 {
        rest >>= 8;
        n += 8;
    }
    if rest >> 4 != 0 {
        rest >>= 4;
        n += 4;
    }
    if rest >> 2 != 0 {
        rest >>= 2;
        n += 2;
    }
    if rest >> 1 != 0 {
        rest >>= 1;
        n += 1;
    }
    if rest != 0 {
        n += 1;
    }
    if n < BUCKETS as u32 { n } else { BUCKETS as u32 - 1 }
}

/// Microseconds that the times in a bucket are below.
pub const fn upper(bucket: usize) -> u64 {
    1 << bucket
}

const _: () = assert!(size_of::<Stamp>() == 24 && size_of::<Response>() == 288 && STAMPS.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::ports;
    use packet::{ACK, FIN, RST, SYN};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_bucket_is_a_power_of_two(ns in prop_oneof![0..LIMIT, 0..5_000_000_u64]) {
            let n = bucket(ns) as usize;
            let micros = ns / 1000;
            prop_assert!(micros < upper(n));
            prop_assert!(n == 0 || micros >= upper(n - 1));
        }

        #[test]
        fn both_directions_agree_on_who_is_timed(client in any::<u32>(), a in any::<u16>(), b in any::<u16>()) {
            prop_assert_eq!(turned(ports(a, b)), ports(b, a));
            let key = 0x9E37_79B1;
            prop_assert_eq!(
                is_sampled(key, below(16), client, ports(a, b)),
                is_sampled(key, below(16), client, turned(ports(b, a)))
            );
            prop_assert!(!is_sampled(key, below(0), client, ports(a, b)));
        }

        #[test]
        fn ports_in_a_row_are_timed_evenly(key in any::<u32>(), client in any::<u32>(), first in 0..65_400_u16) {
            let timed = (first..first + 100).filter(|port| is_sampled(key, below(4), client, ports(*port, 80)));
            prop_assert!((15..=35).contains(&timed.count()));
        }

        #[test]
        fn only_the_own_request_is_answered(hash in 1_u64.., other in 1_u64.., at in 1..u64::MAX / 2, after in 0..LIMIT) {
            let stamp = Stamp::new(hash, at, TargetWord::new(7, 1, 3));
            prop_assert_eq!(stamp.age(hash, at + after), Some(after));
            prop_assert_eq!(stamp.age(hash, at.saturating_sub(5)), Some(0));
            prop_assert_eq!(stamp.age(hash, at + LIMIT), None);
            prop_assert!(hash == other || stamp.age(other, at).is_none());
            // The time of one write and the rest of another.
            let torn = Stamp { at: at + 1, ..stamp };
            prop_assert_eq!(torn.age(hash, at + 2), None);
            prop_assert_eq!(Stamp::default().age(hash, at), None);
        }
    }

    #[test]
    fn one_flow_in_n_whatever_the_key_and_the_clients() {
        for key in [0x9E37_79B1_u32, 0x85eb_ca6b, 0x0123_4567, 0xdead_beef] {
            for n in [1, 4, 16, 64] {
                let mut hit = 0;
                for client in 0..256_u32 {
                    for port in 20_000..20_256 {
                        let address = (0x0a4d_0000 + client).to_be();
                        hit += u32::from(is_sampled(key, below(n), address, ports(port, 80)));
                    }
                }
                let (share, wanted) = (f64::from(hit) / 65_536.0, 1.0 / f64::from(n));
                assert!((share / wanted - 1.0).abs() < 0.35, "key {key:x}, one in {n}: {share}");
            }
        }
    }

    #[test]
    fn what_packets_mean() {
        assert_eq!(inward(false, true, ACK, true), Sign::Asks);
        assert_eq!(inward(false, true, ACK, false), Sign::Nothing);
        assert_eq!(
            inward(false, true, SYN, false),
            Sign::Nothing,
            "its answer is the kernel's, not the server's"
        );
        assert_eq!(inward(false, false, 0, true), Sign::Asks);
        assert_eq!((outward(true, true), outward(true, false)), (Sign::Answers, Sign::Nothing));
        assert_eq!(outward(false, false), Sign::Answers);
        assert_eq!(inward(true, true, SYN, false), Sign::Asks);
        assert_eq!(inward(true, true, ACK, false), Sign::Answers);
        assert_eq!(inward(true, true, ACK | FIN, true), Sign::Answers);
        assert_eq!(inward(true, true, ACK | RST, false), Sign::Nothing);
        assert_eq!(inward(true, false, SYN, true), Sign::Nothing, "no handshake");
    }

    #[test]
    fn smoothing_follows_in_eighths() {
        assert_eq!((smooth(0, 800), smooth(800, 1600), smooth(800, 0)), (800, 900, 700));
        let mut time = 1_000_000;
        (0..60).for_each(|_| time = smooth(time, 9_000_000));
        assert!(time > 8_900_000 && time <= 9_000_000, "{time}");
    }
}
