//! What of a plain packet is needed to find its flow.

use super::Plain;
use crate::packet::cursor::Packet;
use crate::packet::frame::Frame;
use crate::packet::parse::protocol;
use crate::steps::times;
use lbx_common::addr::Ip;
use lbx_common::key::{FlowKey, scope};

/// What is read of the headers.
#[derive(Clone, Copy)]
pub(super) struct Brief {
    /// The hash of the flow's key.
    pub hash: u64,
    /// Bytes from the IP header on. Lengths are words of 64 bits here: they need no cutting.
    pub ip_len: u64,
    /// Source and destination port, as they lie in the packet.
    pub ports: u32,
    /// TCP rather than UDP.
    pub tcp: bool,
    /// TCP flags.
    pub tcp_flags: u8,
    /// Bytes of the transport header.
    pub l4_header: u64,
}

impl Brief {
    /// Protocol number.
    #[inline(always)]
    pub const fn protocol(&self) -> u8 {
        if self.tcp { protocol::TCP } else { protocol::UDP }
    }

    /// Bytes of the largest IP packet that will leave: of a superframe, one segment with its headers.
    #[inline(always)]
    pub fn largest<F: Frame, const V4: bool>(&self, frame: F) -> u64 {
        let segment = frame.segment_size() as u64;
        if F::SKB && segment != 0 { ip_header(V4) + self.l4_header + segment } else { self.ip_len }
    }
}

/// Bytes of the IP header of a plain packet.
#[inline(always)]
pub(super) const fn ip_header(v4: bool) -> u64 {
    if v4 { 20 } else { 40 }
}

/// Reads and checks the headers (as `packet::parse` does, which names what is wrong); `None` if anything about them is
/// not plain: options, fragments, another protocol, a length that does not fit.
#[inline(always)]
pub(super) fn read<F: Frame, const L3: usize, const V4: bool>(
    frame: F,
    packet: Packet,
    plain: &Plain<'_>,
) -> Option<Brief> {
    let room = frame.bytes() - L3 as u64;
    let (src, protocol, mut ip_len) = if V4 {
        let ip = packet.span::<20>(L3)?;
        let first = ip.u32::<0>();
        // Version 4 without options; no fragment.
        if first & 0xff != 0x45 || ip.u16::<6>() & 0x3fff_u16.to_be() != 0 {
            return None;
        }
        (Ip::v4(ip.u32::<12>()), ip.u8::<9>(), u16::from_be((first >> 16) as u16) as u64)
    } else {
        let ip = packet.span::<40>(L3)?;
        if ip.u8::<0>() >> 4 != 6 {
            return None;
        }
        let src = Ip::v6([ip.u32::<8>(), ip.u32::<12>(), ip.u32::<16>(), ip.u32::<20>()]);
        (src, ip.u8::<6>(), u16::from_be(ip.u16::<4>()) as u64 + 40)
    };
    if F::SKB && ip_len <= if V4 { 0 } else { 40 } && frame.segment_size() != 0 {
        // A superframe beyond 64 KiB: the kernel writes the length when it cuts it up.
        ip_len = room;
    }
    if ip_len > room {
        return None;
    }
    let l4 = L3 + ip_header(V4) as usize;
    let tcp = protocol == protocol::TCP;
    let (ports, tcp_flags, l4_header) = if tcp {
        let header = packet.span::<14>(l4)?;
        let word = header.u16::<12>();
        // The data offset counts words, in the upper half of the first byte.
        let bytes = (word as u64 >> 2) & 0x3c;
        if bytes < 20 {
            return None;
        }
        (header.u32::<0>(), (word >> 8) as u8, bytes)
    } else if protocol == protocol::UDP {
        let header = packet.span::<8>(l4)?;
        let length = u16::from_be(header.u16::<4>()) as u64;
        if length < 8 || ip_header(V4) + length > ip_len {
            return None;
        }
        (header.u32::<0>(), 0, 8)
    } else {
        return None;
    };
    if ip_header(V4) + l4_header > ip_len {
        return None;
    }
    if times::is_timed(plain.control, src.0[3], ports) {
        // Its requests and answers are noted by the whole engine.
        return None;
    }
    let scope = scope(protocol, plain.tag.vid(), plain.port.switch);
    let key = FlowKey { src, dst: plain.entry.addr, ports, scope };
    let hash = if V4 { key.hash_v4(&plain.control.secret) } else { key.hash(&plain.control.secret) };
    Some(Brief { hash, ip_len, ports, tcp, tcp_flags, l4_header })
}
