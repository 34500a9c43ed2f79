use lbx_common::migration::Phase;

use super::*;

const MS: Micros = 1_000;

fn about(here: Here) -> About {
    About { key: "web-1".into(), vm: VmId::named("web-1"), targets: vec!["web/web-1".into()], here }
}

fn told(what: What, at: Micros) -> Told {
    let event = Event::new(what, Source::Operator, at);
    Told::new(VmId::named("web-1"), event)
}

fn tell(ledger: &mut Ledger, what: What, at: Micros) -> Outcome {
    ledger.hear(about(Here::Present), told(what, at))
}

#[test]
fn a_record_has_every_phase_and_its_times() {
    let mut ledger = Ledger::default();
    let rules = Rules::default();
    assert_eq!(tell(&mut ledger, What::Cancelled, 0), Outcome::Nothing);
    assert_eq!(tell(&mut ledger, What::Announced, MS), Outcome::Began);
    for at in 2..9 {
        tell(&mut ledger, What::Transferring, at * MS);
    }
    tell(&mut ledger, What::Stopped, 10 * MS);
    ledger.written("web-1", 120);
    let resumed = told(What::Resumed(Place::There), 60 * MS);
    let resumed = Told { event: resumed.event.clone().with_host("b"), ..resumed };
    ledger.hear(about(Here::Present), resumed);
    tell(&mut ledger, What::Done(Place::There), 70 * MS);
    let record = &ledger.open["web-1"];
    assert_eq!((record.pause(), record.host.as_deref()), (Some(50 * MS), Some("b")));
    assert_eq!(record.want(70 * MS, &rules), Want::Moved);
    let lines: Vec<_> = record.entries.iter().map(|e| (e.event.what.phase(), e.times, e.written)).collect();
    let once = |phase| (phase, 1, None);
    assert_eq!(
        lines[..2],
        [once(Phase::Announced), (Phase::Transferring, 7, None)],
        "repetitions are counted"
    );
    assert_eq!(lines[2..], [(Phase::Stopped, 1, Some(120)), once(Phase::Resumed), once(Phase::Done)]);

    // Back again: another record.
    assert_eq!(ledger.hear(about(Here::Incoming), told(What::Expected, 900 * MS)), Outcome::Began);
    assert_eq!((ledger.past.len(), ledger.all().count()), (1, 2));
    assert_eq!(ledger.past[0].machine.phase, Phase::Done);
}

#[test]
fn packets_wait_only_at_a_host_that_is_known() {
    let rules = Rules { hold: true, ..Rules::default() };
    let mut ledger = Ledger::default();
    tell(&mut ledger, What::Announced, MS);
    tell(&mut ledger, What::Stopped, 2 * MS);
    assert_eq!(ledger.open["web-1"].want(3 * MS, &rules), Want::Blackhole);
    let with_host = Told {
        event: Event::new(What::Transferring, Source::Peer, 4 * MS).with_host("b"),
        ..told(What::Stopped, 0)
    };
    ledger.hear(about(Here::Present), with_host);
    assert_eq!(ledger.open["web-1"].want(5 * MS, &rules), Want::Hold);
}

#[test]
fn what_peers_say_counts_when_nobody_says_more() {
    let rules = Rules::default();
    for (runs, want) in [(true, Want::Moved), (false, Want::Down)] {
        let mut ledger = Ledger::default();
        let announced = told(What::Announced, MS);
        let announced = Told { event: announced.event.clone().with_host("b"), ..announced };
        ledger.hear(about(Here::Running), announced);
        tell(&mut ledger, What::Stopped, 2 * MS);
        ledger.peer_says("web-1", "b", runs);
        let now = 20_000 * MS;
        assert_eq!(ledger.due(now, &rules), ["web-1"]);
        assert!(ledger.resolve("web-1", Here::Gone, now).is_some());
        assert_eq!(ledger.open["web-1"].want(now, &rules), want);
    }
}

#[test]
fn ended_ones_are_put_away_and_few_are_kept() {
    let (mut ledger, rules) = (Ledger::default(), Rules::default());
    for n in 0..100 {
        let at = n * 100_000 * MS;
        assert_eq!(tell(&mut ledger, What::Announced, at), Outcome::Began);
        tell(&mut ledger, What::Cancelled, at + MS);
        ledger.sweep(at + 2 * MS, &rules);
        assert_eq!(ledger.open.len(), 1, "not before it was looked at once more");
        for key in ledger.due(at + 5_000 * MS, &rules) {
            assert_eq!(ledger.resolve(&key, Here::Present, at + 5_000 * MS), None);
        }
        ledger.sweep(at + 5_000 * MS, &rules);
        assert!(ledger.open.is_empty());
    }
    assert_eq!((ledger.past.len(), ledger.past[0].id), (KEPT, 37));
}

