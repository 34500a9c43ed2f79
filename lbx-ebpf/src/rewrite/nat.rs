//! Addresses and ports, with the checksums that cover them.

use crate::packet::frame::Frame;
use crate::packet::parse::{View, protocol};
use lbx_common::addr::Ip;
use lbx_common::algo::checksum;

/// Which end of the packet is translated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The source, on the way back.
    Source,
    /// The destination, on the way in.
    Destination,
}

/// What changes, and where. Offsets from the start of the frame.
#[derive(Clone, Copy)]
pub struct Change {
    /// IPv4.
    pub v4: bool,
    /// Offset of the IP header.
    pub l3: u32,
    /// Offset of the address.
    pub address_at: u32,
    /// The address there.
    pub old: Ip,
    /// The address to be there.
    pub new: Ip,
    /// Offset of the port; 0 if the packet has none.
    pub port_at: u32,
    /// The port there, network order.
    pub old_port: u16,
    /// The port to be there, network order.
    pub new_port: u16,
    /// Offset of the transport checksum; 0 if the packet has none.
    pub checksum_at: u32,
    /// UDP: a checksum of 0 is none.
    pub udp: bool,
}

impl Change {
    /// What the address does to a transport checksum (both addresses are in the pseudo header).
    #[inline(always)]
    pub fn address_delta(&self) -> u64 {
        if self.v4 {
            checksum::delta32(self.old.v4_word(), self.new.v4_word())
        } else {
            checksum::delta128(&self.old.0, &self.new.0)
        }
    }
}

/// Translates one end of a packet. The hop limit stays: nothing is routed, both ends are on one segment.
#[inline(always)]
pub fn translate<F: Frame>(frame: F, view: &View, side: Side, new: &Ip, new_port: u16) -> Option<()> {
    frame.translate(&change(view, side, new, new_port))
}

/// The same for a packet whose headers are where they usually are, in a view of constant offsets.
#[inline(always)]
pub fn translate_plain<F: Frame>(frame: F, view: &View, side: Side, new: &Ip, new_port: u16) -> Option<()> {
    frame.translate_plain(&change(view, side, new, new_port))
}

/// What changes.
#[inline(always)]
fn change(view: &View, side: Side, new: &Ip, new_port: u16) -> Change {
    let source = side == Side::Source;
    let has_ports = view.has_l4 && (view.protocol == protocol::TCP || view.protocol == protocol::UDP);
    let (v4_at, v6_at) = if source { (12, 8) } else { (16, 24) };
    let checksum_at = if view.protocol == protocol::TCP { 16 } else { 6 };
    Change {
        v4: view.v4,
        l3: view.l3,
        address_at: view.l3 + if view.v4 { v4_at } else { v6_at },
        old: if source { view.src } else { view.dst },
        new: *new,
        port_at: if !has_ports {
            0
        } else if source {
            view.l4
        } else {
            view.l4 + 2
        },
        old_port: if source { view.src_port() } else { view.dst_port() },
        new_port,
        checksum_at: if has_ports { view.l4 + checksum_at } else { 0 },
        udp: view.protocol == protocol::UDP,
    }
}
