mod roles;

use super::*;
use crate::target::State;
use crate::wish::{Owner, Wish, Wishes, rank};
use proptest::prelude::*;

const MS: Micros = 1_000;
const S: Micros = 1_000_000;

fn rules() -> Rules {
    Rules::default()
}

/// Tells events of one source, a millisecond after the other; what they were.
fn tell(
    machine: &mut Option<Machine>,
    source: Source,
    here: Here,
    from: Micros,
    whats: &[What],
) -> Vec<Heard> {
    let mut heard = Vec::new();
    for (n, what) in whats.iter().enumerate() {
        let event = Event::new(*what, source, from + n as Micros * MS);
        match machine {
            Some(machine) => heard.push(machine.hear(&event, here)),
            None => *machine = Machine::begin(&event, here),
        }
    }
    heard
}

fn after(source: Source, here: Here, whats: &[What]) -> Machine {
    let mut machine = None;
    tell(&mut machine, source, here, 0, whats);
    machine.expect("it begins")
}

#[test]
fn names() {
    for phase in Phase::ALL {
        assert_eq!(Phase::from_name(phase.name()), Some(phase));
    }
    assert_eq!(Phase::from_name("moving"), None);
    assert!(Phase::Failed.is_end() && !Phase::Resumed.is_end());
    assert_eq!(What::Expected.phase(), Phase::Announced);
    assert_eq!(What::HandedOver.name(), "handed_over");
}

#[test]
fn each_phase_wants_its_own_of_the_source() {
    use What::{Announced, Done, HandedOver, Resumed, Stopped, Transferring};
    let steps = [
        (Announced, Want::Drain(0)),
        (Transferring, Want::Drain(0)),
        (Stopped, Want::Blackhole),
        (HandedOver, Want::Blackhole),
        (Resumed(Place::There), Want::Moved),
        (Done(Place::There), Want::Moved),
    ];
    for n in 1..=steps.len() {
        let whats: Vec<What> = steps[..n].iter().map(|(what, _)| *what).collect();
        let machine = after(Source::Operator, Here::Present, &whats);
        assert_eq!(machine.want(10 * MS, &rules()), steps[n - 1].1, "after {whats:?}");
    }
    let all = Rules { blackhole_all: true, ..rules() };
    let machine = after(Source::Operator, Here::Present, &[Announced, Transferring]);
    assert_eq!(machine.want(0, &all), Want::Blackhole);
    let held = Rules { hold: true, share: 50, ..rules() };
    assert_eq!(machine.want(0, &held), Want::Drain(50));
    let machine = after(Source::Qmp, Here::Present, &[Transferring, Stopped]);
    assert_eq!(machine.want(0, &held), Want::Hold);
}

#[test]
fn datagrams_part_from_a_vm_that_has_been_drained_for_long() {
    use What::{Announced, Cancelled, Done, Expected, Resumed, Stopped, Transferring};
    let (rules, late) = (Rules { datagrams: 5 * S, ..rules() }, 5 * S);
    for whats in [&[Announced][..], &[Announced, Transferring], &[Transferring]] {
        let machine = after(Source::Operator, Here::Present, whats);
        assert!(!machine.parts(0, late - 1, &rules), "{whats:?}: they have time left");
        assert!(machine.parts(0, late, &rules), "{whats:?}");
        assert!(!machine.parts(S, late, &rules), "{whats:?}: it began later");
    }
    // Where they have to wait, or may stay after all, or go with it.
    for whats in [
        &[Transferring, Stopped][..],
        &[Announced, Cancelled],
        &[Transferring, Stopped, Resumed(Place::Here)],
        &[Transferring, Stopped, Resumed(Place::There)],
        &[Transferring, Stopped, Resumed(Place::There), Done(Place::There)],
    ] {
        assert!(!after(Source::Operator, Here::Present, whats).parts(0, late, &rules), "{whats:?}");
    }
    assert!(!after(Source::Qmp, Here::Incoming, &[Expected, Transferring]).parts(0, late, &rules));
    let whole = Rules { share: 1000, ..rules };
    assert!(!after(Source::Operator, Here::Present, &[Announced]).parts(0, late, &whole), "nobody drains it");
}

