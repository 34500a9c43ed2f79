//! Hosts that are each other's peers.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::lab::{Lab, Lbx, addr};

/// What host `h` is called.
pub fn name(host: usize) -> String {
    format!("kvm{}", host + 1)
}

/// The lines of a host's file: it is called `own`, has its files in `dir`, and knows all other hosts of the lab.
pub fn top(lab: &Lab, host: usize, own: &str, dir: &Path) -> String {
    lines(lab, host, own, dir, |_| String::new())
}

/// The same with tunnels between all hosts.
pub fn with_tunnels(lab: &Lab, host: usize, own: &str, dir: &Path) -> String {
    lines(lab, host, own, dir, |host| format!("tunnel = \"{}\"\n", addr::host(host).v4))
}

/// `more`: further lines about a host.
fn lines(lab: &Lab, host: usize, own: &str, dir: &Path, more: impl Fn(usize) -> String) -> String {
    let (at, dir) = (|host: usize| format!("{}:9346", addr::host(host).v4), dir.display());
    let mut text = format!(
        "[peers]\nname = \"{own}\"\nlisten = \"{}\"\nca = \"{dir}/ca.pem\"\ncertificate = \"{dir}/{own}.pem\"\n\
         key = \"{dir}/{own}.key\"\n{}",
        at(host),
        more(host)
    );
    for other in (0..lab.hosts.len()).filter(|other| *other != host) {
        let (name, at, more) = (name(other), at(other), more(other));
        text.push_str(&format!("[[peer]]\nname = \"{name}\"\naddress = \"{at}\"\n{more}"));
    }
    text
}

/// Makes a CA and certificates the way an operator does; what the verb says.
pub fn certificates(lbx: &Lbx, dir: &Path, names: &[&str]) -> anyhow::Result<String> {
    let dir = dir.display().to_string();
    lbx.cli(&[&["peers", "init", &dir], names].concat())
}

/// Waits until something holds; else says what all hosts say of peers, targets and migrations.
///
/// # Panics
/// It does not.
pub fn until(lbx: &[Lbx], what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        let say = |lbx: &Lbx| {
            let verbs = [&["peers"][..], &["targets"], &["migrations", "-v"]];
            let said = verbs.map(|verb| lbx.cli(verb).unwrap_or_default());
            format!("{}\n{}", said.join("\n"), lbx.log())
        };
        let story = || lbx.iter().map(say).collect::<Vec<_>>().join("\n---\n");
        assert!(start.elapsed() < Duration::from_mins(1), "{what}\n{}", story());
        std::thread::sleep(Duration::from_millis(20));
    }
    eprintln!("{what} after {:?}", start.elapsed());
}
