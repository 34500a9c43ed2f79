//! The tunnel that frames of a moved VM take to its new host across networks: VXLAN (RFC 7348).
//!
//! What is sent is the frame as it would have gone to the VM over a common segment, Ethernet header included, behind
//! an IPv4 or IPv6 header, UDP and 8 bytes of VXLAN. Numbers here are in host order; bytes are as they lie in the
//! packet.

use crate::addr::{Ip, Mac};
use crate::algo::checksum;
use crate::reason::Reason;
use bytemuck::{Pod, Zeroable};

/// UDP port of VXLAN unless configured (IANA).
pub const PORT: u16 = 4789;
/// Peers that frames are accepted from.
pub const MAX_PEERS: u32 = 256;
/// MACs of VMs that frames are accepted for.
pub const MAX_VMS: u32 = 4096;
/// Bytes of the UDP and VXLAN headers.
pub const UDP_VXLAN: usize = 16;
/// Bytes of an outer IPv4 header, UDP and VXLAN.
pub const OUTER_V4: usize = 20 + UDP_VXLAN;
/// Bytes of an outer IPv6 header, UDP and VXLAN.
pub const OUTER_V6: usize = 40 + UDP_VXLAN;
/// Bytes of an Ethernet header without a tag.
pub const ETHER: usize = 14;
/// Hop limit of what is sent.
pub const HOP_LIMIT: u8 = 64;

/// "This packet says its network" in the first byte of VXLAN (RFC 7348, section 5).
const VNI_VALID: u8 = 0x08;
/// UDP (IANA).
const UDP: u8 = 17;
/// First port of the dynamic range, which source ports are taken from.
const DYNAMIC: u16 = 49_152;

/// How this host receives: one aligned word. Bits 0-23 the network (VNI), 32-47 the UDP port in host order, 63 set if
/// there is a tunnel at all.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug, Default)]
pub struct TunnelWord(pub u64);

impl TunnelWord {
    /// Packs both.
    pub const fn new(vni: u32, port: u16) -> Self {
        Self((vni & 0xff_ffff) as u64 | (port as u64) << 32 | 1 << 63)
    }

    /// The network.
    #[inline(always)]
    pub const fn vni(self) -> u32 {
        self.0 as u32 & 0xff_ffff
    }

    /// Whether it is about this port.
    #[inline(always)]
    pub const fn is_port(self, port: u16) -> bool {
        self.0 >> 63 == 1 && (self.0 >> 32) as u16 == port
    }
}

/// A VM's MAC on a switch: what frames are accepted for.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable, Debug, Default)]
pub struct VmKey {
    /// The MAC.
    pub mac: Mac,
    /// Number of the switch.
    pub switch: u16,
}

/// Where frames for a VM go: one aligned word. Bits 0-31 the interface index of its vNIC's port, 32-47 that port's index
/// in `ports`, 63 set if they go straight into it.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable, Debug, Default)]
pub struct VmPort(pub u64);

impl VmPort {
    /// The bridge delivers: with its filters and its VLANs, and where it believes the MAC to be.
    pub const fn by_the_bridge(ifindex: u32) -> Self {
        Self(ifindex as u64)
    }

    /// Straight into the port, wherever the bridge believes the MAC to be: a VM that is on its way here is heard
    /// elsewhere still.
    pub const fn straight(ifindex: u32, port_index: u16) -> Self {
        Self(ifindex as u64 | (port_index as u64) << 32 | 1 << 63)
    }

    /// Interface and port index of the port that frames go straight into.
    #[inline(always)]
    pub const fn port(self) -> Option<(u32, u32)> {
        if self.0 >> 63 == 1 { Some((self.0 as u32, (self.0 >> 32) as u32 & 0xffff)) } else { None }
    }
}

/// What goes around a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outer {
    /// This host's address.
    pub src: Ip,
    /// The peer's, of the same family.
    pub dst: Ip,
    /// DSCP and ECN of the packet inside, as one byte: both are copied (RFC 2983, uniform; RFC 6040, section 4.1).
    pub class: u8,
    /// Bytes of the frame inside, its Ethernet header included.
    pub len: u32,
    /// What spreads flows over paths.
    pub spread: u16,
    /// UDP port of the peer.
    pub port: u16,
    /// The network.
    pub vni: u32,
}

