//! Who answers for an address: ask first, announce, defend, give way. Time comes in, actions go out.
//!
//! After RFC 5227 (address conflict detection), with shorter times: hosts of one segment that are asked for
//! an address they hold answer within milliseconds. Two lbx hosts that ask at once: the lower MAC goes on.

use std::time::{Duration, Instant};

use lbx_common::addr::Mac;
use serde::{Deserialize, Serialize};

use super::frame::Said;

/// Questions before an address counts as free.
const PROBES: u8 = 3;
/// Time between them, and after the last.
const PROBE_GAP: Duration = Duration::from_millis(350);
/// Announcements after taking an address.
const ANNOUNCEMENTS: u8 = 3;
/// Time between announcements.
const ANNOUNCE_GAP: Duration = Duration::from_secs(1);
/// How often it is asked whether another still answers.
const WATCH_GAP: Duration = Duration::from_secs(2);
/// How often it is asked, while this host answers, whether another does too: who answers by unicast is not heard
/// otherwise.
pub const CHECK_GAP: Duration = Duration::from_secs(20);
/// The first time after a restart, and after a conflict that was defended against.
const CHECK_SOON: Duration = Duration::from_secs(1);
/// A second conflict within this time is not defended against (RFC 5227, DEFEND_INTERVAL).
const DEFEND: Duration = Duration::from_secs(10);

/// What to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A question.
    Probe,
    /// A question that this host's own datapath, which answers, must not see.
    Check,
    /// An announcement.
    Announce,
}

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub enum Phase {
    /// Asking whether the address is in use.
    Probing,
    /// This host answers.
    Answering,
    /// Another answers.
    Taken {
        /// Who.
        by: Mac,
    },
}

/// One address on one VLAN of one switch.
#[derive(Debug)]
pub struct Machine {
    own: Mac,
    phase: Phase,
    /// Questions or announcements still to be sent.
    left: u8,
    /// When the next one is due.
    due: Instant,
    last_conflict: Option<Instant>,
    /// Time between checks.
    gap: Duration,
    /// Hosts and addresses that start at one moment are not to ask at one moment for ever.
    seed: u64,
}

impl Machine {
    /// Starts asking; or, where the maps say that this host answers already, goes on answering. `seed`: any number,
    /// another one for every address.
    pub fn new(own: Mac, answering: bool, seed: u64, now: Instant) -> Self {
        let (phase, left) = if answering { (Phase::Answering, 0) } else { (Phase::Probing, PROBES) };
        let mac = own.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
        let mut machine =
            Self { own, phase, left, due: now, last_conflict: None, gap: CHECK_GAP, seed: seed ^ mac };
        if answering {
            machine.due = now + machine.jitter(CHECK_SOON);
        }
        machine
    }

    /// Time between checks; longer where there are many addresses, so that their sum stays bounded.
    pub const fn set_gap(&mut self, gap: Duration) {
        self.gap = gap;
    }

    /// Where it stands.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether the datapath should answer.
    pub const fn answers(&self) -> bool {
        matches!(self.phase, Phase::Answering)
    }

    /// When [`Machine::tick`] wants to be called next.
    pub const fn due(&self) -> Instant {
        self.due
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) -> Option<Action> {
        if now < self.due {
            return None;
        }
        match self.phase {
            Phase::Probing if self.left > 0 => {
                self.left -= 1;
                self.due = now + PROBE_GAP;
                Some(Action::Probe)
            }
            Phase::Probing => {
                self.phase = Phase::Answering;
                Some(self.announce(now))
            }
            Phase::Answering if self.left == 0 => {
                self.due = now + self.jitter(self.gap);
                Some(Action::Check)
            }
            Phase::Answering => {
                self.left -= 1;
                let disputed = self.last_conflict.is_some_and(|last| now - last < DEFEND);
                // Who was defended against and goes on answering has to be heard before the defence is forgotten.
                let then = if disputed { CHECK_SOON } else { self.gap };
                self.due = now + if self.left > 0 { ANNOUNCE_GAP } else { self.jitter(then) };
                Some(Action::Announce)
            }
            // Silence since the last question: a full round of questions follows at once.
            Phase::Taken { .. } if self.left == 0 => {
                self.probe(now);
                self.left -= 1;
                Some(Action::Probe)
            }
            Phase::Taken { .. } => {
                self.left = 0;
                self.due = now + PROBE_GAP;
                Some(Action::Probe)
            }
        }
    }

