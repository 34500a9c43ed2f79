//! Where the transport header is, behind IPv4 options or IPv6 extension headers (RFC 8200, section 4), and
//! whether the packet is a fragment.

use crate::maps::LOCATED;
use crate::packet::frame::Frame;
use crate::packet::parse::{
    self, Ether, Transport, View, ethertype, is_extension, protocol, tcp_header, udp_length,
};
use lbx_common::addr::Ip;
use lbx_common::reason::Reason;
use lbx_common::steer::vlan::Tag;

/// Extension headers that are followed.
const MAX_HEADERS: u32 = 6;
/// Where the transport header must begin, counted from the frame's start.
const MAX_L4: u32 = 512;

/// What makes a packet a fragment. One that is the whole of its datagram (RFC 6946) is none.
#[derive(Clone, Copy)]
pub struct Fragment {
    /// Identification, as it lies in the packet.
    pub id: u32,
    /// Not the first: the transport header is elsewhere.
    pub later: bool,
    /// Protocol that all fragments of the datagram show (RFC 8200: that of the first part's first header).
    pub protocol: u8,
}

/// An IP packet and its transport header.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Located {
    /// Source.
    pub src: Ip,
    /// Destination.
    pub dst: Ip,
    /// IPv4.
    pub v4: bool,
    /// Protocol of what is at `l4`.
    pub protocol: u8,
    /// Offset of the IP header.
    pub l3: u32,
    /// Offset of what follows the IP headers, at most [`MAX_L4`].
    pub l4: u32,
    /// Bytes from the IP header to the end of the packet.
    pub ip_len: u32,
    /// Tag control information.
    pub tag: Tag,
    /// Whether it is a fragment.
    pub fragment: Option<Fragment>,
}

/// The end of a chain of IPv6 headers.
#[derive(Clone, Copy)]
pub struct Chain {
    /// Protocol of what follows.
    pub protocol: u8,
    /// Its offset.
    pub at: u32,
    /// Fragment header on the way, unless the datagram is in one piece.
    pub fragment: Option<Fragment>,
}

/// Follows extension headers from the first, at `at` and of type `first`.
#[inline(always)]
pub fn chain<F: Frame>(frame: F, first: u8, at: u32) -> Result<Chain, Reason> {
    let mut chain = Chain { protocol: first, at, fragment: None };
    let mut n = 0;
    while n < MAX_HEADERS && is_extension(chain.protocol) {
        let head: [u8; 8] = frame.load(chain.at).ok_or(Reason::BadIpHeader)?;
        let kind = chain.protocol;
        chain.protocol = head[0];
        if kind == protocol::FRAGMENT {
            chain.at += 8;
            let [_, _, offset_high, offset_low, id @ ..] = head;
            let later = offset_high != 0 || offset_low & 0xf8 != 0;
            if later || offset_low & 1 != 0 {
                let id = u32::from_ne_bytes(id);
                chain.fragment = Some(Fragment { id, later, protocol: head[0] });
            }
            if later {
                return Ok(chain);
            }
        } else {
            chain.at += (head[1] as u32 + 1) * 8;
        }
        n += 1;
    }
    if is_extension(chain.protocol) { Err(Reason::TooManyHeaders) } else { Ok(chain) }
}

/// Reads the IP headers of a frame.
///
/// The result lies in a map, not on the stack: there is little of that, and the verifier, which knows nothing of
/// a map's values, then walks what follows once instead of once for every way through the headers.
#[inline(always)]
pub fn locate<F: Frame>(frame: F, ether: &Ether) -> Result<&'static Located, Reason> {
    let located = read(frame, ether)?;
    let at = LOCATED.get_ptr_mut(0).ok_or(Reason::Internal)?;
    // SAFETY: a non-null value pointer of a per-CPU array, aligned to 8; only this CPU writes it, and no other
    // program runs on it before this one ends.
    unsafe { *at = located };
    located_already().ok_or(Reason::Internal)
}

/// What [`locate`] found in this program run.
#[inline(always)]
pub fn located_already() -> Option<&'static Located> {
    let at = LOCATED.get_ptr(0)?;
    // SAFETY: as above; a `Located` was written by this program run, and nothing writes it again before it ends.
    Some(unsafe { &*at })
}

