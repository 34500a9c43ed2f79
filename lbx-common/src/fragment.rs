//! Fragments: later ones follow the first.

use crate::addr::Ip;
use crate::flow::TargetWord;
use bytemuck::{Pod, Zeroable};

/// What fragments of one datagram share (RFC 791 section 3.2, RFC 8200 section 4.5).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Pod, Zeroable, Debug, Default)]
pub struct FragmentKey {
    /// Source address.
    pub src: Ip,
    /// Destination address.
    pub dst: Ip,
    /// Identification as it lies in the packet (16 bits of IPv4, 32 of IPv6).
    pub id: u32,
    /// [`crate::key::scope`] of the datagram.
    pub scope: u32,
}

/// Where the first fragment went.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug, Default)]
pub struct FragmentValue {
    /// The target.
    pub target: TargetWord,
    /// Service, or way back.
    pub index: u16,
    /// Epoch of the first fragment.
    pub epoch: u16,
    /// Source address to restore on the way back, unspecified on the way in.
    pub rewrite: Ip,
}

/// A client MAC whose freshness in the bridge is remembered.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Pod, Zeroable, Debug, Default)]
pub struct MacKey {
    /// The MAC in wire order.
    pub mac: crate::addr::Mac,
    /// VLAN of the frame.
    pub vlan: u16,
    /// Interface index it came in by.
    pub ifindex: u32,
}

const _: () =
    assert!(size_of::<FragmentKey>() == 40 && size_of::<FragmentValue>() == 24 && size_of::<MacKey>() == 12);
