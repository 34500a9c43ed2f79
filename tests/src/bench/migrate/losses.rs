//! Where the datagrams of one flow went that were not answered: each is known by its number.

use std::collections::BTreeSet;

use etherparse::{SlicedPacket, TransportSlice};

use super::figures::Outage;
use super::probe::Sample;
use crate::guest::echo;

/// Bytes of a `virtio_net_hdr_v1` (include/uapi/linux/virtio_net.h).
const VNET_HEADER: usize = 12;

/// Datagrams of the flow that were found somewhere, by their numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// In the ring of the tap that the guest came from, after it had left.
    pub ring: BTreeSet<u64>,
    /// Taken out of it by QEMU there, whatever became of them.
    pub taken: BTreeSet<u64>,
}

/// What the guest has received, as runs of numbers in the order of their arrival.
#[derive(Debug, Clone, Default)]
pub struct Received(pub Vec<[u64; 2]>);

impl Received {
    /// All of them.
    pub fn numbers(&self) -> BTreeSet<u64> {
        self.0.iter().flat_map(|[first, last]| *first..=*last).collect()
    }

    /// How many came after one that was sent later, or twice.
    pub fn disordered(&self) -> u64 {
        let (mut late, mut next) = (0, 0);
        for [first, last] in &self.0 {
            late += next.clamp(*first, *last + 1) - first;
            next = next.max(*last + 1);
        }
        late
    }
}

/// What became of the lost datagrams of one migration, or of several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Losses {
    /// Not answered.
    pub lost: u64,
    /// Of those, found in the ring of the tap that the guest came from.
    pub ring: u64,
    /// Taken out of that ring by QEMU, which had stopped the guest: it takes one more frame, and keeps it.
    pub taken: u64,
    /// Received by the guest: its answer was lost.
    pub answers: u64,
    /// Dropped and counted by lbx.
    pub dropped: u64,
    /// Dropped and counted by kernels and taps because a ring or a socket was full.
    pub full: u64,
    /// Lost and none of these, or counted by lbx and none that was lost.
    pub unexplained: u64,
    /// Sent when the guest ran and lbx knew where, and lost, but for those that were in the ring when it stopped.
    pub outside: u64,
}

impl Losses {
    /// Adds another migration's.
    pub fn add(&mut self, other: &Self) {
        self.lost += other.lost;
        self.ring += other.ring;
        self.taken += other.taken;
        self.answers += other.answers;
        self.dropped += other.dropped;
        self.full += other.full;
        self.unexplained += other.unexplained;
        self.outside += other.outside;
    }
}

/// The numbers of the flow's datagrams among frames.
pub fn numbers(frames: &[Vec<u8>]) -> BTreeSet<u64> {
    frames.iter().filter_map(|frame| number(frame)).collect()
}

/// A datagram to the echo that carries a number.
fn number(frame: &[u8]) -> Option<u64> {
    let datagram = |frame: &[u8]| match SlicedPacket::from_ethernet(frame).ok()?.transport? {
        TransportSlice::Udp(udp) if udp.destination_port() == echo::PORT => {
            udp.payload().try_into().ok().map(u64::from_be_bytes)
        }
        _ => None,
    };
    // QEMU 7.2 writes down the header before the frame too.
    datagram(frame).or_else(|| datagram(frame.get(VNET_HEADER..)?))
}

/// What became of those among all datagrams that were sent from `from` to before `to`, which is one migration and what
/// is between it and the next. `delivered`: when lbx sent packets to where the guest was again.
pub fn losses(
    outage: &Outage,
    delivered: u64,
    datagrams: &[Sample],
    received: &Received,
    (from, to): (u64, u64),
) -> Losses {
    let received = received.numbers();
    let mut losses = Losses { dropped: outage.dropped, full: outage.full, ..Losses::default() };
    let mut rest = Vec::new();
    let within = |one: &Sample| (from..to).contains(&one.at) && !one.good;
    for (number, one) in (0_u64..).zip(datagrams).filter(|(_, one)| within(one)) {
        losses.lost += 1;
        let place = match number {
            n if received.contains(&n) => &mut losses.answers,
            n if outage.found.ring.contains(&n) => &mut losses.ring,
            n if outage.found.taken.contains(&n) => &mut losses.taken,
            _ => {
                rest.push((number, *one));
                continue;
            }
        };
        *place += 1;
    }
    let missing = rest.len() as u64;
    losses.unexplained = match missing.checked_sub(outage.dropped) {
        Some(more) => more.saturating_sub(outage.full),
        None => outage.dropped - missing,
    };
    // It may have left at any moment until its sender was told that it had.
    let outside = |one: &Sample| one.at + u64::from(one.sending) < outage.times.stopped || one.at > delivered;
    let strays: Vec<_> = rest.iter().filter(|(_, one)| outside(one)).collect();
    losses.outside = strays.len() as u64 + losses.answers;
    if losses.unexplained + losses.outside > 0 {
        tell(outage, delivered, &losses, &rest);
    }
    losses
}

