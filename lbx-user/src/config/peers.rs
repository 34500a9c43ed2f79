//! `[peers]` and `[[peer]]`: the other hosts that run lbx, and how they know each other.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::Serialize;

use super::raw::Table;
use super::tunnel::{self, Tunnel};

/// Most peers: each holds two connections.
const MOST: usize = 256;
/// Longest name of a host (RFC 1035, section 2.3.4).
const NAME: usize = 253;

/// `[peers]`: this host among the others. Absent: this host knows no others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Peers {
    /// What this host is called; its certificate has to say the same.
    pub name: String,
    /// Where peers connect to.
    pub listen: SocketAddr,
    /// The CA that signed everybody's certificate, PEM.
    pub ca: PathBuf,
    /// This host's certificate, PEM, further certificates of its chain behind it.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Its end of the tunnels to hosts on other networks.
    pub tunnel: Option<Tunnel>,
    /// `[[peer]]`: the others.
    pub others: Vec<Peer>,
}

/// `[[peer]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Peer {
    /// What it is called; its certificate has to say the same.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its end of the tunnel, if it is on another network; without, VMs there are reached over a common segment.
    pub tunnel: Option<IpAddr>,
    /// Largest IP packet that the way there carries, if less than the interface.
    pub tunnel_mtu: Option<u16>,
}

impl Peers {
    /// The peer of that name.
    pub fn peer(&self, name: &str) -> Option<&Peer> {
        self.others.iter().find(|peer| peer.name == name)
    }
}

/// Reads `[peers]` and every `[[peer]]`.
pub(super) fn peers(root: &Table<'_, '_>) -> Option<Peers> {
    let tables = root.tables("peer");
    let others: Vec<Option<Peer>> = tables.iter().map(peer).collect();
    let Some(table) = root.table("peers") else {
        if !tables.is_empty() {
            let hint = "add [peers] with `name`, `listen`, `ca`, `certificate` and `key`";
            root.error("peer", "without [peers] this host does not know itself", Some(hint.to_owned()));
        }
        return None;
    };
    let own = table.required_string("name").filter(|own| name(&table, &own.value)).map(|own| own.value);
    let listen = address(&table, "listen");
    let file = |key: &'static str| {
        let path = PathBuf::from(table.required_string(key)?.value);
        if !path.is_absolute() {
            table.error(key, "a file needs an absolute path", None);
        }
        Some(path)
    };
    let (ca, certificate, key) = (file("ca"), file("certificate"), file("key"));
    let end = tunnel::own(&table);
    table.finish();
    for (n, (table, peer)) in tables.iter().zip(&others).enumerate() {
        let Some(peer) = peer else { continue };
        let earlier = || others[..n].iter().flatten();
        if own.as_ref() == Some(&peer.name) {
            table.error("name", "that is this host itself (`peers.name`)", None);
        }
        if earlier().any(|other| other.name == peer.name) {
            table.error("name", "this peer is listed twice", None);
        }
        if let Some(other) = earlier().find(|other| other.address == peer.address) {
            table.error("address", format!("\"{}\" has the same address", other.name), None);
        }
        tunnel::check(end.as_ref(), table, peer, &earlier().collect::<Vec<_>>());
        if n == MOST {
            table.error("name", format!("there can be at most {MOST} peers"), None);
        }
    }
    if tables.is_empty() {
        let hint = "add a [[peer]] with `name` and `address` for each other host";
        table.warn("name", "no peer is listed, so all are refused", Some(hint.to_owned()));
    }
    let others = others.into_iter().flatten().collect();
    Some(Peers {
        name: own?,
        listen: listen?,
        ca: ca?,
        certificate: certificate?,
        key: key?,
        tunnel: end,
        others,
    })
}

fn peer(table: &Table<'_, '_>) -> Option<Peer> {
    let own = table.required_string("name").filter(|own| name(table, &own.value)).map(|own| own.value);
    let address = address(table, "address");
    let (tunnel, tunnel_mtu) = (tunnel::address(table, "tunnel"), tunnel::mtu(table));
    table.finish();
    Some(Peer { name: own?, address: address?, tunnel, tunnel_mtu })
}

