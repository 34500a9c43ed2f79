//! Labs and fixtures for the tests, the demo and the benches of lbx.
//!
//! [`lab`] builds a network out of namespaces, bridges, taps and QEMU guests and removes it again whatever
//! happens; [`guest`] is the server that runs inside a guest (or, as a stand-in, inside a namespace);
//! `scenario` is a lab with the product running in it.

#[cfg(feature = "privileged")]
pub mod bench;
#[cfg(feature = "privileged")]
pub mod bpf;
#[cfg(feature = "privileged")]
pub mod demo;
pub mod guest;
pub mod lab;
#[cfg(feature = "privileged")]
pub mod packets;
#[cfg(feature = "privileged")]
pub mod scenario;
#[cfg(feature = "privileged")]
pub mod unread;
