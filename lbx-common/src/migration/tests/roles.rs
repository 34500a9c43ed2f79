//! What the record says of a host, and what it has to do with the migration now.

use super::*;

#[test]
fn where_nobody_awaits_it_any_more_the_record_says_that_it_was_awaited() {
    use What::{Expected, Transferring};
    let mut machine = after(Source::Qmp, Here::Incoming, &[Expected, Transferring]);
    let there = Facts { here: Here::Absent, there: There::Running };
    assert_eq!(machine.resolve(there, S), Some(What::Failed));
    assert_eq!((machine.role, machine.part()), (Role::Destination, Role::Bystander));
    assert_eq!(machine.want(S, &rules()), Want::Nothing, "it is a target on another host, as before");

    // Somebody tries it again.
    let again = Event::new(Expected, Source::Qmp, 2 * S);
    assert_eq!(machine.hear(&again, Here::Incoming), Heard::News);
    assert_eq!((machine.role, machine.part()), (Role::Destination, Role::Destination));
    assert_eq!(machine.want(2 * S, &rules()), Want::Moved);
}

#[test]
fn who_was_started_where_nobody_was_awaited_any_more_can_leave() {
    use What::{Expected, Resumed, Stopped, Transferring};
    let mut machine = Some(after(Source::Qmp, Here::Incoming, &[Expected, Transferring]));
    let there = Facts { here: Here::Absent, there: There::Running };
    machine.as_mut().unwrap().resolve(there, S);
    let whats = [Resumed(Place::Here), Transferring, Stopped];
    tell(&mut machine, Source::Qmp, Here::Running, 2 * S, &whats);
    tell(&mut machine, Source::Peer, Here::Gone, 3 * S, &[Resumed(Place::There)]);
    let machine = machine.unwrap();
    assert_eq!((machine.role, machine.want(3 * S, &rules())), (Role::Source, Want::Moved));
}

/// News, or a look at how things are.
#[derive(Debug, Clone)]
enum Step {
    Said(What, Source, Here),
    Looked(Facts),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let said = (what(), proptest::sample::select(Source::ALL.to_vec()), here())
        .prop_map(|(what, source, here)| Step::Said(what, source, here));
    let looked = (here(), there()).prop_map(|(here, there)| Step::Looked(Facts { here, there }));
    proptest::collection::vec(prop_oneof![2 => said, 1 => looked], 1..24)
}

fn step(machine: &mut Option<Machine>, step: &Step, now: Micros) {
    match (machine, step) {
        (Some(machine), Step::Said(what, source, here)) => {
            machine.hear(&Event::new(*what, *source, now), *here);
        }
        (machine @ None, Step::Said(what, source, here)) => {
            *machine = Machine::begin(&Event::new(*what, *source, now), *here);
        }
        (Some(machine), Step::Looked(facts)) => drop(machine.resolve(*facts, now)),
        (None, Step::Looked(_)) => {}
    }
}

/// A machine that keeps no record: its host is what it has to do with it now.
fn forget(machine: &mut Option<Machine>) {
    if let Some(machine) = machine {
        (machine.role, machine.absent) = (machine.part(), false);
    }
}

proptest! {
    /// The record is for people: whatever is said and found, the same follows as without it.
    #[test]
    fn what_follows_does_not_depend_on_the_record(steps in steps(), hold in any::<bool>(), all in any::<bool>()) {
        let rules = Rules { hold, blackhole_all: all, ..rules() };
        let (mut machine, mut other): (Option<Machine>, Option<Machine>) = (None, None);
        for (n, one) in steps.iter().enumerate() {
            let now = S + n as Micros * 700 * MS;
            step(&mut machine, one, now);
            step(&mut other, one, now);
            forget(&mut other);
            let follows = |machine: &Option<Machine>| machine.map(|machine| {
                let later = [0, MS, 5 * S, 60 * S].map(|after| machine.want(now + after, &rules));
                let parts = machine.parts(0, now + 120 * S, &rules);
                (machine.phase, machine.place, later, parts, machine.due(&rules), machine.part())
            });
            prop_assert_eq!(follows(&machine), follows(&other), "{:?} {:?}", machine, other);
        }
    }

    /// Where nobody is, a look changes nothing of what the record says of the host; and only of a host where it was
    /// awaited it says that nobody does so any more, and only until somebody is there again.
    #[test]
    fn a_look_at_nobody_rewrites_no_record(steps in steps()) {
        let mut machine: Option<Machine> = None;
        for (n, one) in steps.iter().enumerate() {
            let before = machine;
            step(&mut machine, one, S + n as Micros * 700 * MS);
            let Some(machine) = machine else { continue };
            prop_assert!(!machine.absent || machine.role == Role::Destination, "{machine:?}");
            match one {
                Step::Looked(Facts { here: Here::Absent, .. }) => {
                    prop_assert_eq!(before.map(|before| before.role), Some(machine.role));
                    prop_assert!(!machine.phase.is_end() || machine.part() != Role::Destination, "{machine:?}");
                }
                Step::Looked(_) => prop_assert!(!machine.absent, "somebody is there: {machine:?}"),
                Step::Said(What::Expected, ..) => {
                    prop_assert_eq!(machine.part(), Role::Destination);
                }
                Step::Said(..) => {}
            }
        }
    }
}