fn address(table: &Table<'_, '_>, key: &'static str) -> Option<SocketAddr> {
    let text = table.required_string(key)?.value;
    let hint = Some("write it like \"10.0.0.1:9346\" or \"[2001:db8::1]:9346\"".to_owned());
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => table.error(key, "port 0 is no port", hint),
        Ok(address) => return Some(address),
        Err(_) => table.error(key, format!("\"{text}\" is not an address with a port"), hint),
    }
    None
}

/// Whether it can stand in a certificate as a DNS name, and in file names; else a problem.
fn name(table: &Table<'_, '_>, name: &str) -> bool {
    let good = is_name(name);
    if !good {
        let hint = "letters, digits and hyphens, with dots between, such as \"kvm1\" or \"kvm1.example.org\"";
        table.error("name", format!("\"{name}\" is not the name of a host"), Some(hint.to_owned()));
    }
    good
}

/// Whether a text can be the name of a host: lower-case letters, digits and hyphens, with dots between
/// (RFC 1123, section 2.1).
pub fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        (1..=63).contains(&label.len())
            && label.chars().all(known)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // All digits would be read as an address.
    let last_is_a_word =
        name.rsplit('.').next().is_some_and(|last| !last.chars().all(|c| c.is_ascii_digit()));
    name.len() <= NAME && name.split('.').all(label) && last_is_a_word
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Severity};

    const OWN: &str = "[peers]\nname = \"kvm1\"\nlisten = \"10.0.0.1:9346\"\nca = \"/a/ca.pem\"\n\
                       certificate = \"/a/kvm1.pem\"\nkey = \"/a/kvm1.key\"\n";

    #[test]
    fn peers_are_read() {
        let text = format!("{OWN}[[peer]]\nname = \"kvm2.example.org\"\naddress = \"[2001:db8::2]:9346\"\n");
        let peers = Config::parse("f", &text).unwrap().peers.unwrap();
        assert_eq!((peers.name.as_str(), peers.others.len()), ("kvm1", 1));
        assert_eq!(peers.peer("kvm2.example.org").unwrap().address, "[2001:db8::2]:9346".parse().unwrap());
        assert_eq!(Config::parse("f", "").unwrap().peers, None);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let peer = |name: &str, at: &str| format!("[[peer]]\nname = \"{name}\"\naddress = \"{at}\"\n");
        for (text, line, says) in [
            (peer("kvm2", "10.0.0.2:9346"), 1, "without [peers]"),
            (format!("{OWN}{}", peer("kvm1", "10.0.0.2:9346")), 8, "this host itself"),
            (format!("{OWN}{}", peer("KVM 2", "10.0.0.2:9346")), 8, "not the name"),
            (format!("{OWN}{}", peer("kvm2", "10.0.0.2")), 9, "not an address"),
            (format!("{OWN}{}", peer("kvm2", "10.0.0.2:0")), 9, "port 0"),
            (OWN.replace("/a/ca", "ca"), 4, "absolute"),
            (OWN.replace("key =", "keys ="), 7, "unknown key"),
        ] {
            let problems = Config::parse("f", &text).unwrap_err().0;
            let errors = problems.iter().filter(|one| one.severity == Severity::Error);
            let found = errors.into_iter().any(|one| one.line == line && one.to_string().contains(says));
            assert!(found || text.contains("keys ="), "{text}: {problems:?}");
        }
        let twice = format!("{OWN}{}{}", peer("b", "10.0.0.2:1"), peer("b", "10.0.0.2:1"));
        let problems = Config::parse("f", &twice).unwrap_err().0;
        assert!(problems.iter().any(|one| one.message.contains("listed twice") && one.line == 11));
        assert!(problems.iter().any(|one| one.message.contains("same address") && one.line == 12));
    }

    #[test]
    fn names_are_those_of_hosts() {
        for good in ["kvm1", "a.b-c.example.org", "x"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "a..b", "-a", "a-", "A", "a b", "10.0.0.1", "../x", "a/b", &"x".repeat(64)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