/// Bytes around a frame, beyond its own Ethernet header: how much smaller packets in the tunnel have to be than what
/// the way carries. `tagged`: the frame inside has a tag.
pub const fn overhead(v4: bool, tagged: bool) -> u16 {
    let outer = if v4 { OUTER_V4 } else { OUTER_V6 };
    (outer + ETHER + if tagged { 4 } else { 0 }) as u16
}

/// What spreads the flows of clients over paths: the same for every packet between two ends. `ports` as they lie in the
/// packet, 0 where there are none.
#[inline(always)]
pub const fn spread(src: &Ip, dst: &Ip, ports: u32) -> u16 {
    let mixed = (src.folded() ^ dst.folded().rotate_left(16) ^ ports).wrapping_mul(0x9E37_79B1);
    (mixed >> 16) as u16
}

impl Outer {
    #[inline(always)]
    const fn udp_vxlan(&self) -> [u8; UDP_VXLAN] {
        let from = (DYNAMIC | (self.spread & 0x3fff)).to_be_bytes();
        let to = self.port.to_be_bytes();
        let len = field(self.len + UDP_VXLAN as u32).to_be_bytes();
        let [_, vni @ ..] = self.vni.to_be_bytes();
        // The checksum stays 0: the frame inside has its own (RFC 7348, section 5; RFC 6935 for IPv6).
        [from[0], from[1], to[0], to[1], len[0], len[1], 0, 0, VNI_VALID, 0, 0, 0, vni[0], vni[1], vni[2], 0]
    }

    /// IPv4, UDP and VXLAN headers.
    #[inline(always)]
    pub fn v4(&self) -> [u8; OUTER_V4] {
        let mut out = [0; OUTER_V4];
        let mut words = [
            u32::from_ne_bytes([0x45, self.class, 0, 0]),
            // "Don't fragment"; what is never fragmented needs no identification (RFC 6864).
            u32::from_ne_bytes([0, 0, 0x40, 0]),
            u32::from_ne_bytes([HOP_LIMIT, UDP, 0, 0]),
            self.src.v4_word(),
            self.dst.v4_word(),
        ];
        let [high, low] = field(self.len + OUTER_V4 as u32).to_be_bytes();
        words[0] = u32::from_ne_bytes([0x45, self.class, high, low]);
        let [first, second] = (!checksum::fold(checksum::sum_words(&words))).to_ne_bytes();
        words[2] = u32::from_ne_bytes([HOP_LIMIT, UDP, first, second]);
        out[..20].copy_from_slice(bytemuck::bytes_of(&words));
        out[20..].copy_from_slice(&self.udp_vxlan());
        out
    }

    /// IPv6, UDP and VXLAN headers.
    #[inline(always)]
    pub fn v6(&self) -> [u8; OUTER_V6] {
        let mut out = [0; OUTER_V6];
        let [high, low] = field(self.len + UDP_VXLAN as u32).to_be_bytes();
        out[..8].copy_from_slice(&[0x60 | self.class >> 4, self.class << 4, 0, 0, high, low, UDP, HOP_LIMIT]);
        out[8..24].copy_from_slice(bytemuck::bytes_of(&self.src));
        out[24..40].copy_from_slice(bytemuck::bytes_of(&self.dst));
        out[40..].copy_from_slice(&self.udp_vxlan());
        out
    }
}

/// A length field. A superframe may be longer than it can say; whoever cuts it into segments writes theirs.
#[inline(always)]
const fn field(bytes: u32) -> u16 {
    if bytes > u16::MAX as u32 { u16::MAX } else { bytes as u16 }
}

/// What the outer IP header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Who sent it.
    pub src: Ip,
    /// Its ECN field.
    pub ecn: u8,
    /// Bytes of UDP header and payload.
    pub udp_len: u32,
}

/// Whether UDP's ports follow an IPv4 header: no options, not a later fragment. All else is for the host to judge.
#[inline(always)]
pub const fn may_be_v4(header: &[u8; 20]) -> bool {
    header[0] == 0x45 && header[9] == UDP && header[6] & 0x1f == 0 && header[7] == 0
}

/// Whether UDP's ports follow an IPv6 header.
#[inline(always)]
pub const fn may_be_v6(head: [u8; 8]) -> bool {
    head[0] >> 4 == 6 && head[6] == UDP
}

