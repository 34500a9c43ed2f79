//! The reconciler against maps in memory.

use std::net::IpAddr;
use std::time::Duration;

use lbx_common::flow::TargetWord;
use lbx_common::target::{Deliver, State, Weight, flags};

use super::desired::{Moves, Place, StateWant, Through};
use super::reconcile::Reconciler;
use super::testing::{Memory, desired, service, target};

fn counts(maps: &Memory, service: usize) -> Vec<(u32, usize)> {
    let mut counts = std::collections::BTreeMap::new();
    for word in maps.table_of(service) {
        *counts.entry(word.target()).or_insert(0) += 1;
    }
    counts.into_iter().collect()
}

#[test]
fn a_first_pass_writes_everything_and_a_second_nothing() {
    let mut maps = Memory::new();
    let want = desired(vec![service("web", 80, &["a", "b"])]);
    let mut reconciler = Reconciler::default();
    reconciler.apply(&mut maps, &want).unwrap();
    assert_eq!(counts(&maps, 0).len(), 2);
    assert_eq!(maps.addresses.len(), 1);
    assert_eq!(maps.target_names[..2], ["web/a", "web/b"]);

    let writes = maps.writes;
    reconciler.apply(&mut maps, &want).unwrap();
    assert_eq!(maps.writes, writes);
    // Another daemon, which knows nothing but the maps.
    Reconciler::default().apply(&mut maps, &want).unwrap();
    assert_eq!(maps.writes, writes, "adopting writes nothing");
}

#[test]
fn a_weight_moves_slots_and_leaves_words_and_indices_alone() {
    let mut maps = Memory::new();
    let mut want = desired(vec![service("web", 80, &["a", "b"])]);
    let mut reconciler = Reconciler::default();
    reconciler.apply(&mut maps, &want).unwrap();
    let before = (maps.table_of(0).to_vec(), maps.targets.clone());
    want.services[0].targets[1].weights[0] = Weight { weight: 300, configured: 100 };
    reconciler.apply(&mut maps, &want).unwrap();
    assert_eq!(maps.targets, before.1);
    let changed = maps.table_of(0).iter().zip(&before.0).filter(|(now, then)| now != then).count();
    let repair = reconciler.repair("web").unwrap();
    assert_eq!(repair.moved as usize, changed);
    assert_eq!(repair.moved, repair.necessary);
    let counts = counts(&maps, 0);
    assert!(counts[1].1.abs_diff(3 * 251 / 4) <= 1, "{counts:?}");
}

#[test]
fn a_removed_target_leaves_its_index_to_nobody_while_a_flow_names_it() {
    let mut maps = Memory::new();
    let mut reconciler = Reconciler::default();
    let all = ["a", "b", "c", "d", "e", "f"];
    reconciler.apply(&mut maps, &desired(vec![service("web", 80, &all)])).unwrap();
    maps.flows.insert(TargetWord::new(1, 0, 1));
    let mut want = service("web", 80, &all);
    want.targets.retain(|target| !["b", "c"].contains(&target.name.as_str()));
    reconciler.apply(&mut maps, &desired(vec![want.clone()])).unwrap();
    assert_eq!(maps.targets[1].flags & flags::IN_USE, 0);
    assert_eq!(maps.targets[1].state.stored(), State::Down);
    assert!(maps.table_of(0).iter().all(|word| ![1, 2].contains(&word.target())));

    want.targets.push(target("g", 10));
    reconciler.apply(&mut maps, &desired(vec![want.clone()])).unwrap();
    let new = maps.targets[2];
    assert_eq!((new.flags & flags::IN_USE, new.generation), (flags::IN_USE, 2), "not index 1");

    want.targets.push(target("h", 11));
    assert!(reconciler.apply(&mut maps, &desired(vec![want.clone()])).is_err(), "only index 1 is left");
    maps.flows.clear();
    reconciler.apply(&mut maps, &desired(vec![want])).unwrap();
    assert_eq!(maps.targets[1].generation, 2);
}

#[test]
fn states_are_stored_at_once_and_draining_gives_its_slots_away() {
    let mut maps = Memory::new();
    let mut want = desired(vec![service("web", 80, &["a", "b", "c"])]);
    let mut reconciler = Reconciler::default();
    reconciler.apply(&mut maps, &want).unwrap();
    let full = counts(&maps, 0);
    want.services[0].targets[0].state = StateWant::lasting(State::Draining);
    reconciler.apply_states(&mut maps, &want).unwrap();
    assert_eq!(maps.targets[0].state.stored(), State::Draining);
    assert_eq!(counts(&maps, 0), full, "only the state");
    reconciler.apply(&mut maps, &want).unwrap();
    assert_eq!(counts(&maps, 0).len(), 2);
    want.services[0].targets[0].state = StateWant::lasting(State::Active);
    reconciler.apply(&mut maps, &want).unwrap();
    assert_eq!(counts(&maps, 0), full);
}

