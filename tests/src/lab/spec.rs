//! What a lab shall look like.

use std::net::IpAddr;

use super::addr;
use super::offload::Offloads;

/// A whole lab. `LabSpec::default()` has one client, one host and no VMs.
#[derive(Debug, Clone)]
pub struct LabSpec {
    /// The clients on the upstream switch.
    pub clients: Vec<ClientSpec>,
    /// The hosts on the upstream switch, one or two.
    pub hosts: Vec<HostSpec>,
    /// VIPs that VMs carry on lo, unless a VM says otherwise.
    pub vips: Vec<IpAddr>,
    /// MTU of every link in bytes.
    pub mtu: u32,
    /// Offloads of the switch's ports towards the hosts: what "the wire" does.
    pub wire: Offloads,
}

/// One client namespace with `eth0` on the upstream switch.
#[derive(Debug, Clone, Default)]
pub struct ClientSpec {
    /// How many addresses besides its own it can connect from (at most 16): each adds 64,000 ports per server.
    pub sources: usize,
    /// Its addresses are on `eth0.VLAN`, so that everything it sends is tagged.
    pub vlan: Option<u16>,
    /// Offloads of its device.
    pub offloads: Offloads,
}

/// One KVM host: a namespace with bridge `br0` and uplink `up0`.
#[derive(Debug, Clone)]
pub struct HostSpec {
    /// Its VMs, on `tap0`, `tap1`, ... in this order.
    pub vms: Vec<VmSpec>,
    /// Whether the bridge filters VLANs.
    pub vlan_filtering: bool,
    /// VLANs the uplink is a tagged member of (with `vlan_filtering`).
    pub uplink_vlans: Vec<u16>,
    /// Whether the bridge itself has an address (10.77.0.10, ...).
    pub address: bool,
    /// Offloads of the uplink `up0`.
    pub offloads: Offloads,
}

/// What a VM is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VmKind {
    /// A QEMU guest behind a tap.
    Guest,
    /// The same server in a namespace behind a veth: no virtio, no tap, starts in milliseconds.
    StandIn,
}

/// One VM.
#[derive(Debug, Clone)]
pub struct VmSpec {
    /// Its name, in answers and as QEMU's `guest=`.
    pub name: String,
    /// A guest or a stand-in.
    pub kind: VmKind,
    /// Queue pairs of its vNIC (guests only); it gets as many vCPUs.
    pub queues: u32,
    /// Memory in MiB (guests only).
    pub memory_mib: u32,
    /// Its port's PVID, untagged (with the host's `vlan_filtering`).
    pub vlan: Option<u16>,
    /// The port carries that VLAN's tag, and a stand-in has its addresses on `eth0.VLAN`.
    pub tagged: bool,
    /// VIPs on its lo; `None` for the lab's.
    pub vips: Option<Vec<IpAddr>>,
    /// Ports that speak HTTP.
    pub http: Vec<u16>,
    /// Service time in milliseconds.
    pub service_ms: u64,
    /// More for QEMU's command line, behind the lab's own.
    pub qemu_args: Vec<String>,
    /// Whether it is started with the lab.
    pub start: bool,
}

impl Default for LabSpec {
    fn default() -> Self {
        Self {
            clients: vec![ClientSpec::default()],
            hosts: vec![HostSpec::default()],
            vips: addr::vip(0).both().to_vec(),
            mtu: 1500,
            wire: Offloads::wire(),
        }
    }
}

impl LabSpec {
    /// One host with `n` VMs of a kind, called `vm1`, `vm2`, ...; the client has 8 source addresses.
    pub fn one_host(n: usize, kind: VmKind) -> Self {
        Self::hosts(&[n], kind)
    }

    /// Several hosts with so many VMs each; VMs are numbered through.
    pub fn hosts(vms: &[usize], kind: VmKind) -> Self {
        let mut number = 0;
        let mut host = |n: usize| {
            let vms = (0..n).map(|_| {
                number += 1;
                VmSpec { kind, ..VmSpec::guest(&format!("vm{number}")) }
            });
            HostSpec { vms: vms.collect(), ..HostSpec::default() }
        };
        Self {
            hosts: vms.iter().map(|&n| host(n)).collect(),
            clients: vec![ClientSpec { sources: 8, ..ClientSpec::default() }],
            ..Self::default()
        }
    }
}

impl Default for HostSpec {
    fn default() -> Self {
        Self {
            vms: Vec::new(),
            vlan_filtering: false,
            uplink_vlans: Vec::new(),
            address: true,
            offloads: Offloads { gro: Some(true), ..Offloads::default() },
        }
    }
}

impl VmSpec {
    /// A QEMU guest with one queue and 128 MiB.
    pub fn guest(name: &str) -> Self {
        Self {
            name: name.into(),
            kind: VmKind::Guest,
            queues: 1,
            memory_mib: 128,
            vlan: None,
            tagged: false,
            vips: None,
            http: vec![80],
            service_ms: 0,
            qemu_args: Vec::new(),
            start: true,
        }
    }

    /// A stand-in.
    pub fn stand_in(name: &str) -> Self {
        Self { kind: VmKind::StandIn, ..Self::guest(name) }
    }
}