    /// Somebody said something about the address.
    pub fn heard(&mut self, from: Mac, said: Said, now: Instant) -> Option<Action> {
        if from == self.own {
            return None;
        }
        match (self.phase, said) {
            (Phase::Probing | Phase::Taken { .. }, Said::Claim) => self.yield_to(from, now),
            // Both are asking: the lower MAC goes on.
            (Phase::Probing, Said::Probe) if from < self.own => self.yield_to(from, now),
            (Phase::Answering, Said::Claim) => {
                let again = self.last_conflict.is_some_and(|last| now - last < DEFEND);
                self.last_conflict = Some(now);
                if from < self.own || again {
                    self.yield_to(from, now);
                } else {
                    return Some(self.announce(now));
                }
            }
            // The question of another that the datapath did not see: answer it here.
            (Phase::Answering, Said::Probe) => return Some(Action::Announce),
            (Phase::Probing | Phase::Taken { .. }, Said::Probe) => {}
        }
        None
    }

    /// The address of the switch changed, or it was lost: ask again.
    pub fn restart(&mut self, own: Mac, now: Instant) {
        *self = Self { gap: self.gap, ..Self::new(own, false, self.seed, now) };
    }

    fn probe(&mut self, now: Instant) {
        self.phase = Phase::Probing;
        self.left = PROBES;
        self.due = now + PROBE_GAP;
    }

    fn announce(&mut self, now: Instant) -> Action {
        self.left = ANNOUNCEMENTS - 1;
        self.due = now + ANNOUNCE_GAP;
        Action::Announce
    }

    fn yield_to(&mut self, by: Mac, now: Instant) {
        self.phase = Phase::Taken { by };
        self.left = 1;
        self.due = now + self.jitter(WATCH_GAP);
    }

