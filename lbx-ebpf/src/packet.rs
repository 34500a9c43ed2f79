//! The packet: where its bytes are, and what differs between XDP and tc.

pub mod cursor;
pub mod frame;
pub mod parse;
pub mod tc;
pub mod xdp;
