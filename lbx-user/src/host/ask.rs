//! Ask a neighbour for its MAC, as a packet to it would.

use std::io;
use std::net::IpAddr;

use netlink_packet_route::neighbour::{NeighbourFlags, NeighbourState};

/// Ask for those that nobody knows, and whether the others are still there. The answers come later, with a
/// [`super::view`]. Needs `CAP_NET_ADMIN`; must run on a tokio runtime.
///
/// # Errors
/// A netlink request that failed, the first of several.
pub async fn ask(neighbours: &[(u32, IpAddr)]) -> io::Result<()> {
    if neighbours.is_empty() {
        return Ok(());
    }
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let task = tokio::spawn(connection);
    let mut result = Ok(());
    for (index, address) in neighbours {
        // `NTF_USE`: the entry stays what it is, and is used (neigh_add in net/core/neighbour.c).
        let request = handle.neighbours().add(*index, *address).replace();
        let request = request.state(NeighbourState::None).flags(NeighbourFlags::Use);
        result = result.and(request.execute().await.map_err(io::Error::other));
    }
    task.abort();
    result
}
