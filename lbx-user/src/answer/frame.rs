//! The frames of asking and announcing: ARP (RFC 826, RFC 5227), neighbour discovery (RFC 4861, RFC 4862).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lbx_common::addr::Mac;

const ETH_ARP: [u8; 2] = [0x08, 0x06];
const ETH_RARP: [u8; 2] = [0x80, 0x35];
const ETH_IPV6: [u8; 2] = [0x86, 0xdd];
const ETH_VLAN: [u8; 2] = [0x81, 0x00];
const BROADCAST: Mac = [0xff; 6];
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// What a frame says about an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// "Is this anybody's?": an ARP probe, or duplicate address detection.
    Probe,
    /// "This is mine": an ARP packet with the address as sender, or an advertisement.
    Claim,
}

/// What was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// The address it is about.
    pub addr: IpAddr,
    /// Who said it.
    pub mac: Mac,
    /// VLAN tag of the frame, 0 without.
    pub vlan: u16,
    /// What.
    pub said: Said,
}

fn ethernet(dst: Mac, src: Mac, vlan: u16, kind: [u8; 2]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(90);
    frame.extend_from_slice(&dst);
    frame.extend_from_slice(&src);
    if vlan != 0 {
        frame.extend_from_slice(&ETH_VLAN);
        frame.extend_from_slice(&vlan.to_be_bytes());
    }
    frame.extend_from_slice(&kind);
    frame
}

/// Asks whether an address is in use, without claiming it.
pub fn probe(addr: IpAddr, mac: Mac, vlan: u16) -> Vec<u8> {
    match addr {
        // RFC 5227, section 2.1.1: a request with an all-zero sender address.
        IpAddr::V4(addr) => arp(mac, vlan, Ipv4Addr::UNSPECIFIED, addr),
        // RFC 4862, section 5.4.2: from the unspecified address to the solicited-node group, no option.
        IpAddr::V6(addr) => {
            let last = addr.octets();
            let mut group = [0u8; 16];
            group[..2].copy_from_slice(&[0xff, 0x02]);
            group[11..13].copy_from_slice(&[1, 0xff]);
            group[13..].copy_from_slice(&last[13..]);
            let dst = [0x33, 0x33, 0xff, last[13], last[14], last[15]];
            let mut body = vec![NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
            body.extend_from_slice(&last);
            icmpv6(dst, mac, vlan, Ipv6Addr::UNSPECIFIED, group.into(), body)
        }
    }
}

/// Tells every bridge and switch where a MAC is now, and hosts nothing: a request of RARP (RFC 903), which nobody serves.
pub fn here_is(mac: Mac, vlan: u16) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, mac, vlan, ETH_RARP);
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, 3]);
    for part in [&mac[..], &[0; 4], &mac, &[0; 4]] {
        frame.extend_from_slice(part);
    }
    frame.resize(frame.len().max(60), 0);
    frame
}

/// Tells everybody where an address is now.
pub fn announcement(addr: IpAddr, mac: Mac, vlan: u16) -> Vec<u8> {
    match addr {
        // RFC 5227, section 2.3: a request with the address as sender and target.
        IpAddr::V4(addr) => arp(mac, vlan, addr, addr),
        // RFC 4861, section 7.2.6: unsolicited, to all nodes, override.
        IpAddr::V6(addr) => {
            let mut body = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, 0x20, 0, 0, 0];
            body.extend_from_slice(&addr.octets());
            body.extend_from_slice(&[2, 1]);
            body.extend_from_slice(&mac);
            let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
            icmpv6([0x33, 0x33, 0, 0, 0, 1], mac, vlan, addr, all_nodes, body)
        }
    }
}

fn arp(mac: Mac, vlan: u16, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, mac, vlan, ETH_ARP);
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend_from_slice(&mac);
    frame.extend_from_slice(&sender.octets());
    frame.extend_from_slice(&[0; 6]);
    frame.extend_from_slice(&target.octets());
    frame
}

