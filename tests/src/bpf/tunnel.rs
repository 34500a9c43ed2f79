//! Both ends of the tunnel of moved flows, as the tests of either know them.

use std::net::IpAddr;

use lbx_common::elsewhere::Elsewhere;
use lbx_common::reason::Reason;
use lbx_common::target::{Deliver, State};
use lbx_common::tunnel;

use super::world::{UPLINK, UPLINK_MAC, vm_mac};
use super::{Bench, Ran, Verdict};
use crate::packets::vxlan::Vxlan;

/// The router both ways.
pub const HOP: [u8; 6] = [2, 0, 0, 0, 9, 9];
/// Network of the tunnel.
pub const VNI: u32 = 0x0a_0b0c;
/// Its UDP port.
pub const PORT: u16 = 4789;
/// What is counted of a packet that goes into it.
pub const SENT: [Reason; 2] = [Reason::MovedFollowed, Reason::TunnelSent];
/// And of one that comes out.
pub const RECEIVED: [Reason; 1] = [Reason::TunnelReceived];

/// This host's end and the peer's.
pub fn hosts(v4: bool) -> [IpAddr; 2] {
    if v4 {
        ["10.1.0.1".parse().unwrap(), "10.2.0.2".parse().unwrap()]
    } else {
        ["2001:db8:1::1".parse().unwrap(), "2001:db8:2::2".parse().unwrap()]
    }
}

/// As this host sends.
pub fn sent(v4: bool) -> Vxlan {
    let [src, dst] = hosts(v4);
    Vxlan {
        macs: (UPLINK_MAC, HOP),
        tag: None,
        src,
        dst,
        class: 0,
        ttl: 64,
        ports: (0, PORT),
        flags: 8,
        vni: VNI,
    }
}

/// As the peer sends.
pub fn received(v4: bool) -> Vxlan {
    let [dst, src] = hosts(v4);
    Vxlan { macs: (HOP, UPLINK_MAC), src, dst, ports: (50_000, PORT), ..sent(v4) }
}

/// Where the flows of a VM go: through the tunnel.
pub fn place(bench: &Bench, vm: u8, v4: bool) -> Elsewhere {
    let [src, dst] = hosts(v4).map(Into::into);
    Elsewhere {
        ifindex: bench.ifindex(UPLINK),
        mac: vm_mac(vm),
        mtu: 1500 - tunnel::overhead(v4, false),
        deliver: Deliver::Uplink as u8,
        tunnel: 1,
        hop: HOP,
        src,
        dst,
        vni: VNI,
        udp_port: PORT,
        ..Elsewhere::default()
    }
}

/// Has a VM moved there.
pub fn moved(bench: &Bench, vm: u8, place: &Elsewhere) {
    bench.maps().write_elsewhere(vm.into(), place).unwrap();
    let of_vm: Vec<u32> =
        bench.world.targets().filter(|(_, _, t)| t.mac == vm_mac(vm)).map(|t| t.0).collect();
    for target in of_vm {
        bench.change_target(target, |entry| entry.elsewhere = vm.into());
        bench.set_state(target, State::Moved);
    }
}

/// The frame as it goes to a VM: its MAC, all else as it came.
pub fn to_vm(frame: &[u8], vm: u8) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[..6].copy_from_slice(&vm_mac(vm));
    frame
}

/// Checks every byte of what went into the tunnel; the source port.
#[track_caller]
pub fn in_tunnel(ran: &Ran, what: &str, around: &Vxlan, inside: &[u8], counted: &[Reason]) -> u16 {
    let at = around.bytes() - 16;
    let port = u16::from_be_bytes([ran.frame[at], ran.frame[at + 1]]);
    let expected = Vxlan { ports: (port, PORT), ..around.clone() }.around(inside);
    ran.is(what, Verdict::Redirect, &expected, counted);
    assert!(port >= 49_152, "{what}: from port {port}");
    port
}