#[test]
fn whose_process_is_gone_is_looked_into_soon_unless_it_was_handed_over() {
    let rules = Rules::default();
    let mut ledger = Ledger::default();
    ledger.gone("web-1", 0);
    tell(&mut ledger, What::Announced, MS);
    tell(&mut ledger, What::Stopped, 2 * MS);
    assert_eq!(ledger.next_due(&rules), Some(2 * MS + rules.limits.stopped), "nobody left after it began");
    ledger.gone("web-1", 3 * MS);
    assert_eq!(ledger.next_due(&rules), Some(3 * MS + GONE));
    assert!(ledger.due(3 * MS + GONE - 1, &rules).is_empty());
    ledger.peer_says("web-1", "b", false);
    assert_eq!(ledger.due(3 * MS + GONE, &rules), ["web-1"]);
    let found = ledger.resolve("web-1", Here::Absent, 3 * MS + GONE).map(|event| event.what);
    assert_eq!(found, Some(What::Failed));
    assert_ne!(ledger.open["web-1"].want(300 * MS, &rules), Want::Blackhole, "others take its flows");

    // Another host was quicker to say that it failed.
    let mut ledger = Ledger::default();
    let stop = Event::new(What::Stopped, Source::Qmp, MS);
    ledger.hear(about(Here::Finishing), Told::new(VmId::named("web-1"), stop));
    tell(&mut ledger, What::Failed, 2 * MS);
    assert_eq!(
        ledger.open["web-1"].want(2 * MS, &rules),
        Want::Blackhole,
        "its monitor says that it is stopped"
    );
    ledger.gone("web-1", 3 * MS);
    ledger.resolve("web-1", Here::Absent, ledger.next_due(&rules).unwrap());
    assert_eq!(ledger.open["web-1"].want(300 * MS, &rules), Want::Nothing);

    let mut ledger = Ledger::default();
    tell(&mut ledger, What::Stopped, 2 * MS);
    tell(&mut ledger, What::HandedOver, 3 * MS);
    ledger.gone("web-1", 4 * MS);
    assert!(ledger.next_due(&rules) > Some(4 * MS + GONE), "it will be heard of from where it runs");
    assert_eq!(ledger.open["web-1"].want(5 * MS, &rules), Want::Blackhole);
}

#[test]
fn who_is_gone_from_where_it_went_is_looked_into() {
    let rules = Rules::default();
    let mut ledger = Ledger::default();
    tell(&mut ledger, What::Stopped, MS);
    let done = told(What::Done(Place::There), 2 * MS);
    ledger.hear(about(Here::Absent), Told { event: done.event.clone().with_host("b"), ..done });
    ledger.peer_says("web-1", "b", true);
    ledger.has("web-1", "b", true, 3 * MS);
    assert_eq!(ledger.due(3_000 * MS, &rules), ["web-1"], "once, when it has ended");
    ledger.resolve("web-1", Here::Absent, 3_000 * MS);
    assert_eq!(ledger.next_due(&rules), None);

    ledger.has("web-1", "c", false, 4_000 * MS);
    ledger.peer_says("web-1", "c", true);
    ledger.has("web-1", "b", false, 4_000 * MS);
    assert_eq!(ledger.next_due(&rules), None, "it went on to another");
    ledger.peer_says("web-1", "c", false);
    ledger.peer_says("web-1", "b", false);
    ledger.has("web-1", "b", false, 5_000 * MS);
    assert_eq!(ledger.next_due(&rules), Some(5_000 * MS + GONE_THERE));
    ledger.resolve("web-1", Here::Absent, 5_000 * MS + GONE_THERE);
    assert_eq!(ledger.open["web-1"].want(5_001 * MS, &rules), Want::Down);
    assert_eq!(ledger.next_due(&rules), None);
}

#[test]
fn what_was_said_before_it_was_handed_over_does_not_count() {
    let rules = Rules::default();
    let now = 310 * MS;
    let heard = |at| BTreeMap::from([("b".to_owned(), at)]);
    for (at, want) in [(9 * MS, Want::Moved), (11 * MS, Want::Blackhole)] {
        let mut ledger = Ledger::default();
        let announced = told(What::Announced, MS);
        let announced = Told { event: announced.event.clone().with_host("b"), ..announced };
        ledger.hear(about(Here::Running), announced);
        tell(&mut ledger, What::Stopped, 5 * MS);
        ledger.peer_says("web-1", "b", false);
        ledger.believe(&heard(4 * MS));
        assert_eq!(ledger.open["web-1"].there.len(), 1, "it cannot run there yet");
        tell(&mut ledger, What::HandedOver, 10 * MS);
        assert!(ledger.open["web-1"].may_be_there());
        ledger.believe(&heard(at));
        assert_eq!(ledger.due(now, &rules), ["web-1"]);
        ledger.resolve("web-1", Here::Gone, now);
        assert_eq!(ledger.open["web-1"].want(now, &rules), want, "heard at {at}");
        // It was looked into: what is said from now on counts.
        assert!(!ledger.counts("web-1", Some(now - 1)) && ledger.counts("web-1", Some(now)));
        assert!(!ledger.counts("web-1", None));
        ledger.peer_says("web-1", "b", true);
        ledger.believe(&heard(at));
        assert_eq!(ledger.open["web-1"].there.len(), 1, "who runs there does so since");
        ledger.believe(&BTreeMap::new());
        assert!(ledger.open["web-1"].there.is_empty(), "but who is silent says nothing");
    }
}

#[test]
fn who_is_gone_where_it_was_handed_over_to_is_not_waited_for() {
    let rules = Rules::default();
    // What the other host had at each look, and when nobody waits any more.
    for (has, given_up) in [([false, false], Some(1)), ([false, true], None), ([true, false], None)] {
        let mut ledger = Ledger::default();
        let announced = told(What::Announced, MS);
        let announced = Told { event: announced.event.clone().with_host("b"), ..announced };
        ledger.hear(about(Here::Running), announced);
        tell(&mut ledger, What::Stopped, 5 * MS);
        tell(&mut ledger, What::HandedOver, 10 * MS);
        ledger.peer_says("web-1", "b", false);
        for (look, has) in has.into_iter().enumerate() {
            let now = (310 + 300 * look as u64) * MS;
            ledger.has("web-1", "c", false, now - 150 * MS);
            ledger.has("web-1", "b", has, now - 150 * MS);
            assert_eq!(ledger.due(now, &rules), ["web-1"]);
            ledger.resolve("web-1", Here::Gone, now);
            let gone = given_up.is_some_and(|at| look >= at);
            let want = if gone { Want::Down } else { Want::Blackhole };
            assert_eq!(ledger.open["web-1"].want(now, &rules), want, "look {look}");
        }
    }
}
