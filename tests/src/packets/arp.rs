//! Questions for a link-layer address: ARP (RFC 826) and neighbour solicitation (RFC 4861, section 4.3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Body, Packet};

/// An ARP frame. `op`: 1 request, 2 reply.
pub fn arp(op: u16, eth: ([u8; 6], [u8; 6]), from: ([u8; 6], Ipv4Addr), to: ([u8; 6], Ipv4Addr)) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(eth.1);
    out.extend(eth.0);
    out.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4]);
    out.extend(op.to_be_bytes());
    out.extend(from.0);
    out.extend(from.1.octets());
    out.extend(to.0);
    out.extend(to.1.octets());
    out
}

/// A request for an address, broadcast.
pub fn who_has(mac: [u8; 6], from: Ipv4Addr, asked: Ipv4Addr) -> Vec<u8> {
    arp(1, (mac, [0xff; 6]), (mac, from), ([0; 6], asked))
}

/// The solicited-node multicast address (RFC 4291, section 2.7.1) and its MAC (RFC 2464, section 7).
pub fn solicited_node(addr: Ipv6Addr) -> ([u8; 6], Ipv6Addr) {
    let [.., a, b, c] = addr.octets();
    let low = 0xff00_0000 | u32::from_be_bytes([0, a, b, c]);
    let group = (0xff02_u128 << 112) | (1_u128 << 32) | u128::from(low);
    ([0x33, 0x33, 0xff, a, b, c], group.into())
}

/// A solicitation for an address, to its solicited-node group.
pub fn solicit(mac: [u8; 6], from: Ipv6Addr, asked: Ipv6Addr) -> Packet {
    let (group_mac, group) = solicited_node(asked);
    let mut data = asked.octets().to_vec();
    // Source link-layer address.
    data.extend([1, 1]);
    data.extend(mac);
    let body = Body::Icmp { kind: 135, code: 0, rest: [0; 4], data };
    let mut packet = Packet::new((mac, group_mac), IpAddr::V6(from), IpAddr::V6(group), body);
    packet.ttl = 255;
    packet
}