fn icmpv6(dst_mac: Mac, mac: Mac, vlan: u16, src: Ipv6Addr, dst: Ipv6Addr, mut body: Vec<u8>) -> Vec<u8> {
    let checksum = checksum(src, dst, &body);
    body[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = ethernet(dst_mac, mac, vlan, ETH_IPV6);
    frame.extend_from_slice(&[0x60, 0, 0, 0]);
    frame.extend_from_slice(&(body.len() as u16).to_be_bytes());
    frame.extend_from_slice(&[58, 255]);
    frame.extend_from_slice(&src.octets());
    frame.extend_from_slice(&dst.octets());
    frame.extend_from_slice(&body);
    frame
}

/// ICMPv6 checksum with its pseudo header (RFC 8200, section 8.1).
fn checksum(src: Ipv6Addr, dst: Ipv6Addr, body: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        bytes
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
            .sum()
    };
    let mut sum = words(&src.octets()) + words(&dst.octets()) + body.len() as u32 + 58 + words(body);
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Reads a frame. `tag` is the VLAN the kernel took out of it, if it did.
pub fn parse(frame: &[u8], tag: Option<u16>) -> Option<Heard> {
    let mac: Mac = frame.get(6..12)?.try_into().ok()?;
    let mut vlan = tag.unwrap_or(0);
    let (mut kind, mut rest) = (frame.get(12..14)?, frame.get(14..)?);
    if kind == ETH_VLAN {
        vlan = u16::from_be_bytes(rest.get(..2)?.try_into().ok()?) & 0xfff;
        (kind, rest) = (rest.get(2..4)?, rest.get(4..)?);
    }
    let (addr, mac, said) = if kind == ETH_ARP {
        parse_arp(rest)?
    } else if kind == ETH_IPV6 {
        parse_nd(rest, mac)?
    } else {
        return None;
    };
    Some(Heard { addr, mac, vlan, said })
}

fn parse_arp(packet: &[u8]) -> Option<(IpAddr, Mac, Said)> {
    if packet.get(..6)? != [0, 1, 8, 0, 6, 4] {
        return None;
    }
    let mac: Mac = packet.get(8..14)?.try_into().ok()?;
    let sender: [u8; 4] = packet.get(14..18)?.try_into().ok()?;
    let target: [u8; 4] = packet.get(24..28)?.try_into().ok()?;
    if sender == [0; 4] {
        let request = packet.get(6..8)? == [0, 1];
        return request.then_some((IpAddr::from(target), mac, Said::Probe));
    }
    Some((IpAddr::from(sender), mac, Said::Claim))
}

fn parse_nd(packet: &[u8], source: Mac) -> Option<(IpAddr, Mac, Said)> {
    // Hop limit 255 proves that it was sent on this link (RFC 4861, section 7.1).
    if packet.get(6..8)? != [58, 255] {
        return None;
    }
    let src: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
    let body = packet.get(40..)?;
    let target: [u8; 16] = body.get(8..24)?.try_into().ok()?;
    match *body.first()? {
        NEIGHBOUR_SOLICITATION if src == [0; 16] => Some((IpAddr::from(target), source, Said::Probe)),
        NEIGHBOUR_ADVERTISEMENT => {
            let option = body.get(24..32).filter(|option| option[..2] == [2, 1]);
            let mac = option.and_then(|option| option[2..].try_into().ok()).unwrap_or(source);
            Some((IpAddr::from(target), mac, Said::Claim))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 9];

    #[test]
    fn what_is_built_is_understood() {
        for addr in ["192.0.2.10", "2001:db8::10"] {
            let addr: IpAddr = addr.parse().unwrap();
            for vlan in [0, 10] {
                let heard = parse(&probe(addr, MAC, vlan), None).unwrap();
                assert_eq!(heard, Heard { addr, mac: MAC, vlan, said: Said::Probe });
                let heard = parse(&announcement(addr, MAC, vlan), None).unwrap();
                assert_eq!(heard, Heard { addr, mac: MAC, vlan, said: Said::Claim });
            }
        }
    }

    #[test]
    fn where_a_mac_is_says_nothing_of_addresses() {
        let frame = here_is(MAC, 0);
        assert_eq!((frame.len(), &frame[..6], &frame[6..12]), (60, &BROADCAST[..], &MAC[..]));
        // Ethernet, IPv4, lengths 6 and 4, operation 3; the sender is who asks for its own address.
        assert_eq!(frame[12..22], [0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
        assert_eq!((&frame[22..28], &frame[28..32], &frame[32..38]), (&MAC[..], &[0; 4][..], &MAC[..]));
        assert_eq!(here_is(MAC, 5)[12..18], [0x81, 0, 0, 5, 0x80, 0x35]);
        assert_eq!(parse(&frame, None), None);
    }

    #[test]
    fn the_checksum_makes_the_sum_all_ones() {
        let frame = announcement("2001:db8::10".parse().unwrap(), MAC, 0);
        let (src, dst) = (&frame[22..38], &frame[38..54]);
        let src: [u8; 16] = src.try_into().unwrap();
        let dst: [u8; 16] = dst.try_into().unwrap();
        assert_eq!(checksum(src.into(), dst.into(), &frame[54..]), 0);
    }

    #[test]
    fn nothing_is_read_beyond_the_end() {
        for frame in [probe([192, 0, 2, 1].into(), MAC, 5), announcement("fd00::1".parse().unwrap(), MAC, 5)]
        {
            for len in 0..frame.len() {
                let _ = parse(&frame[..len], None);
            }
        }
    }

    #[test]
    fn a_forwarded_advertisement_is_not_believed() {
        let mut frame = announcement("2001:db8::10".parse().unwrap(), MAC, 0);
        frame[14 + 7] = 64;
        assert_eq!(parse(&frame, None), None);
    }
}
