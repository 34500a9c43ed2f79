//! Labs: a client, an upstream switch and one or two KVM hosts, each in its own network namespace, with QEMU
//! guests on the hosts' bridges.
//!
//! ```text
//!  lbx-ID-client        lbx-ID-net (upstream switch)       lbx-ID-host
//!  [eth0] ───────────── [c0]   bridge sw0   [h0] ───────── [up0]  bridge br0  [tap0] ── QEMU guest vm1
//!                                                                             [tap1] ── QEMU guest vm2
//!                                                                             [tap2] ── lbx-ID-vm3 (stand-in)
//! ```
//!
//! Nothing touches the machine's own namespace. Everything a lab makes is written into its [`record`] first, so
//! that drop, a signal, a panic, or the start of the next lab after a `kill -9` can remove it.

pub mod accel;
pub mod addr;
pub mod bpffs;
pub mod cleanup;
pub mod client;
pub mod config;
pub mod cpio;
pub mod guest;
pub mod image;
pub mod lbx;
pub mod left;
pub mod libvirt;
pub mod migrate;
pub mod nested;
pub mod netns;
pub mod offload;
pub mod process;
pub mod qmp;
pub mod record;
pub mod ring;
pub mod spec;
pub mod standin;
pub mod throttle;
pub mod tools;
pub mod topology;
pub mod vm;

pub use lbx::Lbx;
pub use libvirt::Libvirtd;
pub use migrate::{Migration, Timeline};
pub use netns::Netns;
pub use spec::{ClientSpec, HostSpec, LabSpec, VmKind, VmSpec};
pub use topology::{Client, Host, Lab};
pub use vm::Vm;