#[test]
fn with_nobody_left_the_table_stays() {
    let mut maps = Memory::new();
    let mut want = desired(vec![service("web", 80, &["a", "b"])]);
    let mut reconciler = Reconciler::default();
    reconciler.apply(&mut maps, &want).unwrap();
    let table = maps.table_of(0).to_vec();
    for target in &mut want.services[0].targets {
        target.state = StateWant::lasting(State::Down);
    }
    reconciler.apply(&mut maps, &want).unwrap();
    assert_eq!(maps.table_of(0), table);
    want.services[0].targets.clear();
    reconciler.apply(&mut maps, &want).unwrap();
    assert_eq!(maps.services[0].table_len, 0);
}

#[test]
fn a_blackhole_has_a_deadline_and_is_renewed() {
    let mut maps = Memory::new();
    let mut want = desired(vec![service("web", 80, &["a"])]);
    want.services[0].targets[0].state = StateWant {
        state: State::Blackholed,
        fallback: State::Active,
        deadline: Some(Duration::from_secs(5)),
    };
    let mut reconciler = Reconciler::default();
    reconciler.apply(&mut maps, &want).unwrap();
    assert_eq!(maps.targets[0].state.deadline(), Some(1_500));
    assert_eq!(maps.targets[0].state.at(1_500), (State::Active, true));
    maps.jiffies = 1_200;
    reconciler.apply_states(&mut maps, &want).unwrap();
    assert_eq!(maps.targets[0].state.deadline(), Some(1_700));
}

#[test]
fn a_target_without_a_port_is_down_and_found_again_at_its_index() {
    let mut maps = Memory::new();
    let mut want = desired(vec![service("web", 80, &["a", "b"])]);
    let mut reconciler = Reconciler::default();
    reconciler.apply(&mut maps, &want).unwrap();
    let word = TargetWord::new(0, 0, maps.targets[0].generation);
    want.services[0].targets[0].ifindex = 0;
    let gone = desired(want.services.clone());
    reconciler.apply(&mut maps, &gone).unwrap();
    assert_eq!(maps.targets[0].state.stored(), State::Down);
    want.services[0].targets[0].ifindex = 77;
    reconciler.apply(&mut maps, &desired(want.services)).unwrap();
    assert_eq!(maps.targets[0].state.stored(), State::Active);
    assert_eq!(maps.targets[0].ifindex, 77);
    assert!(maps.table_of(0).contains(&word), "same index, same generation");
}

#[test]
fn services_come_and_go_without_touching_the_others() {
    let mut maps = Memory::new();
    let mut reconciler = Reconciler::default();
    let (web, mail) = (service("web", 80, &["a", "b"]), service("mail", 25, &["a"]));
    reconciler.apply(&mut maps, &desired(vec![web, mail.clone()])).unwrap();
    let (kept, table) = (maps.services[1], maps.table_of(1).to_vec());
    reconciler.apply(&mut maps, &desired(vec![mail.clone()])).unwrap();
    assert_eq!((maps.services[1], maps.table_of(1)), (kept, table.as_slice()));
    assert_eq!(maps.addresses[0].rules.len(), 1);
    reconciler.apply(&mut maps, &desired(vec![mail, service("dns", 53, &["a"])])).unwrap();
    assert_eq!(maps.services[1], kept);
    assert_eq!(maps.services[0].table_len, 251, "the free index is used again");
}

fn out_of_the_uplink(mac: u8) -> Moves {
    let deliver = Deliver::Uplink;
    Moves::To(Place { ifindex: 2, vlan: 0, mtu: 1500, mac: [2, 0, 0, 0, 0, mac], deliver, through: None })
}

#[test]
fn where_moved_flows_go_is_written_before_and_stays_when_the_target_is_gone() {
    let mut maps = Memory::new();
    let mut want = desired(vec![service("web", 80, &["a", "b"])]);
    (want.services[0].targets[0].moves, want.services[0].targets[1].moves) =
        (out_of_the_uplink(7), out_of_the_uplink(8));
    let mut reconciler = Reconciler::default();
    reconciler.apply(&mut maps, &want).unwrap();
    let [a, b] = [0, 1].map(|n: usize| maps.targets[n].elsewhere);
    assert!(a != 0 && b != 0 && a != b);
    let place = maps.elsewhere[usize::from(a)];
    assert_eq!((place.ifindex, place.mac, place.is_outward()), (2, [2, 0, 0, 0, 0, 7], true));
    assert_eq!(maps.ports[usize::from(place.port_index)].ifindex, 2);

    // The VM is gone from here, and it is known that it moved.
    let gone = &mut want.services[0].targets[0];
    (gone.ifindex, gone.mac, gone.moves) = (0, [0; 6], Moves::AsBefore);
    gone.state = StateWant::lasting(State::Moved);
    Reconciler::default().apply(&mut maps, &want).unwrap();
    assert_eq!((maps.targets[0].state.stored(), maps.targets[0].elsewhere), (State::Moved, a));
    assert_eq!(maps.elsewhere[usize::from(a)], place);

    // Gone, and nobody says that it moved.
    want.services[0].targets[0].state = StateWant::lasting(State::Active);
    Reconciler::default().apply(&mut maps, &want).unwrap();
    assert_eq!(maps.targets[0].state.stored(), State::Down);
}