    /// The time and up to a quarter more (xorshift64*, Marsaglia and Vigna).
    fn jitter(&mut self, time: Duration) -> Duration {
        let mut next = self.seed | 1;
        next ^= next >> 12;
        next ^= next << 25;
        next ^= next >> 27;
        self.seed = next;
        let share = next.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56;
        time + time * (share as u32) / 1024
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOW: Mac = [2, 0, 0, 0, 0, 1];
    const OWN: Mac = [2, 0, 0, 0, 0, 5];
    const HIGH: Mac = [2, 0, 0, 0, 0, 9];

    fn started(own: Mac, answering: bool, now: Instant) -> Machine {
        Machine::new(own, answering, 7, now)
    }

    /// Runs until `until`, collecting what is sent.
    fn run(machine: &mut Machine, from: Instant, millis: u64) -> Vec<Action> {
        (0..=millis).filter_map(|ms| machine.tick(from + Duration::from_millis(ms))).collect()
    }

    #[test]
    fn silence_means_yes_and_is_announced() {
        let now = Instant::now();
        let mut machine = started(OWN, false, now);
        let sent = run(&mut machine, now, 5_000);
        assert_eq!(sent, [[Action::Probe; 3], [Action::Announce; 3]].concat());
        assert!(machine.answers() && machine.due() > now + CHECK_GAP);
    }

    #[test]
    fn an_owner_is_respected_for_as_long_as_it_answers() {
        let now = Instant::now();
        let mut machine = started(OWN, false, now);
        assert_eq!(machine.tick(now), Some(Action::Probe));
        machine.heard(HIGH, Said::Claim, now);
        assert_eq!(machine.phase(), Phase::Taken { by: HIGH });
        let mut at = now;
        for _ in 0..10 {
            at = machine.due();
            assert_eq!(machine.tick(at), Some(Action::Probe));
            machine.heard(HIGH, Said::Claim, at);
            assert!(!machine.answers());
        }
        let sent = run(&mut machine, at, 8_000);
        assert!(machine.answers(), "it stopped answering: {sent:?}");
        assert_eq!(sent.iter().filter(|action| **action == Action::Announce).count(), 3);
    }

    #[test]
    fn of_two_that_ask_the_lower_goes_on() {
        let now = Instant::now();
        let mut machine = started(OWN, false, now);
        machine.tick(now);
        machine.heard(HIGH, Said::Probe, now);
        assert_eq!(machine.phase(), Phase::Probing);
        machine.heard(LOW, Said::Probe, now);
        assert_eq!(machine.phase(), Phase::Taken { by: LOW });
        machine.heard(OWN, Said::Probe, now);
    }

    #[test]
    fn an_address_is_defended_once() {
        let now = Instant::now();
        let mut machine = started(OWN, true, now);
        assert_eq!(machine.heard(HIGH, Said::Claim, now), Some(Action::Announce));
        assert!(machine.answers());
        assert_eq!(machine.heard(HIGH, Said::Claim, now + Duration::from_secs(11)), Some(Action::Announce));
        machine.heard(HIGH, Said::Claim, now + Duration::from_secs(12));
        assert!(!machine.answers());
    }

    #[test]
    fn two_that_both_answer_end_with_one() {
        let now = Instant::now();
        let (mut low, mut high) = (started(LOW, true, now), started(HIGH, true, now));
        // Both announce; each hears the other.
        low.heard(HIGH, Said::Claim, now);
        high.heard(LOW, Said::Claim, now);
        assert!(low.answers() && !high.answers());
        assert_eq!(high.phase(), Phase::Taken { by: LOW });
    }

    #[test]
    fn a_restarted_daemon_goes_on_answering() {
        let now = Instant::now();
        let mut machine = started(OWN, true, now);
        assert!(machine.answers());
        assert_eq!(run(&mut machine, now, 3_000), [Action::Check]);
        assert!(machine.answers());
    }

    #[test]
    fn who_answers_looks_for_others_at_a_bounded_rate() {
        let now = Instant::now();
        let mut first = started(OWN, true, now);
        let (mut checks, mut gaps) = (Vec::new(), Vec::new());
        while checks.len() < 50 {
            let at = first.due();
            assert_eq!(first.tick(at), Some(Action::Check));
            gaps.extend(checks.last().map(|last| at - *last));
            checks.push(at);
        }
        assert!(gaps.iter().all(|gap| (CHECK_GAP..=CHECK_GAP * 5 / 4).contains(gap)), "{gaps:?}");
        gaps.sort_unstable();
        gaps.dedup();
        assert!(gaps.len() > 10, "they are spread: {gaps:?}");
        first.set_gap(CHECK_GAP * 10);
        let at = first.due();
        first.tick(at);
        assert!(first.due() >= at + CHECK_GAP * 10);
    }

    #[test]
    fn a_silent_owner_is_found_by_asking_and_resolves_itself_when_it_goes() {
        // It answers when asked, and says nothing by itself; its MAC is the higher one, so it is defended against.
        let now = Instant::now();
        let mut machine = started(OWN, true, now);
        let mut at = now;
        let mut sent = Vec::new();
        for ms in 0..20_000 {
            at = now + Duration::from_millis(ms);
            let Some(action) = machine.tick(at) else { continue };
            sent.push(action);
            if action != Action::Announce {
                let defended = machine.heard(HIGH, Said::Claim, at + Duration::from_millis(1));
                sent.extend(defended);
            }
            if !machine.answers() {
                break;
            }
        }
        assert_eq!(machine.phase(), Phase::Taken { by: HIGH }, "{sent:?}");
        assert!(at - now < DEFEND, "after {:?}", at - now);
        // It goes: nobody answers the questions any more.
        run(&mut machine, at, 6_000);
        assert!(machine.answers());
    }
}
