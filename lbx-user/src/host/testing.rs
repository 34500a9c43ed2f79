//! Links and processes as tables, for unit tests.

use super::links::{Kind, Link};
use super::vm::{Process, TapFds, identity};

/// A link that is up and learns, with the MAC 02:00:00:00:00:INDEX and an MTU of 1500 bytes.
pub fn link(index: u32, name: &str, kind: Kind, master: Option<u32>) -> Link {
    Link {
        index,
        name: name.to_owned(),
        kind,
        master,
        parent: None,
        mac: [2, 0, 0, 0, 0, index as u8],
        mtu: 1500,
        up: true,
        carrier: true,
        xdp: None,
        vlans: Vec::new(),
        learning: true,
    }
}

/// A bridge, with VLAN filtering or without.
pub fn bridge(vlan_filtering: bool) -> Kind {
    Kind::Bridge { vlan_filtering, default_pvid: 1, calls_iptables: false }
}

/// A tap of one queue.
pub fn tap() -> Kind {
    Kind::Tap { queues: 1 }
}

/// A process of these arguments, of a user without a name, that has taps open, each by a descriptor; it started at 1.
pub fn process(pid: u32, uid: u32, args: &[&str], taps: &[(&str, i32)]) -> Process {
    let args: Vec<_> = args.iter().map(ToString::to_string).collect();
    let taps = taps.iter().map(|(name, fd)| TapFds { name: (*name).to_owned(), fds: vec![*fd] });
    Process { pid, start_time: 1, uid, user: None, identity: identity(&args), taps: taps.collect() }
}
