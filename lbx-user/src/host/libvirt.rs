//! libvirt as a source of news about migrations: a client of its RPC protocol over the daemon's unix socket, without
//! libvirt's C library.
//!
//! ```text
//!  socket ── wire, xdr ──> messages ── notice ──> what libvirt says ── follow ──> events of migrations
//!            session: connect, open read-only, register, ask              source: tries again when it ends
//! ```
//!
//! The protocol: a frame is its own length, a header of six words and a body in XDR (libvirt's
//! docs/kbase/internals/rpc, src/rpc/virnetprotocol.x); procedures and bodies are in src/remote/remote_protocol.x,
//! whose numbers never change. lbx opens the connection read-only and changes nothing.

pub mod follow;
pub mod notice;
pub mod session;
pub mod source;
pub mod wire;
pub mod xdr;

pub use notice::{Change, Domain, Notice, Why};
pub use session::Session;
pub use source::{Shown, Sources};

use std::path::PathBuf;

/// Where a libvirt daemon that runs VMs listens unless the config says otherwise: the first of these that answers.
/// A host of separate daemons has `virtqemud`, and often a proxy behind the older name that would say everything
/// twice.
pub const USUAL: [&str; 2] = ["/run/libvirt/virtqemud-sock", "/run/libvirt/libvirt-sock"];

/// The connections a config asks for, each with the sockets it may use: one for every configured socket, or one to
/// what this host has.
pub fn wanted(configured: Option<&[PathBuf]>) -> Vec<source::Wanted> {
    match configured {
        Some(sockets) => sockets
            .iter()
            .map(|socket| source::Wanted { sockets: vec![socket.clone()], configured: true })
            .collect(),
        None => vec![source::Wanted { sockets: USUAL.map(PathBuf::from).to_vec(), configured: false }],
    }
}