/// For people who watch: when those were sent that are in no place, the first few of each run of neighbours.
fn tell(outage: &Outage, delivered: u64, losses: &Losses, rest: &[(u64, Sample)]) {
    let at = |at: u64| (at.cast_signed() - outage.times.stopped.cast_signed()) as f64 / 1000.0;
    let runs: Vec<_> = rest
        .chunk_by(|(one, _), (next, _)| one + 1 == *next)
        .map(|run| format!("{} from {:.3}", run.len(), at(run[0].1.at)))
        .take(12)
        .collect();
    eprintln!(
        "{losses:?}; ms since STOP: RESUME {:.3}, delivered {:.3}; in no place: {}",
        at(outage.times.resumed),
        at(delivered),
        runs.join(", ")
    );
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;
    use crate::lab::Timeline;

    const STOP: u64 = 2_000_000;
    const DELIVERED: u64 = 2_101_000;

    /// One every 10 ms from 1,900 ms on; those from 1,990 to before 2,130 ms, which are the numbers 9 to 22, lost.
    fn datagrams() -> Vec<Sample> {
        let at = |n: u64| 1_900_000 + n * 10_000;
        let lost = 1_990_000..2_130_000;
        let one =
            |n| Sample { at: at(n), good: !lost.contains(&at(n)), took: 900, migrating: true, sending: 200 };
        (0..130).map(one).collect()
    }

    fn outage(dropped: u64, ring: impl IntoIterator<Item = u64>, taken: &[u64]) -> Outage {
        let found = Found { ring: ring.into_iter().collect(), taken: taken.iter().copied().collect() };
        let times = Timeline { stopped: STOP, resumed: 2_100_000, ..Timeline::default() };
        Outage { times, dropped, found, ..Outage::default() }
    }

    fn counted(outage: &Outage, received: &[[u64; 2]], span: (u64, u64)) -> Losses {
        losses(outage, DELIVERED, &datagrams(), &Received(received.to_vec()), span)
    }

    const ALL: (u64, u64) = (0, u64::MAX);

    #[test]
    fn each_lost_datagram_is_in_one_place() {
        // QEMU took all that the guest had, and one more.
        let taken: Vec<u64> = (0..10).collect();
        let all = counted(&outage(11, [10, 11], &taken), &[[0, 8], [23, 129]], ALL);
        let expected = Losses { lost: 14, ring: 2, taken: 1, dropped: 11, outside: 2, ..Losses::default() };
        assert_eq!(all, expected, "at 2,110 and 2,120 ms lbx had known for long");
        // Two numbers that the guest has are answers that were lost, wherever else they are.
        let all = counted(&outage(11, [9, 10, 11], &[]), &[[0, 8], [10, 11]], ALL);
        assert_eq!((all.ring, all.answers, all.unexplained, all.outside), (1, 2, 0, 4));
    }

    #[test]
    fn one_too_many_and_one_too_few_are_unexplained() {
        let unexplained = |dropped, full| {
            let outage = Outage { full, ..outage(dropped, 9..13, &[]) };
            counted(&outage, &[], ALL).unexplained
        };
        assert_eq!([9, 10, 11].map(|dropped| unexplained(dropped, 0)), [1, 0, 1]);
        assert_eq!([(7, 3), (7, 2), (11, 3)].map(|(dropped, full)| unexplained(dropped, full)), [0, 1, 1]);
    }

    #[test]
    fn who_sends_before_the_stop_may_send_after_it() {
        let mut all = datagrams();
        let outside =
            |all: &[Sample]| losses(&outage(14, [], &[]), DELIVERED, all, &Received::default(), ALL).outside;
        assert_eq!(outside(&all), 3);
        all[9].sending = 10_000;
        assert_eq!(outside(&all), 2, "it was on its way when the guest stopped");
    }

    #[test]
    fn what_comes_late_or_twice_is_out_of_order() {
        let disordered = |runs: &[[u64; 2]]| Received(runs.to_vec()).disordered();
        assert_eq!(disordered(&[[0, 4], [7, 9]]), 0, "gaps are losses");
        assert_eq!(disordered(&[[0, 4], [6, 9], [5, 5], [10, 11]]), 1);
        assert_eq!(disordered(&[[0, 4], [4, 9], [2, 12]]), 1 + 8);
    }

    #[test]
    fn migrations_share_nothing() {
        let parts = [(0, STOP), (STOP, u64::MAX)].map(|span| counted(&outage(0, [], &[]), &[], span).lost);
        assert_eq!(parts, [1, 13]);
        let mut sum = Losses::default();
        for lost in parts {
            sum.add(&Losses { lost, outside: 1, ..Losses::default() });
        }
        assert_eq!((sum.lost, sum.outside), (14, 2));
    }

    #[test]
    fn only_numbered_datagrams_to_the_echo_count() {
        let frame = |port: u16, data: &[u8]| {
            let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
            let mut frame = Vec::new();
            builder.udp(4000, port).write(&mut frame, data).unwrap();
            // As short frames are on the wire.
            frame.resize(frame.len().max(60), 0);
            frame
        };
        let number = 77_u64.to_be_bytes();
        let with_header = [vec![0; VNET_HEADER], frame(7, &78_u64.to_be_bytes())].concat();
        let frames = [frame(7, &number), frame(8, &number), frame(7, b"who"), vec![1, 2, 3], with_header];
        assert_eq!(numbers(&frames), BTreeSet::from([77, 78]));
    }
}