#[inline(always)]
fn read<F: Frame>(frame: F, ether: &Ether) -> Result<Located, Reason> {
    let l3 = ether.l3 as u32;
    let v4 = ether.kind == ethertype::IPV4;
    let packet = frame.packet();
    let network =
        if v4 { parse::ipv4(frame, packet, ether.l3) } else { parse::ipv6(frame, packet, ether.l3) }?;
    let Chain { protocol, at: l4, fragment } = if v4 {
        let head: [u8; 8] = frame.load(l3).ok_or(Reason::BadIpHeader)?;
        let [first, _, _, _, id_high, id_low, flags, offset] = head;
        let later = flags & 0x1f != 0 || offset != 0;
        let protocol = network.protocol;
        let fragment = (later || flags & 0x20 != 0).then_some(Fragment {
            id: u16::from_ne_bytes([id_high, id_low]) as u32,
            later,
            protocol,
        });
        Chain { protocol, at: l3 + ((first & 0x0f) as u32) * 4, fragment }
    } else {
        chain(frame, network.protocol, l3 + 40)?
    };
    if l4 > MAX_L4 {
        return Err(Reason::TooManyHeaders);
    }
    if l4 - l3 > network.ip_len {
        return Err(Reason::BadIpLength);
    }
    Ok(Located {
        src: network.src,
        dst: network.dst,
        v4,
        protocol,
        l3,
        l4,
        ip_len: network.ip_len,
        tag: ether.tag,
        fragment,
    })
}

impl Located {
    /// Bytes behind the IP headers.
    #[inline(always)]
    pub const fn l4_len(&self) -> u32 {
        self.ip_len - (self.l4 - self.l3)
    }

    /// Whether it is a fragment other than the first.
    #[inline(always)]
    pub const fn is_later(&self) -> bool {
        matches!(self.fragment, Some(Fragment { later: true, .. }))
    }

    /// Protocol that all fragments of the datagram show.
    #[inline(always)]
    pub const fn fragment_protocol(&self) -> u8 {
        match self.fragment {
            Some(fragment) => fragment.protocol,
            None => self.protocol,
        }
    }

    /// Whether it is an ICMP or ICMPv6 message.
    #[inline(always)]
    pub const fn is_icmp(&self) -> bool {
        self.protocol == if self.v4 { protocol::ICMP } else { protocol::ICMPV6 }
    }

    /// Reads and checks the transport header of a packet or first fragment. The length in a fragment's UDP
    /// header is that of the whole datagram.
    #[inline(always)]
    pub fn transport<F: Frame>(&self, frame: F) -> Result<Transport, Reason> {
        let (truncated, bad) = match self.fragment {
            Some(_) => (Reason::FragmentTiny, Reason::FragmentTiny),
            None => (Reason::TruncatedL4, Reason::BadL4Length),
        };
        let length = self.l4_len();
        match self.protocol {
            protocol::TCP if length < 20 => Err(truncated),
            protocol::TCP => {
                let ports = frame.load(self.l4).ok_or(truncated)?;
                let [offset, tcp_flags]: [u8; 2] = frame.load(self.l4 + 12).ok_or(truncated)?;
                let header = tcp_header(offset, length).map_err(|_| bad)?;
                Ok(Transport { ports, tcp_flags, header })
            }
            protocol::UDP if length < 8 => Err(truncated),
            protocol::UDP => {
                let [source, destination, size]: [u16; 3] = frame.load(self.l4).ok_or(truncated)?;
                let most = if self.fragment.is_some() { u16::MAX as u32 } else { length };
                udp_length(u16::from_be(size), most)?;
                let [a, b] = source.to_ne_bytes();
                let [c, d] = destination.to_ne_bytes();
                Ok(Transport { ports: u32::from_ne_bytes([a, b, c, d]), tcp_flags: 0, header: 8 })
            }
            _ => Ok(Transport { ports: 0, tcp_flags: 0, header: 0 }),
        }
    }

    /// For the steps after parsing.
    #[inline(always)]
    pub const fn view(&self, transport: &Transport) -> View {
        View {
            src: self.src,
            dst: self.dst,
            ports: transport.ports,
            protocol: self.protocol,
            tcp_flags: transport.tcp_flags,
            v4: self.v4,
            has_l4: true,
            tag: self.tag,
            // Bounds, for the verifier: it has not seen what is in the map.
            l3: self.l3 & 0x1f,
            l4: self.l4 & (2 * MAX_L4 - 1),
            l4_header: transport.header,
            ip_len: self.ip_len,
        }
    }

    /// For the steps after parsing, of which only the addresses may change.
    #[inline(always)]
    pub const fn view_addresses(&self) -> View {
        let mut view = self.view(&Transport { ports: 0, tcp_flags: 0, header: 0 });
        view.has_l4 = false;
        view
    }
}