#[test]
fn nobody_is_said_to_have_moved_before_the_way_is_known() {
    let end = |last: u8| IpAddr::from([10, 1, 0, last]);
    let tunnel = |last| {
        let through = Through { hop: [2; 6], own: end(1), end: end(last), vni: 7, port: 4789 };
        let Moves::To(place) = out_of_the_uplink(7) else { unreachable!() };
        Moves::To(Place { through: Some(through), ..place })
    };
    let waiting = |last| Moves::Waiting { end: end(last), why: "silence".to_owned() };
    let mut maps = Memory::new();
    let mut reconciler = Reconciler::default();
    let mut want = desired(vec![service("web", 80, &["a", "b"])]);
    let mut look = |maps: &mut Memory, moves, state| {
        let target = &mut want.services[0].targets[0];
        (target.moves, target.state) = (moves, StateWant::lasting(state));
        reconciler.apply(maps, &want).unwrap();
        // What a change of a wish writes says the same.
        let after = maps.targets[0].state;
        reconciler.apply_states(maps, &want).unwrap();
        assert_eq!(maps.targets[0].state.stored(), after.stored());
        (after.stored(), after.fallback(), reconciler.unready("web/a").map(str::to_owned))
    };
    let silence = Some("silence".to_owned());
    let dropped = (State::Blackholed, State::Down, silence.clone());
    assert_eq!(look(&mut maps, waiting(2), State::Active), (State::Active, State::Active, silence));
    assert_eq!(look(&mut maps, waiting(2), State::Moved), dropped);
    assert_eq!(look(&mut maps, tunnel(2), State::Moved).0, State::Moved);
    assert_eq!(look(&mut maps, waiting(2), State::Moved).0, State::Moved, "who was known may be silent");
    assert_eq!(look(&mut maps, waiting(3), State::Moved), dropped, "that is the way to another host");
    assert_eq!(look(&mut maps, tunnel(3), State::Moved).0, State::Moved);
    // So is the common segment.
    look(&mut maps, out_of_the_uplink(7), State::Active);
    assert_eq!(look(&mut maps, waiting(3), State::Moved), dropped);
}

#[test]
fn a_place_that_a_target_names_is_never_changed() {
    let mut maps = Memory::new();
    let mut want = desired(vec![service("web", 80, &["a"]), service("api", 81, &["b"])]);
    (want.services[0].targets[0].moves, want.services[1].targets[0].moves) =
        (out_of_the_uplink(7), out_of_the_uplink(7));
    let mut reconciler = Reconciler::default();
    reconciler.apply(&mut maps, &want).unwrap();
    let shared = maps.targets[0].elsewhere;
    assert_eq!(shared, maps.targets[1].elsewhere, "equal places are one");
    // Room for three; one of two owners goes through many.
    for mac in 10..30 {
        want.services[0].targets[0].moves = out_of_the_uplink(mac);
        reconciler.apply(&mut maps, &want).unwrap();
        let now = maps.targets[0].elsewhere;
        assert!(now != 0 && now != shared);
        assert_eq!(maps.elsewhere[usize::from(now)].mac[5], mac);
        assert_eq!(maps.elsewhere[usize::from(shared)].mac[5], 7, "the other's");
    }
    want.services[0].targets[0].moves = Moves::Nowhere;
    reconciler.apply(&mut maps, &want).unwrap();
    assert_eq!(maps.targets[0].elsewhere, 0);
}

#[test]
fn without_room_flows_go_nowhere() {
    let mut maps = Memory::new();
    let mut want = desired(vec![service("web", 80, &["a", "b", "c", "d"])]);
    for (n, target) in want.services[0].targets.iter_mut().enumerate() {
        target.moves = out_of_the_uplink(n as u8);
    }
    let changes = Reconciler::default().apply(&mut maps, &want).unwrap().changes;
    assert_eq!(maps.targets[..4].iter().filter(|target| target.elsewhere == 0).count(), 1);
    assert!(changes.iter().any(|change| change.contains("no room")), "{changes:?}");
}
