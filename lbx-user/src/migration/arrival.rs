//! A VM that runs here from now on is made known to the bridge and to the segment, before another host sends its frames.
//!
//! QEMU announces it too, at about the same moment: whoever comes first, frames that follow are led here. Without this,
//! the peer that hears of the VM may be faster than QEMU, and what it sends would be led back to where it comes from.

use std::io;

use lbx_common::addr::Mac;
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::answer::frame;
use crate::answer::socket::Sender;

/// Where a VM arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The MAC of its vNIC.
    pub mac: Mac,
    /// Its port of the bridge.
    pub port: u32,
    /// The uplink that others' frames to it come in by, and the tag that they have there (0 without).
    pub uplink: (u32, u16),
}

/// Makes arrivals known.
#[derive(Debug)]
pub struct Herald {
    frames: Sender,
    routes: Socket,
}

impl Herald {
    /// Needs CAP_NET_RAW, and for the bridge CAP_NET_ADMIN.
    ///
    /// # Errors
    /// The system call that failed.
    pub fn open() -> io::Result<Self> {
        let mut routes = Socket::new(NETLINK_ROUTE)?;
        routes.bind_auto()?;
        // What the kernel says of errors is not waited for, and must not wait.
        routes.set_non_blocking(true)?;
        Ok(Self { frames: Sender::open()?, routes })
    }

    /// Tells the bridge first: what the segment then sends passes it. A port that is in no bridge has none to tell.
    pub fn announce(&self, arrival: &Arrival) {
        let told = self.routes.send_to(&learn(arrival), &SocketAddr::new(0, 0), 0);
        let (uplink, vlan) = arrival.uplink;
        let sent = self.frames.send(uplink, &frame::here_is(arrival.mac, vlan));
        if let Some(error) = told.err().or(sent.err()) {
            tracing::debug!("the segment was not told where a VM runs now: {error}; its QEMU does it too");
        }
    }
}

/// The bridge learns the MAC behind the port, as if a frame of it had come in there (fdb_add_entry in
/// net/bridge/br_fdb.c): the entry ages and moves as others do.
fn learn(arrival: &Arrival) -> Vec<u8> {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = arrival.port;
    message.header.state = NeighbourState::Reachable;
    message.header.flags = NeighbourFlags::Controller | NeighbourFlags::Use;
    message.attributes = vec![NeighbourAttribute::LinkLayerAddress(arrival.mac.to_vec())];
    let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewNeighbour(message));
    message.header.flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bridge_is_told_in_one_message() {
        let bytes = learn(&Arrival { mac: [2, 0x77, 0, 1, 0, 3], port: 7, uplink: (3, 0) });
        // nlmsghdr: length, RTM_NEWNEIGH, flags (include/uapi/linux/netlink.h); ndmsg; NDA_LLADDR and its padding.
        assert_eq!(bytes.len(), 16 + 12 + 12);
        assert_eq!(bytes[..4], 40_u32.to_ne_bytes());
        assert_eq!(bytes[4..6], libc::RTM_NEWNEIGH.to_ne_bytes());
        assert_eq!(bytes[6..8], (libc::NLM_F_REQUEST as u16 | 0x400 | 0x100).to_ne_bytes());
        assert_eq!((bytes[16], &bytes[20..24]), (libc::AF_BRIDGE as u8, &7_u32.to_ne_bytes()[..]));
        // NUD_REACHABLE; NTF_MASTER and NTF_USE.
        assert_eq!((bytes[24], bytes[26]), (2, 4 | 1));
        assert_eq!(bytes[28..38], [10, 0, 2, 0, 2, 0x77, 0, 1, 0, 3]);
    }
}