/// Whether UDP and what follows are for the port of the tunnels here.
#[inline(always)]
pub const fn is_for(word: TunnelWord, headers: &[u8; UDP_VXLAN]) -> bool {
    word.is_port(u16::from_be_bytes([headers[2], headers[3]]))
}

/// Reads an outer IPv4 header. `len`: bytes from it to the end of the frame. `None` if it is none that a tunnel sends:
/// with options, a fragment, of lengths that do not fit, or no UDP.
#[inline(always)]
pub fn seen_v4(header: &[u8; 20], len: u32) -> Option<Seen> {
    let total = u16::from_be_bytes([header[2], header[3]]) as u32;
    let fragment = header[6] & 0x3f != 0 || header[7] != 0;
    if header[0] != 0x45 || fragment || header[9] != UDP || total < OUTER_V4 as u32 || total > len {
        return None;
    }
    let src = Ip::v4(u32::from_ne_bytes([header[12], header[13], header[14], header[15]]));
    Some(Seen { src, ecn: header[1] & 3, udp_len: total - 20 })
}

/// Reads an outer IPv6 header, as [`seen_v4`] does; UDP has to follow it directly.
#[inline(always)]
pub fn seen_v6(head: [u8; 8], src: [u32; 4], len: u32) -> Option<Seen> {
    let payload = u16::from_be_bytes([head[4], head[5]]) as u32;
    if head[0] >> 4 != 6 || head[6] != UDP || payload < UDP_VXLAN as u32 || payload + 40 > len {
        return None;
    }
    Some(Seen { src: Ip::v6(src), ecn: head[1] >> 4 & 3, udp_len: payload })
}

/// Checks the UDP and VXLAN headers of a peer's packet.
///
/// # Errors
/// [`Reason::TunnelMalformed`], or [`Reason::TunnelOtherNetwork`] if it is of another VXLAN network.
#[inline(always)]
pub fn check(word: TunnelWord, seen: &Seen, headers: &[u8; UDP_VXLAN]) -> Result<(), Reason> {
    let udp_len = u16::from_be_bytes([headers[4], headers[5]]) as u32;
    // A frame of at least an Ethernet header; reserved bits are not looked at (RFC 7348, section 5).
    if udp_len > seen.udp_len
        || udp_len < (UDP_VXLAN + ETHER) as u32
        || !is_for(word, headers)
        || headers[8] & VNI_VALID == 0
    {
        return Err(Reason::TunnelMalformed);
    }
    let vni = u32::from_be_bytes([0, headers[12], headers[13], headers[14]]);
    if vni != word.vni() {
        return Err(Reason::TunnelOtherNetwork);
    }
    Ok(())
}

/// "Congestion experienced" (RFC 3168).
const CE: u8 = 3;

/// What becomes of the ECN field inside when the outer header is taken off (RFC 6040, section 4.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ecn {
    /// It stays.
    Keep,
    /// It becomes "congestion experienced".
    Mark,
    /// It becomes ECT(1).
    EctOne,
    /// The packet cannot be told of its congestion, and is dropped for it.
    Drop,
}

/// The rule, for two ECN fields.
#[inline(always)]
pub const fn ecn(outer: u8, inner: u8) -> Ecn {
    match (outer & 3, inner & 3) {
        (CE, 0) => Ecn::Drop,
        (CE, 1 | 2) => Ecn::Mark,
        (1, 2) => Ecn::EctOne,
        _ => Ecn::Keep,
    }
}

/// The first two bytes of the IP header inside with another ECN field.
#[inline(always)]
pub const fn with_ecn(v4: bool, [first, second]: [u8; 2], ecn: u8) -> [u8; 2] {
    if v4 { [first, second & !3 | ecn & 3] } else { [first, second & !0x30 | (ecn & 3) << 4] }
}

/// The ECN field in the first two bytes of an IP header.
#[inline(always)]
pub const fn ecn_of(v4: bool, [_, second]: [u8; 2]) -> u8 {
    if v4 { second & 3 } else { second >> 4 & 3 }
}

/// DSCP and ECN in the first two bytes of an IP header, as one byte.
#[inline(always)]
pub const fn class_of(v4: bool, [first, second]: [u8; 2]) -> u8 {
    if v4 { second } else { first << 4 | second >> 4 }
}

const _: () = assert!(size_of::<VmKey>() == 8 && size_of::<VmPort>() == 8);

#[cfg(test)]
mod tests;
