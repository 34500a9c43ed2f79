//! What the datapath decides, as plain functions: the kernel program runs them, the host tests them.

pub mod back;
pub mod fate;
pub mod pick;
pub mod place;
pub mod plain;
pub mod queue;
pub mod rate;
pub mod slow;
pub mod vlan;
