use std::io;

use super::*;
use crate::host::testing;
use crate::host::{Address, Kind, Link, Route};

#[test]
fn own_trouble_says_nothing_and_silence_is_no_refusal() {
    for errno in [libc::EMFILE, libc::ENETUNREACH, libc::ENOBUFS, libc::EPERM] {
        assert_eq!(judge_error(&io::Error::from_raw_os_error(errno)), Outcome::Unknown);
    }
    for errno in [libc::EHOSTUNREACH, libc::ETIMEDOUT] {
        assert_eq!(judge_error(&io::Error::from_raw_os_error(errno)), Outcome::Silent);
    }
    for errno in [libc::ECONNREFUSED, libc::ECONNRESET] {
        assert_eq!(judge_error(&io::Error::from_raw_os_error(errno)), Outcome::Refused);
    }
    assert!(late(Duration::from_secs(3), Duration::from_secs(1)));
    assert!(!late(Duration::from_millis(1_100), Duration::from_secs(1)));
}

fn link(index: u32, name: &str, up: bool, carrier: bool) -> Link {
    Link { up, carrier, ..testing::link(index, name, Kind::Physical, None) }
}

#[test]
fn the_way_is_the_longest_prefix() {
    let address = |index, address: &str, prefix| Address { index, address: address.parse().unwrap(), prefix };
    let route = |index, destination: Option<(&str, u8)>| Route {
        index: Some(index),
        destination: destination.map(|(net, prefix)| (net.parse().unwrap(), prefix)),
        gateway: None,
        table: 254,
    };
    let view = View {
        links: vec![link(1, "br0", true, true), link(2, "eth0", true, false), link(3, "eth1", false, false)],
        addresses: vec![address(1, "10.0.0.1", 24), address(1, "2001:db8::1", 64)],
        routes: vec![route(2, Some(("10.0.0.0", 8))), route(3, Some(("10.9.0.0", 16)))],
        ..View::default()
    };
    let to = |addr: &str| way(&view, addr.parse().unwrap());
    assert_eq!(to("10.0.0.9"), Way { link: Some(1), cut: None });
    assert_eq!(to("2001:db8::9").link, Some(1));
    assert_eq!(to("10.5.0.1").cut.as_deref(), Some("eth0 has no carrier"));
    assert_eq!(to("10.9.0.1").cut.as_deref(), Some("eth1 is down"));
    assert_eq!(to("203.0.113.1"), Way::default(), "another table may know");
}

#[test]
fn a_command_line_is_filled_in_word_by_word() {
    let argv =
        vec!["/bin/check".to_owned(), "{address}".to_owned(), "-p{port}".to_owned(), "{target}".to_owned()];
    let how = HealthCheck {
        probe: Probe::Command { argv: argv.clone(), port: None },
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        rise: 1,
        fall: 1,
    };
    let check = Check {
        target: "web/a b".into(),
        service: "web".into(),
        addr: Some("2001:db8::1".parse().unwrap()),
        port: Some(80),
        how,
        returns: 0,
    };
    assert_eq!(check.fill(&argv), ["/bin/check", "2001:db8::1", "-p80", "web/a b"]);
    assert_eq!(check.impossible(), None);
    assert!(Check { port: None, ..check.clone() }.impossible().unwrap().contains("port"));
    assert!(Check { addr: None, ..check }.impossible().unwrap().contains("address"));
}
