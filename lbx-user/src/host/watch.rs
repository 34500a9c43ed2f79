//! Changes of links, addresses and routes as they happen.

use std::io;

use futures_util::StreamExt;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::links::Link;
use super::read;

/// Something changed. What it means is decided from a fresh [`super::view`]; the event says that it is time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An interface is new or different. Its VLANs are not filled in.
    Link(Box<Link>),
    /// An interface is gone.
    LinkGone {
        /// Its index; may be used again.
        index: u32,
        /// Its name.
        name: String,
    },
    /// An address came or went.
    Address {
        /// The interface.
        index: u32,
    },
    /// A route came or went.
    Route,
    /// Ports or VLANs of a bridge changed, or the kernel had more to say than was read in time: look at
    /// everything again.
    Resync,
}

/// A subscription; ends when dropped.
#[derive(Debug)]
pub struct Watcher {
    events: mpsc::Receiver<Event>,
    tasks: [JoinHandle<()>; 2],
}

impl Watcher {
    /// Subscribe in the namespace of the calling thread. Subscribe first and take a view second: then nothing
    /// falls between the two.
    ///
    /// # Errors
    /// The netlink socket could not be opened or bound.
    pub fn new() -> io::Result<Self> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let (connection, handle, mut messages) = rtnetlink::new_multicast_connection(&groups)?;
        let (sender, events) = mpsc::channel(1024);
        let connection = tokio::spawn(connection);
        let forward = tokio::spawn(async move {
            // The connection ends when nobody can make requests any more; this keeps it.
            let _handle = handle;
            while let Some((message, _)) = messages.next().await {
                let Some(event) = event(&message.payload) else { continue };
                if sender.send(event).await.is_err() {
                    break;
                }
            }
        });
        Ok(Self { events, tasks: [connection, forward] })
    }

    /// The next change; `None` when the kernel closed the socket.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn event(payload: &NetlinkPayload<RouteNetlinkMessage>) -> Option<Event> {
    let message = match payload {
        NetlinkPayload::InnerMessage(message) => message,
        NetlinkPayload::Overrun(_) => return Some(Event::Resync),
        _ => return None,
    };
    match message {
        // The bridge's own word on a port (its VLANs, its state) leaves out what the link is.
        RouteNetlinkMessage::NewLink(link) if link.header.interface_family == AddressFamily::Bridge => {
            Some(Event::Resync)
        }
        RouteNetlinkMessage::NewLink(link) => Some(Event::Link(Box::new(read::link(link)))),
        RouteNetlinkMessage::DelLink(link) => {
            // A port that leaves its bridge is reported as deleted, for the bridge's family.
            if link.header.interface_family == AddressFamily::Bridge {
                return Some(Event::Resync);
            }
            let link = read::link(link);
            Some(Event::LinkGone { index: link.index, name: link.name })
        }
        RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
            Some(Event::Address { index: address.header.index })
        }
        RouteNetlinkMessage::NewRoute(_) | RouteNetlinkMessage::DelRoute(_) => Some(Event::Route),
        _ => None,
    }
}
