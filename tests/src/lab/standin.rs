//! Stand-ins: the guest's server in a namespace, behind a veth that is a port of the host's bridge.

use anyhow::Result;

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
    tools::ip(host, &[format!("link set {port} master br0 up")])
}

/// Starts the server, which configures the namespace as it would a guest.
pub(super) fn start(record: &Record, ns: &Netns, params: &Params) -> Result<Process> {
    let mut command = ns.command(guest::binary()?);
    command.args(params.words());
    Process::spawn(record, &params.name, command)
}
