//! Changes to the packet.

pub mod nat;