#[test]
fn where_it_comes_to_is_its_destination_whatever_was_known_before() {
    use What::{Announced, Done, Resumed, Transferring};
    let machine = after(Source::Peer, Here::Absent, &[Announced, Transferring]);
    assert_eq!(machine.role, Role::Bystander);
    let machine = after(Source::Peer, Here::Absent, &[Announced, Transferring, Resumed(Place::Here)]);
    assert_eq!((machine.role, machine.place), (Role::Destination, Some(Place::Here)));
    let machine = after(Source::Peer, Here::Absent, &[Announced, Resumed(Place::There), Done(Place::There)]);
    assert_eq!(machine.role, Role::Bystander);
}

#[test]
fn the_destination_gets_nothing_until_it_runs_and_then_grows() {
    use What::{Done, Expected, Resumed, Stopped, Transferring};
    let half = Rules { share: 500, ..rules() };
    for whats in [&[Expected][..], &[Expected, Transferring]] {
        let machine = after(Source::Qmp, Here::Incoming, whats);
        assert_eq!(
            (machine.role, machine.want(5 * MS, &half)),
            (Role::Destination, Want::Moved),
            "{whats:?}"
        );
    }
    // A peer says that it was stopped there: nobody takes its packets, there or here.
    let mut machine = after(Source::Peer, Here::Incoming, &[Expected, Transferring, Stopped]);
    assert_eq!((machine.want(5 * MS, &half), machine.falls_back()), (Want::Blackhole, State::Moved));
    // Nobody says more: it may be stopped there for long, or run there again.
    let incoming = Facts { here: Here::Incoming, ..Facts::default() };
    let mut forgotten = machine;
    assert_eq!(forgotten.resolve(incoming, 12 * S), Some(Expected));
    assert_eq!(forgotten.want(12 * S, &half), Want::Moved);
    // Handed over it is given the time to arrive.
    machine.hear(&Event::new(What::HandedOver, Source::Peer, 6 * MS), Here::Incoming);
    assert_eq!((machine.want(7 * MS, &half), machine.falls_back()), (Want::Blackhole, State::Draining));
    assert_eq!((machine.resolve(incoming, S), machine.want(S, &half)), (None, Want::Blackhole));
    let mut machine = after(Source::Qmp, Here::Incoming, &[Expected, Transferring, Resumed(Place::Here)]);
    assert_eq!(machine.want(2 * MS, &rules()), Want::Grow(100));
    assert_eq!(machine.want(2 * MS + 5 * S, &rules()), Want::Grow(550));
    machine.hear(&Event::new(Done(Place::Here), Source::Qmp, S), Here::Running);
    assert_eq!(machine.want(2 * MS + 5 * S, &rules()), Want::Grow(550), "it does not begin anew");
    assert_eq!(machine.want(11 * S, &rules()), Want::Nothing);
    assert!(!machine.is_over(11 * S, &rules()), "it is looked at once more");
    assert_eq!(machine.resolve(Facts { here: Here::Running, ..Facts::default() }, 3 * S), None);
    assert!(machine.is_over(11 * S, &rules()));
}

#[test]
fn what_fails_is_restored_at_once() {
    use What::{Announced, Cancelled, Failed, Stopped, Transferring};
    for end in [Failed, Cancelled] {
        for whats in [&[Announced, end][..], &[Announced, Transferring, end], &[Announced, Stopped, end]] {
            let machine = after(Source::Operator, Here::Present, whats);
            assert_eq!(machine.want(9 * MS, &rules()), Want::Nothing, "{whats:?}");
        }
        // Its monitor said that it was stopped, and will say when it is not.
        let mut machine = after(Source::Qmp, Here::Running, &[Transferring, Stopped, end]);
        assert_eq!(machine.want(9 * MS, &rules()), Want::Blackhole);
        let resumed = Event::new(What::Resumed(Place::Here), Source::Qmp, 5 * MS);
        assert_eq!(machine.hear(&resumed, Here::Running), Heard::News);
        assert_eq!(machine.want(9 * MS, &rules()), Want::Nothing);
        // To the destination it did not come: flows that are known there follow it as before.
        let machine = after(Source::Qmp, Here::Incoming, &[What::Expected, Transferring, end]);
        assert_eq!(machine.want(9 * MS, &rules()), Want::Moved);
    }
}

