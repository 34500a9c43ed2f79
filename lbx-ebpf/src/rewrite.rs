//! Changes to the packet.
