//! The API of the daemon: HTTP and JSON on a unix socket. [`model`] is what is said, by server and CLI alike;
//! [`client`] asks.

pub mod client;
pub mod model;

mod routes;
pub mod server;

pub use server::{Server, serve};
