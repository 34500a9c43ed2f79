//! Reading the host: links, VMs, filters; and deciding from what was read, without touching anything.
//!
//! Everything here looks at the network namespace of the calling thread. What reads (netlink, ioctl, /proc, nft)
//! and what decides ([`plan`]) are apart, so that the decisions are tested on tables, not on machines.

pub mod filters;
pub mod libvirt;
pub mod links;
pub mod offload;
pub mod plan;
pub mod vm;

mod ask;
mod read;
#[cfg(test)]
pub(crate) mod testing;
mod watch;

pub use ask::ask;
pub use links::{Address, FdbEntry, Kind, Link, Neighbour, PortVlan, Route, View};
pub use read::view;
pub use watch::{Event, Watcher};
