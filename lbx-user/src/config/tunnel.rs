//! `tunnel` of `[peers]` and `[[peer]]`: how frames get to VMs that moved to another network.

use std::net::IpAddr;

use serde::Serialize;

use super::peers::Peer;
use super::raw::{Report, Table};
use super::service::ReadService;

/// Network unless configured: "lbx" in ASCII, so that it is hardly anybody else's.
pub const VNI: u32 = 0x6c_6278;

/// This host's end of the tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Tunnel {
    /// Its address, one of this host's own.
    pub address: IpAddr,
    /// VXLAN network, the same on all hosts.
    pub vni: u32,
    /// UDP port, the same on all hosts.
    pub port: u16,
}

/// Reads what `[peers]` says of it.
pub(super) fn own(table: &Table<'_, '_>) -> Option<Tunnel> {
    let address = address(table, "tunnel");
    let vni = table.integer("vni", 1..=0xff_ffff).map_or(VNI, |at| at.value as u32);
    let port =
        table.integer("tunnel_port", 1..=65_535).map_or(lbx_common::tunnel::PORT, |at| at.value as u16);
    if !table.has("tunnel") {
        for key in ["vni", "tunnel_port"] {
            if table.has(key) {
                table.error(key, "there is no tunnel without `tunnel`", None);
            }
        }
    }
    Some(Tunnel { address: address?, vni, port })
}

/// An end of a tunnel.
pub(super) fn address(table: &Table<'_, '_>, key: &'static str) -> Option<IpAddr> {
    let text = table.string(key)?.value;
    let problem = match text.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() => {
            "is no address that frames can be sent to"
        }
        Ok(ip) => return Some(ip.to_canonical()),
        Err(_) => "is not an address",
    };
    let hint = "an address of the host, such as \"10.0.0.1\" or \"2001:db8::1\"; the port is `tunnel_port`";
    table.error(key, format!("\"{text}\" {problem}"), Some(hint.to_owned()));
    None
}

/// Largest IP packet that the way to a peer carries, if that is less than the interface does.
pub(super) fn mtu(table: &Table<'_, '_>) -> Option<u16> {
    let mtu = table.integer("tunnel_mtu", 1280..=65_535)?.value as u16;
    if !table.has("tunnel") {
        table.error("tunnel_mtu", "there is no tunnel without `tunnel`", None);
    }
    Some(mtu)
}

/// Whether the ends fit together.
pub(super) fn check(own: Option<&Tunnel>, table: &Table<'_, '_>, peer: &Peer, earlier: &[&Peer]) {
    let Some(end) = peer.tunnel else { return };
    let Some(own) = own else {
        let hint = "add `tunnel` with an address of this host to [peers]";
        table.error("tunnel", "this host has no end of a tunnel", Some(hint.to_owned()));
        return;
    };
    if end == own.address {
        table.error("tunnel", "that is this host's own end (`peers.tunnel`)", None);
    } else if end.is_ipv4() != own.address.is_ipv4() {
        let message = format!("{end} and this host's end, {}, are of different families", own.address);
        table.error("tunnel", message, None);
    }
    if let Some(other) = earlier.iter().find(|other| other.tunnel == Some(end)) {
        table.error("tunnel", format!("\"{}\" has the same end", other.name), None);
    }
}

/// The end of a tunnel is no VIP: what is sent there is for the host.
pub(super) fn no_vip(own: Option<&Tunnel>, services: &[ReadService], report: &Report<'_>) {
    let Some(own) = own else { return };
    for service in services {
        for (vip, span) in service.service.vips.iter().zip(&service.vip_spans) {
            if *vip == own.address {
                let message = format!("{vip} is this host's end of the tunnels (`peers.tunnel`)");
                let hint = "a VIP belongs to no machine; choose a free address";
                report.error(span, &format!("{}.vip", service.path), message, Some(hint.to_owned()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Severity};

    const OWN: &str = "[peers]\nname = \"kvm1\"\nlisten = \"10.0.0.1:9346\"\nca = \"/a/ca.pem\"\n\
                       certificate = \"/a/kvm1.pem\"\nkey = \"/a/kvm1.key\"\n";
    const PEER: &str = "[[peer]]\nname = \"kvm2\"\naddress = \"10.0.1.2:9346\"\n";

    #[test]
    fn ends_are_read() {
        let text =
            format!("{OWN}tunnel = \"10.0.0.1\"\nvni = 7\n{PEER}tunnel = \"10.0.1.2\"\ntunnel_mtu = 1400\n");
        let peers = Config::parse("f", &text).unwrap().peers.unwrap();
        let own = peers.tunnel.unwrap();
        assert_eq!((own.address, own.vni, own.port), ("10.0.0.1".parse().unwrap(), 7, 4789));
        let other = peers.peer("kvm2").unwrap();
        assert_eq!((other.tunnel, other.tunnel_mtu), (Some("10.0.1.2".parse().unwrap()), Some(1400)));
        let without = Config::parse("f", &format!("{OWN}{PEER}")).unwrap().peers.unwrap();
        assert_eq!((without.tunnel, without.others[0].tunnel), (None, None));
    }

    #[test]
    fn ends_that_do_not_fit_are_told_with_their_line() {
        let own = "tunnel = \"10.0.0.1\"\n";
        for (text, line, says) in [
            (format!("{OWN}{PEER}tunnel = \"10.0.1.2\"\n"), 10, "no end of a tunnel"),
            (format!("{OWN}{own}{PEER}tunnel = \"10.0.0.1\"\n"), 11, "own end"),
            (format!("{OWN}{own}{PEER}tunnel = \"2001:db8::2\"\n"), 11, "different families"),
            (format!("{OWN}{own}{PEER}tunnel = \"10.0.1.2:1\"\n"), 11, "not an address"),
            (format!("{OWN}tunnel = \"224.0.0.1\"\n{PEER}"), 7, "can be sent to"),
            (format!("{OWN}vni = 7\n{PEER}"), 7, "without `tunnel`"),
            (format!("{OWN}{own}vni = 16777216\n{PEER}"), 8, "vni"),
            (format!("{OWN}{own}{PEER}tunnel_mtu = 1400\n"), 11, "without `tunnel`"),
        ] {
            let problems = Config::parse("f", &text).unwrap_err().0;
            let errors = problems.iter().filter(|one| one.severity == Severity::Error);
            let found = errors.into_iter().any(|one| one.line == line && one.to_string().contains(says));
            assert!(found, "{text}: {problems:?}");
        }
        let third = PEER.replace("kvm2", "kvm3").replace("10.0.1.2", "10.0.1.3");
        let text = format!("{OWN}{own}{PEER}tunnel = \"10.0.1.2\"\n{third}tunnel = \"10.0.1.2\"\n");
        let problems = Config::parse("f", &text).unwrap_err().0;
        assert!(
            problems.iter().any(|one| one.message.contains("same end") && one.line == 15),
            "{problems:?}"
        );
    }
}
