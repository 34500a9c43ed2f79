//! Health of targets: from the outcomes of checks to a verdict.
//!
//! | outcome | says about the target | counts |
//! |---|---|---|
//! | good | it serves | up |
//! | refused | it answered, and does not serve | down |
//! | silent | nobody answered | down, unless the checker is in doubt |
//! | unknown | nothing: the check could not be made | not |
//!
//! A checker in trouble must not take all targets down. It is in doubt about silence if its own way to the target
//! is cut, and if every target of a service fell silent in the same round while nobody else was heard.

/// What a check found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// What was hoped for.
    Good,
    /// An answer, and not the right one.
    Refused,
    /// No answer.
    Silent,
    /// The checker could not check.
    Unknown,
}

/// What speaks against believing that silence is the target's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doubt {
    /// Nothing.
    None,
    /// All targets of the service fell silent together and nobody else was heard: it takes twice as long.
    Suspected,
    /// The checker's own way there is cut: it is held for as long as that lasts.
    Cut,
}

/// Counts outcomes in a row and turns them into a verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Judge {
    healthy: Option<bool>,
    good: u32,
    bad: u32,
}

impl Judge {
    /// Starts from a verdict that is known already; without one the first success is a verdict.
    pub const fn new(known: Option<bool>) -> Self {
        Self { healthy: known, good: 0, bad: 0 }
    }

    /// The verdict; none while there was neither a success nor `fall` failures.
    pub const fn healthy(&self) -> Option<bool> {
        self.healthy
    }

    /// Successes or failures in a row, whichever came last.
    pub const fn in_row(&self) -> u32 {
        if self.good > self.bad { self.good } else { self.bad }
    }

    /// Takes one outcome into account. Whether a verdict of failure was due and is held because of doubt.
    pub const fn hear(&mut self, outcome: Outcome, rise: u32, fall: u32, doubt: Doubt) -> bool {
        match outcome {
            Outcome::Good => {
                (self.good, self.bad) = (self.good.saturating_add(1), 0);
                // A new target waits for its first success only: nobody knows anything against it.
                if self.good >= rise || self.healthy.is_none() {
                    self.healthy = Some(true);
                }
                false
            }
            Outcome::Refused | Outcome::Silent => {
                (self.bad, self.good) = (self.bad.saturating_add(1), 0);
                let silent = matches!(outcome, Outcome::Silent);
                let due = self.bad >= fall;
                let enough = match doubt {
                    Doubt::Suspected if silent => self.bad >= fall.saturating_mul(2),
                    Doubt::Cut if silent => false,
                    _ => due,
                };
                if enough {
                    self.healthy = Some(false);
                }
                due && !enough && !matches!(self.healthy, Some(false))
            }
            Outcome::Unknown => false,
        }
    }
}

/// Whether silence is to be doubted. Times are of one clock, in any unit.
///
/// `silent`: since when each target of the service has been silent, if it is, the one asked about included.
/// `round`: how far apart checks of one round can be. `answered`: when anybody on the same network was last heard.
pub fn doubt(cut: bool, silent: &[Option<u64>], round: u64, answered: Option<u64>) -> Doubt {
    if cut {
        return Doubt::Cut;
    }
    let all = silent.iter().copied().min().flatten().zip(silent.iter().copied().max().flatten());
    let Some((first, last)) = all else { return Doubt::None };
    let together = silent.len() > 1 && last - first <= round;
    let heard_since = answered.is_some_and(|at| at > last);
    if together && !heard_since { Doubt::Suspected } else { Doubt::None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(known: Option<bool>, outcomes: &str, doubt: Doubt) -> Option<bool> {
        let mut judge = Judge::new(known);
        for c in outcomes.chars() {
            let outcome = match c {
                '+' => Outcome::Good,
                '-' => Outcome::Refused,
                '.' => Outcome::Silent,
                _ => Outcome::Unknown,
            };
            judge.hear(outcome, 2, 3, doubt);
        }
        judge.healthy()
    }

    #[test]
    fn falls_and_rises_as_configured() {
        let rows: &[(Option<bool>, &str, Option<bool>)] = &[
            (None, "---", Some(false)),
            (None, "--", None),
            (None, "+", Some(true)),
            (Some(true), "+--+--", Some(true)),
            (Some(true), "+-.-", Some(false)),
            (Some(false), "+", Some(false)),
            (Some(false), "+-+", Some(false)),
            (Some(false), "++", Some(true)),
            (Some(true), "????????", Some(true)),
            (None, "????", None),
            (Some(true), "--??-", Some(false)),
        ];
        for (known, outcomes, verdict) in rows {
            assert_eq!(run(*known, outcomes, Doubt::None), *verdict, "{known:?} {outcomes}");
        }
    }

    #[test]
    fn silence_in_doubt_waits_and_a_refusal_does_not() {
        assert_eq!(run(Some(true), ".....", Doubt::Suspected), Some(true));
        assert_eq!(run(Some(true), "......", Doubt::Suspected), Some(false));
        assert_eq!(run(Some(true), "....................", Doubt::Cut), Some(true));
        assert_eq!(run(Some(true), "---", Doubt::Cut), Some(false));
        let mut judge = Judge::new(Some(true));
        let held = [1, 2, 3].map(|_| judge.hear(Outcome::Silent, 2, 3, Doubt::Cut));
        assert_eq!((held, judge.in_row()), ([false, false, true], 3));
    }

    #[test]
    fn all_at_once_and_nobody_else_heard_is_suspicious() {
        type Row = (&'static [Option<u64>], Option<u64>, Doubt);
        let rows: &[Row] = &[
            (&[Some(10), Some(12)], None, Doubt::Suspected),
            (&[Some(10), Some(12)], Some(11), Doubt::Suspected),
            (&[Some(10), Some(12)], Some(13), Doubt::None),
            (&[Some(10), None], None, Doubt::None),
            (&[Some(10), Some(50)], None, Doubt::None),
            (&[Some(10)], None, Doubt::None),
            (&[], None, Doubt::None),
        ];
        for (silent, answered, expected) in rows {
            assert_eq!(doubt(false, silent, 5, *answered), *expected, "{silent:?} {answered:?}");
        }
        assert_eq!(doubt(true, &[Some(1)], 5, Some(9)), Doubt::Cut);
    }

    proptest! {
        #[test]
        fn a_verdict_needs_its_row(outcomes in proptest::collection::vec(0..4u8, 0..40), rise in 1..5u32, fall in 1..5u32) {
            let mut judge = Judge::new(Some(true));
            let (mut good, mut bad) = (0, 0);
            for outcome in outcomes {
                let (before, outcome) = (judge.healthy(), match outcome {
                    0 => Outcome::Good,
                    1 => Outcome::Refused,
                    2 => Outcome::Silent,
                    _ => Outcome::Unknown,
                });
                match outcome {
                    Outcome::Good => (good, bad) = (good + 1, 0),
                    Outcome::Unknown => {}
                    _ => (good, bad) = (0, bad + 1),
                }
                judge.hear(outcome, rise, fall, Doubt::None);
                if judge.healthy() != before {
                    let up = judge.healthy() == Some(true);
                    prop_assert!(up && good >= rise || !up && bad >= fall);
                }
                prop_assert!(bad < fall || judge.healthy() == Some(false));
            }
        }
    }
}
