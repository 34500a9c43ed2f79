//! Stand-ins: the guest's server in a namespace, behind a veth that is a port of the host's bridge.

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::netns::Netns;
use super::offload::Offloads;
use super::process::Process;
use super::record::Record;
use super::{guest, tools};
use crate::guest::announce::mac_text;
use crate::guest::params::Params;

/// Makes the veth: `port` on the host's bridge, `eth0` in the stand-in.
pub(super) fn connect(host: &Netns, ns: &Netns, port: &str, mac: [u8; 6], mtu: u32) -> Result<()> {
    let mac = mac_text(mac);
    let ns_name = ns.name();
    tools::ip(
        host,
        &[format!(
            "link add {port} mtu {mtu} type veth peer name eth0 mtu {mtu} address {mac} netns {ns_name}"
        )],
    )?;
    // Frames redirected into `port` by XDP arrive only if the other end runs NAPI, and `port` is a redirect target
    // only if the other end asked for that before `port` came up (veth_open, drivers/net/veth.c).
    Offloads { gro: Some(true), ..Offloads::default() }.apply(ns, "eth0")?;
    steer_by_flow(ns)?;
    tools::ip(host, &[format!("link set {port} master br0 up")])
}

/// Has each flow received on one CPU, as a NIC with RSS does. A veth receives a frame on whatever CPU its sender ran
/// on, so that the ACK of a handshake and the data behind it meet on two; the kernel's lookup of a connection may then
/// find neither the request nor the socket that takes its place, and the server answers with RST (inet_ehash_insert in
/// net/ipv4/inet_hashtables.c, seen on Linux 6.18 once in some 100,000 connections, with and without lbx).
fn steer_by_flow(ns: &Netns) -> Result<()> {
    // All CPUs that there may be: the kernel takes those that are there.
    let mask = u64::MAX >> (64 - std::thread::available_parallelism()?.get().min(64));
    ns.run(|| -> Result<()> {
        // A mounted /sys shows the devices of the namespace it was mounted in. This mount is seen by this thread only,
        // and goes with it. (The root need not be a mount that could be made private: it is none in a chroot.)
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/sys", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>)?;
        let queue = "/sys/class/net/eth0/queues/rx-0/rps_cpus";
        std::fs::write(queue, format!("{mask:x}")).context(queue)
    })?
}

/// Starts the server, which configures the namespace as it would a guest.
pub(super) fn start(record: &Record, ns: &Netns, params: &Params) -> Result<Process> {
    let mut command = ns.command(guest::binary()?);
    command.args(params.words());
    Process::spawn(record, &params.name, command)
}
