//! The reconciler against maps in memory.

use std::time::Duration;

use lbx_common::flow::TargetWord;
use lbx_common::service::{address_flags, address_slot};
use lbx_common::target::{Forward, State, Weight, flags};

use super::desired::{StateWant, VipWant};
use super::reconcile::Reconciler;
use super::testing::{Memory, desired, service, target};

fn counts(maps: &Memory, service: usize) -> Vec<(u32, usize)> {
    let mut counts = std::collections::BTreeMap::new();
    for word in maps.table(service) {
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
    let addr = lbx_common::addr::Ip::from(want.services[0].vips[0].addr);
    let select = maps.control.addresses;
    let entry = maps.addresses[(select.base() + address_slot(&addr, select.seed())) as usize];
    assert_eq!((entry.addr, entry.flags, entry.rules[0].port_first), (addr, address_flags::VIP, 80));

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
    let before = (maps.table(0).to_vec(), maps.targets.clone());
    want.services[0].targets[1].weights[0] = Weight { weight: 300, configured: 100 };
    reconciler.apply(&mut maps, &want).unwrap();
    assert_eq!(maps.targets, before.1);
    let changed = maps.table(0).iter().zip(&before.0).filter(|(now, then)| now != then).count();
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
    assert!(maps.table(0).iter().all(|word| ![1, 2].contains(&word.target())));

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
    let table = maps.table(0).to_vec();
    for target in &mut want.services[0].targets {
        target.state = StateWant::lasting(State::Down);
    }
    reconciler.apply(&mut maps, &want).unwrap();
    assert_eq!(maps.table(0), table);
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
    assert!(maps.table(0).contains(&word), "same index, same generation");
}

#[test]
fn services_come_and_go_without_touching_the_others() {
    let mut maps = Memory::new();
    let mut reconciler = Reconciler::default();
    let (web, mail) = (service("web", 80, &["a", "b"]), service("mail", 25, &["a"]));
    reconciler.apply(&mut maps, &desired(vec![web, mail.clone()])).unwrap();
    let (kept, table) = (maps.services[1], maps.table(1).to_vec());
    let generation = maps.control.addresses;
    reconciler.apply(&mut maps, &desired(vec![mail.clone()])).unwrap();
    assert_eq!((maps.services[1], maps.table(1)), (kept, table.as_slice()));
    assert_ne!(maps.control.addresses, generation, "the other generation is in force");
    reconciler.apply(&mut maps, &desired(vec![mail, service("dns", 53, &["a"])])).unwrap();
    assert_eq!(maps.services[1], kept);
    assert_eq!(maps.services[0].table_len, 251, "the free index and room are used again");
}

#[test]
fn ways_back_keep_their_index_while_others_change() {
    let mut maps = Memory::new();
    let mut reconciler = Reconciler::default();
    let mut web = service("web", 80, &["a", "b"]);
    web.forward = Forward::Nat;
    for (n, target) in web.targets.iter_mut().enumerate() {
        target.addr4 = Some([10, 0, 0, 5 + n as u8].into());
    }
    reconciler.apply(&mut maps, &desired(vec![web.clone()])).unwrap();
    let second = maps.backs[1];
    assert_eq!(second.target, 1);
    web.targets.remove(0);
    web.vips.push(VipWant { addr: [192, 0, 2, 11].into(), answer: true });
    reconciler.apply(&mut maps, &desired(vec![web])).unwrap();
    assert_eq!(maps.backs[1], second);
    assert_eq!(maps.backs[0].vip, lbx_common::addr::Ip::from(std::net::IpAddr::from([192, 0, 2, 10])));
}

#[test]
fn damaged_maps_are_refused() {
    let mut maps = Memory::new();
    let want = desired(vec![service("web", 80, &["a"]), service("mail", 25, &["a"])]);
    Reconciler::default().apply(&mut maps, &want).unwrap();
    maps.services[1].table_base = maps.services[0].table_base;
    let error = Reconciler::default().apply(&mut maps, &want).unwrap_err().to_string();
    assert!(error.contains("damaged"), "{error}");
}
