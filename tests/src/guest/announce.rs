//! Gratuitous ARP and unsolicited neighbour advertisements for the guest's own addresses (never its VIPs).

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, SockaddrLike, sendto, setsockopt,
    socket, sockopt,
};

use super::params::Params;

/// Announces every own address once.
pub fn announce(params: &Params) -> Result<()> {
    let index = super::net::device_index(&params.dev)?;
    let mac = device_mac(&params.dev)?;
    for cidr in &params.addresses {
        match cidr.addr {
            IpAddr::V4(addr) => gratuitous_arp(index, mac, addr),
            IpAddr::V6(addr) => unsolicited_na(index, mac, addr),
        }
        .with_context(|| format!("announcing {}", cidr.addr))?;
    }
    Ok(())
}

/// The MAC of a device of the current namespace.
pub fn device_mac(dev: &str) -> Result<[u8; 6]> {
    // Not /sys/class/net: a stand-in runs in a namespace whose sysfs is not mounted.
    let addrs = nix::ifaddrs::getifaddrs()?;
    addrs
        .filter(|a| a.interface_name == dev)
        .find_map(|a| a.address?.as_link_addr()?.addr())
        .with_context(|| format!("{dev} has no MAC"))
}

/// A broadcast ARP request for the own address (RFC 5227 announcement).
fn gratuitous_arp(index: u32, mac: [u8; 6], addr: Ipv4Addr) -> io::Result<()> {
    let mut frame = Vec::with_capacity(42);
    frame.extend([0xff; 6]);
    frame.extend(mac);
    // type ARP; hardware Ethernet, protocol IPv4, lengths 6 and 4, operation request
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(addr.octets());
    frame.extend([0; 6]);
    frame.extend(addr.octets());

    let protocol = i32::from((libc::ETH_P_ARP as u16).to_be());
    // SAFETY: a plain system call without pointers; the result is checked before it is used.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just returned by socket() and nothing else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: sockaddr_ll is plain old data for which all zeroes is a valid value.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_ifindex = index as i32;
    // SAFETY: the pointers and lengths describe `frame` and `to`, which outlive the call.
    let sent = unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            size_of_val(&to) as u32,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A neighbour advertisement to all nodes with the override flag (RFC 4861, 7.2.6). The kernel adds the checksum.
fn unsolicited_na(index: u32, mac: [u8; 6], addr: Ipv6Addr) -> io::Result<()> {
    let mut message = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    message.extend(addr.octets());
    message.extend([2, 1]); // option: target link-layer address, length in units of 8 bytes
    message.extend(mac);
    let fd = socket(AddressFamily::Inet6, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::IcmpV6)?;
    setsockopt(&fd, sockopt::Ipv6MulticastHops, &255)?;
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let to = SockaddrIn6::from(SocketAddrV6::new(all_nodes, 0, 0, index));
    debug_assert_eq!(to.family(), Some(AddressFamily::Inet6));
    sendto(fd.as_raw_fd(), &message, &to, MsgFlags::empty())?;
    Ok(())
}

/// The MAC as text, for messages.
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}

/// Whether this process is alone on its machine: PID 1.
pub fn is_init() -> bool {
    fs::read_link("/proc/self").map_or_else(|_| std::process::id() == 1, |p| p.as_os_str() == "1")
}
