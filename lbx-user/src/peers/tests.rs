//! Hosts that talk over this machine's loopback, and strangers that try.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use lbx_common::migration::{self, Here, Place, Source};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::authority::{ca_file, host_files, init};
use super::message::VmHere;
use super::*;
use crate::config::Peer;
use crate::migration::fast::{Armed, There, Trigger};
use crate::migration::{Stream, VmId};

/// Nobody else has these addresses: 127.x.y.z, of this process and the number.
fn address(n: u8) -> SocketAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    (Ipv4Addr::new(127, high, low, n), 9346).into()
}

fn config(dir: &Path, (name, at): (&str, u8), others: &[(&str, u8)]) -> config::Peers {
    let (certificate, key) = host_files(dir, name);
    let others = others.iter().map(|(name, n)| Peer {
        name: (*name).to_owned(),
        address: address(*n),
        tunnel: None,
        tunnel_mtu: None,
    });
    config::Peers {
        name: name.to_owned(),
        listen: address(at),
        ca: ca_file(dir),
        certificate,
        key,
        tunnel: None,
        others: others.collect(),
    }
}

fn start(config: &config::Peers) -> (Peers, mpsc::Receiver<News>) {
    let mut peers = Peers::default();
    let news = peers.take().unwrap();
    peers.follow(Some(Prepared::read(config).unwrap()));
    (peers, news)
}

fn vm(name: &str) -> VmHere {
    VmHere {
        name: name.to_owned(),
        uuid: None,
        macs: vec!["52:54:00:00:00:07".to_owned()],
        runs: None,
        holds: false,
    }
}

async fn until(what: &str, peers: &Peers, holds: impl Fn(&table::Table) -> bool) {
    let start = Instant::now();
    while !holds(&peers.table.lock()) {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}: {:#?}", peers.table.lock());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), work).await.expect("in time")
}

fn both_up(table: &table::Table, name: &str) -> bool {
    table.rows.get(name).is_some_and(|row| row.to.up.is_some() && row.from.up.is_some())
}

#[tokio::test]
async fn two_hosts_know_of_each_others_vms_and_of_each_others_end() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path(), &["a".into(), "b".into()]).unwrap();
    let (of_a, of_b) = (config(dir.path(), ("a", 1), &[("b", 2)]), config(dir.path(), ("b", 2), &[("a", 1)]));
    let (a, mut news) = start(&of_a);
    a.tell_vms(vec![vm("web-2"), vm("web-1")]);
    until("b is not there", &a, |table| table.rows["b"].to.error.is_some()).await;

    let (b, _heard_by_b) = start(&of_b);
    until("both ways", &a, |table| both_up(table, "b")).await;
    until("told on connecting", &b, |table| table.rows["a"].vms.len() == 2).await;
    a.tell_vms(vec![vm("web-1")]);
    until("told when it changes", &b, |table| table.rows["a"].vms == [vm("web-1")]).await;
    assert_eq!(b.table.lock().rows["a"].from.times, 1, "over the same connection");
    let what = within(news.recv()).await.unwrap();
    assert_eq!(what, News { peer: "b".into(), what: What::Heard { anew: true } });
    assert_eq!(within(news.recv()).await.unwrap().what, What::Vms(Vec::new()));

    drop(b);
    let lost = within(news.recv()).await.unwrap();
    assert!(matches!(lost.what, What::Lost { .. }), "{lost:?}");
    until("b is gone", &a, |table| table.rows["b"].to.up.is_none()).await;
    let (b, _heard_by_b) = start(&of_b);
    until("both ways again", &a, |table| both_up(table, "b")).await;
    until("told anew", &b, |table| table.rows["a"].vms == [vm("web-1")]).await;
    assert_eq!(within(news.recv()).await.unwrap().what, What::Heard { anew: true });
    assert!(a.table.lock().refused.is_empty(), "{:?}", a.table.lock().refused);
}

#[tokio::test]
async fn who_is_asked_answers_at_once() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path(), &["a".into(), "b".into()]).unwrap();
    let (a, _heard_by_a) = start(&config(dir.path(), ("a", 31), &[("b", 32)]));
    let (b, _heard_by_b) = start(&config(dir.path(), ("b", 32), &[("a", 31)]));
    until("both ways", &a, |table| both_up(table, "b")).await;
    let mut soonest = Duration::MAX;
    for _ in 0..10 {
        let asked = Instant::now();
        a.ask();
        until("an answer", &a, |table| table.rows["b"].answered.is_some_and(|at| at >= asked)).await;
        soonest = soonest.min(asked.elapsed());
    }
    assert!(soonest < PING / 4, "{soonest:?}: not before it was asked anyway");
    let before = crate::migration::now();
    a.ask();
    let since = |table: &Shared| table.heard_now().get("b").is_some_and(|at| *at >= before);
    let start = Instant::now();
    while !since(&a.table) {
        assert!(start.elapsed() < Duration::from_secs(30), "{:#?}", a.table.lock());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(b);
}

