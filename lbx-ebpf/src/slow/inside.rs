//! The packet inside an ICMP error.

use super::locate::{self, Located};
use crate::maps::INSIDE;
use crate::packet::frame::Frame;
use crate::packet::parse::protocol;
use lbx_common::addr::Ip;
use lbx_common::reply::embedded::{self, Change, Checks, End, L4_MIN};

/// Bytes of a TCP header as far as its checksum.
const TCP_CHECKSUM_END: u32 = 18;

/// The packet inside, as far as it is needed.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Inside {
    /// Its source.
    pub src: Ip,
    /// Its destination.
    pub dst: Ip,
    /// TCP or UDP.
    pub protocol: u8,
    /// Source port, in network order.
    pub src_port: u16,
    /// Destination port, in network order.
    pub dst_port: u16,
    /// Offset of its IP header.
    l3: u32,
    /// Offset of its transport header.
    l4: u32,
    /// Whether the packet reaches as far as the checksum of TCP.
    long: bool,
}

/// Reads it; `None` if the message is not an error about a packet whose ports it shows. It lies in a map for the
/// same reasons as what [`locate::locate`] finds.
#[inline(always)]
pub fn inside<F: Frame>(frame: F, outer: &Located) -> Option<&'static Inside> {
    let inside = Inside::read(frame, outer)?;
    let at = INSIDE.get_ptr_mut(0)?;
    // SAFETY: a non-null value pointer of a per-CPU array; only this CPU writes it, and no other program runs on it
    // before this one ends.
    unsafe { *at = inside };
    inside_already()
}

/// What [`inside`] found in this program run.
#[inline(always)]
fn inside_already() -> Option<&'static Inside> {
    let at = INSIDE.get_ptr(0)?;
    // SAFETY: as above; an `Inside` was written by this program run, and nothing writes it again before it ends.
    Some(unsafe { &*at })
}

impl Inside {
    #[inline(always)]
    fn read<F: Frame>(frame: F, outer: &Located) -> Option<Self> {
        let kind: u8 = frame.load(outer.l4)?;
        let l3 = outer.l4 + 8;
        let (src, dst, protocol, l4) = if outer.v4 {
            if !embedded::carries_v4(kind) {
                return None;
            }
            let ip: [u8; 20] = frame.load(l3)?;
            let header = embedded::header_v4(&ip)? as u32;
            let [src, dst]: [u32; 2] = frame.load(l3 + 12)?;
            (Ip::v4(src), Ip::v4(dst), ip[9], l3 + header)
        } else {
            if !embedded::carries_v6(kind) {
                return None;
            }
            let first: u8 = frame.load(l3 + 6)?;
            let [src, dst]: [[u32; 4]; 2] = frame.load(l3 + 8)?;
            let chain = locate::chain(frame, first, l3 + 40).ok()?;
            if chain.fragment.is_some_and(|fragment| fragment.later) {
                return None;
            }
            (Ip::v6(src), Ip::v6(dst), chain.protocol, chain.at)
        };
        if protocol != protocol::TCP && protocol != protocol::UDP {
            return None;
        }
        let end = outer.l3 + outer.ip_len;
        if l4 + L4_MIN > end {
            return None;
        }
        let [src_port, dst_port]: [u16; 2] = frame.load(l4)?;
        Some(Self { src, dst, protocol, src_port, dst_port, l3, l4, long: l4 + TCP_CHECKSUM_END <= end })
    }

    /// Translates one end of it, and the checksums inside and of the message, which is prepared for the same
    /// address becoming its own source or destination.
    #[inline(always)]
    pub fn translate<F: Frame>(
        &self,
        frame: F,
        outer: &Located,
        end: End,
        addr: &Ip,
        port: u16,
    ) -> Option<()> {
        let source = end == End::Source;
        let change = Change {
            old: if source { self.src } else { self.dst },
            new: *addr,
            old_port: if source { self.src_port } else { self.dst_port },
            new_port: port,
        };
        let tcp = self.protocol == protocol::TCP;
        let l4_at = self.l4 + if tcp { 16 } else { 6 };
        let before = Checks {
            header: if outer.v4 { frame.load(self.l3 + 10)? } else { 0 },
            l4: if self.long || !tcp { Some(frame.load(l4_at)?) } else { None },
            message: frame.load(outer.l4 + 2)?,
        };
        let after = change.checks(&before, tcp);
        if outer.v4 {
            frame.store(self.l3 + if source { 12 } else { 16 }, &addr.v4_word())?;
            frame.store(self.l3 + 10, &after.header)?;
        } else {
            frame.store(self.l3 + if source { 8 } else { 24 }, &addr.0)?;
        }
        frame.store(self.l4 + if source { 0 } else { 2 }, &port)?;
        if let Some(check) = after.l4 {
            frame.store(l4_at, &check)?;
        }
        frame.store(outer.l4 + 2, &after.message)
    }
}