#[test]
fn a_pause_is_no_migration() {
    let mut machine = Some(after(Source::Qmp, Here::Running, &[What::Stopped]));
    assert_eq!(machine.unwrap().want(0, &Rules { hold: true, ..rules() }), Want::Blackhole);
    tell(&mut machine, Source::Qmp, Here::Running, MS, &[What::Resumed(Place::Here)]);
    let machine = machine.unwrap();
    assert_eq!((machine.phase, machine.want(MS, &rules())), (Phase::Done, Want::Nothing), "no slow start");
    // And a long one is no reason to keep flows waiting.
    let mut machine = after(Source::Qmp, Here::Running, &[What::Stopped]);
    assert_eq!(machine.due(&rules()), Some(10 * S));
    let facts = Facts { here: Here::Paused, ..Facts::default() };
    assert_eq!(machine.resolve(facts, 10 * S), Some(What::Failed));
    assert_eq!(machine.want(10 * S, &rules()), Want::Down);
    let resumed = Event::new(What::Resumed(Place::Here), Source::Qmp, 20 * S);
    assert_eq!(machine.hear(&resumed, Here::Running), Heard::News);
    assert_eq!(machine.want(20 * S, &rules()), Want::Nothing);
}

#[test]
fn late_news_of_others_does_not_stop_a_vm_that_its_monitor_says_runs() {
    let mut machine = Some(after(Source::Qmp, Here::Running, &[What::Transferring, What::Stopped]));
    tell(&mut machine, Source::Qmp, Here::Running, 2 * MS, &[What::Cancelled, What::Resumed(Place::Here)]);
    let before = machine;
    let heard = tell(
        &mut machine,
        Source::Libvirt,
        Here::Running,
        9 * MS,
        &[What::Stopped, What::Done(Place::There)],
    );
    assert_eq!((heard, machine), (vec![Heard::Contradicted; 2], before));
    let event = Event::new(What::Stopped, Source::Libvirt, 0);
    assert_eq!(Machine::begin(&event, Here::Running), None);
}

#[test]
fn a_source_that_has_sent_everything_waits_a_moment_for_the_destination() {
    let whats = [What::Transferring, What::Stopped, What::HandedOver];
    let machine = after(Source::Qmp, Here::Running, &whats);
    let due = 2 * MS + 300 * MS;
    assert_eq!(machine.due(&rules()), Some(due));
    for (there, soon, late) in [
        (There::Unknown, Want::Moved, Want::Moved),
        (There::Running, Want::Moved, Want::Moved),
        // It is awaited there, and takes its time; but not for ever.
        (There::NotRunning, Want::Blackhole, Want::Down),
        (There::Gone, Want::Down, Want::Down),
    ] {
        let mut machine = machine;
        machine.resolve(Facts { here: Here::Gone, there }, due);
        assert_eq!(machine.want(due, &rules()), soon, "{there:?}");
        machine.resolve(Facts { here: Here::Gone, there }, 3 * S);
        assert_eq!(machine.want(3 * S, &rules()), late, "{there:?}");
    }
}

#[test]
fn the_next_migration_begins_where_the_last_one_ended() {
    let mut machine = Some(after(Source::Qmp, Here::Incoming, &[What::Expected, What::Resumed(Place::Here)]));
    tell(&mut machine, Source::Qmp, Here::Running, 2 * MS, &[What::Done(Place::Here)]);
    tell(&mut machine, Source::Qmp, Here::Running, 9 * S, &[What::Transferring]);
    let back = machine.unwrap();
    assert_eq!(
        (back.role, back.phase, back.want(9 * S, &rules())),
        (Role::Source, Phase::Transferring, Want::Drain(0))
    );
}