#[tokio::test]
async fn strangers_are_refused_and_counted() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    init(dir.path(), &["a".into(), "b".into(), "c".into()]).unwrap();
    init(other.path(), &["a".into(), "b".into()]).unwrap();
    let (a, _news) = start(&config(dir.path(), ("a", 11), &[("b", 12)]));

    // Of another CA; the host it calls is a stranger to it as well, so it must not even say who it is.
    let mut of_b = config(other.path(), ("b", 12), &[("a", 11)]);
    let (b, _) = start(&of_b);
    until("tls", &a, |table| table.refused.get("tls") > Some(&1)).await;
    until("b sees no friend", &b, |table| table.rows["a"].to.error.is_some()).await;
    drop(b);
    // It trusts everybody and still has no certificate of the right CA.
    of_b.ca = ca_file(dir.path());
    let before = a.table.lock().refused["tls"];
    let (b, _) = start(&of_b);
    until("tls again", &a, |table| table.refused["tls"] > before).await;
    until("b is told", &b, |table| table.rows["a"].to.error.as_ref().is_some_and(|e| e.contains("alert")))
        .await;
    drop(b);
    // Of the right CA, and on nobody's list.
    let (c, _) = start(&config(dir.path(), ("c", 13), &[("a", 11)]));
    until("unlisted", &a, |table| table.refused.contains_key("unlisted")).await;
    let says =
        |table: &table::Table| table.rows["a"].to.error.as_ref().is_some_and(|e| e.contains("[[peer]]"));
    until("c knows why", &c, says).await;
    // Who answers for an address with another host's certificate is no peer.
    let (d, _) = start(&config(dir.path(), ("c", 14), &[("b", 11)]));
    until("a is not b", &d, |table| table.rows["b"].to.error.is_some()).await;
    assert!(!both_up(&a.table.lock(), "b"));
    assert!(a.table.lock().rows["b"].from.times == 0);
}

#[tokio::test]
async fn what_makes_no_sense_closes_the_connection_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path(), &["a".into(), "b".into()]).unwrap();
    let (a, _news) = start(&config(dir.path(), ("a", 21), &[("b", 22)]));
    let identity = tls::identity(&config(dir.path(), ("b", 22), &[])).unwrap();
    until("a listens", &a, |table| table.problem.is_none()).await;
    let hello = |name: &str| {
        let hello = Hello { name: name.into(), instance: "1".into(), software: String::new() };
        frame::encode(&Message::Hello(hello)).unwrap()
    };
    let oversized = [hello("b"), vec![1, 0xff, 0xff, 0xff]].concat();
    for (bytes, kind, says) in [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "version", "version 71"),
        (vec![7, 0, 0, 0], "version", "upgrade"),
        (oversized, "oversized", "is the most"),
        ([hello("b"), hello("b")].concat(), "malformed", "twice"),
        (hello("a"), "malformed", "another name"),
        (frame::encode(&Message::Ping).unwrap(), "malformed", "does not greet"),
        ([hello("b"), vec![1, 0, 0, 3, 0xff, 0xff, 0xff]].concat(), "malformed", "not a message"),
    ] {
        let before = a.table.lock().refused.get(kind).copied().unwrap_or_default();
        let stream = loop {
            match TcpStream::connect(address(21)).await {
                Ok(stream) => break stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        let name = tls::server_name("a").unwrap();
        let mut stream = identity.connector.connect(name, stream).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        // The last words, then the end.
        let mut reader = frame::Reader::new(stream);
        let why = within(async {
            loop {
                match reader.next().await {
                    Ok(Message::Refused { why }) => break why,
                    Ok(_) => {}
                    Err(error) => panic!("{kind}: {error}"),
                }
            }
        });
        let why = why.await;
        assert!(why.contains(says), "{why:?} does not say {says:?}");
        assert!(matches!(within(reader.next()).await, Err(frame::Error::Closed)));
        assert_eq!(a.table.lock().refused[kind], before + 1, "{why}");
    }
    // Still there for who speaks properly.
    let (_b, _heard_by_b) = start(&config(dir.path(), ("b", 22), &[("a", 21)]));
    until("b", &a, |table| both_up(table, "b")).await;
}

#[tokio::test]
async fn who_arrives_is_heard_of_at_once_by_whom_it_left() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path(), &["a".into(), "b".into()]).unwrap();
    let (stream, mut told) = Stream::new();
    let mut a = Peers::default();
    a.ears.stream = stream;
    a.start().unwrap();
    a.follow(Some(Prepared::read(&config(dir.path(), ("a", 31), &[("b", 32)])).unwrap()));
    let (b, _news) = start(&config(dir.path(), ("b", 32), &[("a", 31)]));
    until("both ways", &b, |table| both_up(table, "a")).await;

    let frame = frame::encode(&Message::Runs { vm: vm("web-1") }).unwrap();
    let armed = Armed { tell: Some(frame.into()), ..Armed::default() };
    b.ears.fast.arm([((7, 1), armed)].into(), Vec::new());
    let there = |peer: &str, process| There {
        vm: vm("web-1"),
        id: VmId::named("vm1"),
        peer: peer.into(),
        process,
        flips: Vec::new(),
    };
    // Nothing was worked out; it does not go there; it runs here: that is for the core to see.
    a.ears.facts.set(9, 1, Some(Here::Migrating));
    for (n, armed) in [(1, None), (2, Some(there("c", None))), (3, Some(there("b", Some((9, 1)))))] {
        a.ears.fast.arm([].into(), armed.into_iter().collect());
        b.ears.fast.fire(7, 1, Trigger::Resume);
        // Said after it.
        let mark = vec![vm(&format!("mark-{n}"))];
        b.tell_vms(mark.clone());
        until("heard", &a, |table| table.rows["b"].vms == mark).await;
        assert!(told.try_recv().is_err(), "{n}");
    }
    a.ears.facts.set(9, 1, Some(Here::Finishing));
    b.ears.fast.fire(7, 1, Trigger::Resume);
    let said = within(told.recv()).await.unwrap();
    let event = &said.event;
    assert_eq!((event.what, event.host.as_deref()), (migration::What::Resumed(Place::There), Some("b")));
    assert_eq!((event.source, said.vm.name.as_deref()), (Source::Peer, Some("vm1")));
}
