use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::*;
use crate::config::{HealthCheck, Probe};

fn listed(target: &str, to: Option<SocketAddr>, known: Option<bool>) -> Listed {
    let (interval, timeout) = (Duration::from_millis(20), Duration::from_secs(5));
    let how = HealthCheck { probe: Probe::Tcp { port: None }, interval, timeout, rise: 2, fall: 2 };
    let (addr, port) = (to.map(|to| to.ip()), to.map(|to| to.port()));
    let (target, service) = (target.to_owned(), "web".to_owned());
    Listed { check: Check { target, service, addr, port, how, returns: 0 }, known, way: Way::default() }
}

/// Checks without tasks: what probes find is said by the test.
fn quiet(list: Vec<Listed>) -> Checks {
    let (found, _) = mpsc::channel(1);
    let mut checks =
        Checks { all: BTreeMap::new(), heard: BTreeMap::new(), started: Instant::now(), serial: 0, found };
    checks.follow(list);
    checks.all.values().for_each(Running::end);
    checks
}

fn say(checks: &mut Checks, target: &str, outcome: Outcome) -> Checked {
    let key = (target.to_owned(), "tcp");
    let serial = checks.all[&key].serial;
    let found = Found { key, serial, outcome, detail: "said".into(), took: Duration::ZERO };
    assert_eq!(checks.hear(found).as_deref(), Some(target));
    checks.of(target)
}

#[tokio::test]
async fn all_of_a_service_silent_at_once_are_held_and_one_that_is_heard_ends_it() {
    let to = Some("192.0.2.1:80".parse().unwrap());
    let mut checks = quiet(vec![listed("web/a", to, Some(true)), listed("web/b", to, Some(true))]);
    for target in ["web/a", "web/b", "web/a", "web/b"] {
        say(&mut checks, target, Outcome::Silent);
    }
    let held = checks.of("web/b");
    assert_eq!(held.healthy, Some(true), "fall is 2, and it is doubted");
    assert!(held.rows[0].held.as_ref().unwrap().contains("at once"));
    // Twice as long is long enough.
    say(&mut checks, "web/a", Outcome::Silent);
    assert_eq!(say(&mut checks, "web/a", Outcome::Silent).healthy, Some(false));

    let mut checks = quiet(vec![listed("web/a", to, Some(true)), listed("web/b", to, Some(true))]);
    say(&mut checks, "web/a", Outcome::Silent);
    say(&mut checks, "web/b", Outcome::Refused);
    let fell = say(&mut checks, "web/a", Outcome::Silent);
    assert_eq!((fell.healthy, &fell.rows[0].held), (Some(false), &None), "somebody was heard");
}

#[tokio::test]
async fn a_cut_way_holds_and_new_targets_stay_without_a_verdict() {
    let to = Some("192.0.2.1:80".parse().unwrap());
    let cut = |known| {
        let way = Way { link: Some(3), cut: Some("eth0 has no carrier".to_owned()) };
        Listed { way, ..listed("web/a", to, known) }
    };
    let mut checks = quiet(vec![cut(Some(true))]);
    for _ in 0..20 {
        say(&mut checks, "web/a", Outcome::Silent);
    }
    let held = checks.of("web/a");
    assert_eq!((held.healthy, held.rows[0].held.as_deref()), (Some(true), Some("eth0 has no carrier")));
    // The way is there again: the same check goes on.
    checks.follow(vec![listed("web/a", to, Some(true))]);
    assert_eq!(say(&mut checks, "web/a", Outcome::Silent).healthy, Some(false));

    let mut checks = quiet(vec![cut(None)]);
    assert_eq!(say(&mut checks, "web/a", Outcome::Silent).healthy, None);
    assert_eq!(say(&mut checks, "web/a", Outcome::Good).healthy, Some(true));
}

#[tokio::test]
async fn a_target_is_healthy_by_all_of_its_checks_and_starts_anew_when_it_returns() {
    let to = Some("192.0.2.1:80".parse().unwrap());
    let tcp = listed("web/a", to, Some(true));
    let mut icmp = tcp.clone();
    icmp.check.how.probe = Probe::Icmp;
    icmp.known = None;
    let mut checks = quiet(vec![tcp.clone(), icmp]);
    assert_eq!(
        (checks.of("web/a").healthy, checks.of("web/a").rows.len()),
        (None, 2),
        "one knows nothing yet"
    );
    let old = checks.all[&("web/a".to_owned(), "tcp")].serial;
    let mut again = Listed { known: None, ..tcp };
    again.check.returns += 1;
    assert_eq!(checks.follow(vec![again]), ["web/a"]);
    assert_eq!((checks.of("web/a").healthy, checks.of("web/a").rows.len()), (None, 1));
    assert_eq!(checks.of("web/a").returns, 1);
    // The last words of the check before it count for nothing.
    let key = ("web/a".to_owned(), "tcp");
    let late =
        Found { key, serial: old, outcome: Outcome::Good, detail: String::new(), took: Duration::ZERO };
    assert_eq!(checks.hear(late), None);
}

#[tokio::test]
async fn a_listener_is_found_and_lost_and_one_without_address_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let ((lists, list), (news, mut told)) = (mpsc::channel(4), mpsc::channel(4));
    tokio::spawn(run(list, news));
    lists.send(vec![listed("web/a", Some(to), None), listed("web/b", None, None)]).await.unwrap();
    let mut wait = async |target: &str, healthy: Option<bool>| loop {
        let next = tokio::time::timeout(Duration::from_secs(30), told.recv()).await;
        let (name, checked) = next.expect("news in time").unwrap();
        if name == target && checked.healthy == healthy {
            return checked;
        }
    };
    let unknown = wait("web/b", None).await;
    assert!(unknown.rows[0].impossible && unknown.reason().unwrap().contains("address is not known"));
    let up = wait("web/a", Some(true)).await;
    assert!(up.rows[0].took.is_some() && up.rows[0].at.is_some(), "{up:?}");
    drop(listener);
    let down = wait("web/a", Some(false)).await;
    assert!(down.reason().unwrap().contains("no connection"), "{down:?}");
}

#[test]
fn jitter_stays_below_its_bound() {
    let mut round = 1;
    let all: Vec<Duration> = (0..100).map(|_| jitter(Duration::from_secs(1), &mut round)).collect();
    assert!(all.iter().all(|one| *one < Duration::from_secs(1)));
    assert!(all.iter().max() > all.iter().min());
}