#[test]
fn a_monitor_that_is_heard_again_begins_nothing() {
    let mut machine =
        after(Source::Qmp, Here::Running, &[What::Transferring, What::Stopped, What::HandedOver]);
    machine.resolve(Facts { here: Here::Gone, ..Facts::default() }, 2 * S);
    let before = machine;
    for what in [What::Stopped, What::HandedOver, What::Announced, What::Transferring] {
        let heard = machine.hear(&Event::new(what, Source::Qmp, 3 * S), Here::Gone);
        assert_ne!(heard, Heard::News, "{what:?}");
    }
    assert_eq!(machine.want(3 * S, &rules()), before.want(3 * S, &rules()));
    // It comes back.
    assert_eq!(machine.hear(&Event::new(What::Expected, Source::Qmp, 4 * S), Here::Incoming), Heard::News);
    assert_eq!((machine.role, machine.want(4 * S, &rules())), (Role::Destination, Want::Moved));
}

fn what() -> impl Strategy<Value = What> {
    use What::{Announced, Cancelled, Done, Expected, Failed, HandedOver, Resumed, Stopped, Transferring};
    let place = prop_oneof![Just(Place::Here), Just(Place::There)];
    prop_oneof![
        Just(Announced),
        Just(Expected),
        Just(Transferring),
        Just(Stopped),
        Just(HandedOver),
        place.clone().prop_map(Resumed),
        place.prop_map(Done),
        Just(Failed),
        Just(Cancelled),
    ]
}

fn here() -> impl Strategy<Value = Here> {
    use Here::{Absent, Finishing, Gone, Incoming, Migrating, Paused, Present, Running};
    proptest::sample::select(vec![Absent, Present, Running, Migrating, Finishing, Paused, Incoming, Gone])
}

fn there() -> impl Strategy<Value = There> {
    proptest::sample::select(vec![There::Unknown, There::Running, There::NotRunning, There::Gone])
}

fn events() -> impl Strategy<Value = Vec<(What, Source, Here)>> {
    let one = (what(), proptest::sample::select(Source::ALL.to_vec()), here());
    proptest::collection::vec(one, 1..12)
}

/// Whether a machine may want this of targets, if the facts are these and stay so.
#[expect(clippy::match_same_arms, reason = "a table, in the order of the facts")]
fn safe(want: Want, facts: Facts, role: Role, all: bool) -> bool {
    match (facts.here, facts.there) {
        // Runs here: active, at the latest when its share has grown.
        (Here::Running, _) => want == Want::Nothing,
        // Under way: no new flows or fewer, and nothing dropped while it runs unless that is wished.
        (Here::Migrating, _) if all && want == Want::Blackhole => true,
        (Here::Migrating, _) => matches!(want, Want::Drain(_) | Want::Nothing | Want::Moved),
        (Here::Finishing, _) => want != Want::Down || role == Role::Destination,
        (Here::Incoming, _) => matches!(want, Want::Moved | Want::Down),
        // Runs there: its flows follow it; where it was a machine elsewhere all along, it is used.
        (Here::Absent, There::Running) => matches!(want, Want::Moved | Want::Nothing | Want::Down),
        (_, There::Running) => want == Want::Moved || (role == Role::Destination && want == Want::Down),
        // Runs nowhere.
        (Here::Paused | Here::Gone, There::NotRunning | There::Gone) => want == Want::Down,
        (Here::Paused, There::Unknown) => want == Want::Down,
        (Here::Gone, There::Unknown) => {
            want == Want::Moved || (role == Role::Destination && want == Want::Down)
        }
        (Here::Absent, There::NotRunning | There::Gone) => want == Want::Down,
        (Here::Present, There::NotRunning | There::Gone) => want == Want::Nothing,
        // Not known: never a blackhole or a drain for ever.
        (Here::Present | Here::Absent, There::Unknown) => {
            matches!(want, Want::Nothing | Want::Moved | Want::Down)
        }
    }
}

