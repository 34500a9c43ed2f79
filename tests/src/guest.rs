//! The server inside a lab guest: PID 1 of a QEMU guest, or an ordinary process in a namespace (a stand-in).
//!
//! It configures its network from `lbx.*=` words (kernel command line or arguments, see [`params`]) and serves
//! HTTP, TCP echo and UDP echo; every answer names the VM that gave it.

pub mod announce;
pub mod dirty;
pub mod echo;
pub mod http;
pub mod init;
pub mod nested;
pub mod net;
pub mod netlink;
pub mod params;
pub mod pattern;
pub mod seen;
pub mod service;
pub mod state;
pub mod stats;