proptest! {
    /// Events in any order, some lost, some twice, by anybody: when they end, what is wanted is safe within the
    /// watchdog's times, and stays so.
    #[test]
    fn any_order_of_events_ends_in_a_safe_state(
        events in events(), at_the_end in here(), there in there(), hold in any::<bool>(), all in any::<bool>(),
    ) {
        let rules = Rules { hold, blackhole_all: all, ..rules() };
        let facts = Facts { here: at_the_end, there };
        let mut machine: Option<Machine> = None;
        let mut now = S;
        for (what, source, here) in events {
            now += MS;
            let event = Event::new(what, source, now);
            match &mut machine {
                Some(machine) => drop(machine.hear(&event, here)),
                None => machine = Machine::begin(&event, here),
            }
            if let Some(machine) = machine {
                prop_assert!(machine.due(&rules).is_none_or(|due| due >= now));
                prop_assert!(machine.want(now, &rules) != Want::Blackhole || machine.due(&rules).is_some(),
                    "a blackhole that nobody looks into: {machine:?}");
            }
        }
        let Some(mut machine) = machine else { return Ok(()) };
        // What was handed over is looked into several times before it is given up.
        for _ in 0..16 {
            let Some(due) = machine.due(&rules) else { break };
            now = now.max(due);
            machine.resolve(facts, now);
        }
        now += 3600 * S;
        let want = machine.want(now, &rules);
        prop_assert!(safe(want, facts, machine.part(), all), "{facts:?} and {want:?}: {machine:?}");
    }

    /// Saying everything twice changes nothing.
    #[test]
    fn events_may_come_twice(events in events()) {
        let (mut once, mut twice): (Option<Machine>, Option<Machine>) = (None, None);
        for (n, (what, source, here)) in events.into_iter().enumerate() {
            let event = Event::new(what, source, S + n as Micros * MS);
            match &mut once {
                Some(machine) => drop(machine.hear(&event, here)),
                None => once = Machine::begin(&event, here),
            }
            for _ in 0..2 {
                match &mut twice {
                    Some(machine) => drop(machine.hear(&event, here)),
                    None => twice = Machine::begin(&event, here),
                }
            }
            let now = S + n as Micros * MS;
            let want = |machine: &Option<Machine>| machine.map(|machine| machine.want(now, &rules()));
            prop_assert_eq!(want(&once), want(&twice), "{:?} {:?}", once, twice);
        }
    }

    /// What anybody else wishes counts beside migration's wish, and again when that is gone.
    #[test]
    fn no_owners_wish_is_overridden(events in events(), state in 0..6u8, by in 0..3usize) {
        let owner = [Owner::Operator, Owner::Health, Owner::Presence][by];
        let state = State::from_u8(state);
        let other = if state == State::Blackholed { Wish::blackholed(9) } else { Wish::new(state) };
        let mut wishes = Wishes::default();
        wishes.set(owner, other);
        let alone = wishes.effective(0);
        let mut machine: Option<Machine> = None;
        for (n, (what, source, here)) in events.into_iter().enumerate() {
            let event = Event::new(what, source, S + n as Micros * MS);
            match &mut machine {
                Some(machine) => drop(machine.hear(&event, here)),
                None => machine = Machine::begin(&event, here),
            }
            let want = machine.map_or(Want::Nothing, |machine| machine.want(event.at, &rules()));
            wishes.set(Owner::Migration, want.wish(5).unwrap_or_default());
            let now = wishes.effective(0);
            prop_assert!(rank(now.state, now.by) >= rank(alone.state, alone.by));
            prop_assert_eq!(wishes.get(owner), other);
        }
        wishes.clear(Owner::Migration);
        prop_assert_eq!(wishes.effective(0), alone);
    }
}
