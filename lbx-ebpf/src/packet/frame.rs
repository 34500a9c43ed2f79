//! What the steps need of a frame, over XDP and tc alike.

use super::cursor::Packet;
use crate::rewrite::nat::Change;
use crate::verdict::Action;
use bytemuck::{AnyBitPattern, NoUninit};
use lbx_common::reason::Reason;
use lbx_common::steer::slow::Slow;
use lbx_common::steer::vlan::Tag;

/// The headers of a tunnel.
#[derive(Clone, Copy)]
pub struct Room {
    /// How many bytes: those of the outer headers and of an Ethernet header.
    pub bytes: u32,
    /// Bytes of the Ethernet header inside.
    pub ether: u32,
    /// IPv4: of the outer header to be put on, or of the packet inside that is left.
    pub v4: bool,
}

/// A frame at a hook. `Copy`: it is the context pointer.
///
/// Offsets count from the Ethernet header. A tag the kernel took out of the frame (tc) is not among the bytes;
/// [`Frame::tag_beside`] has it.
pub trait Frame: Copy {
    /// Whether the frame is an skb: checksums may be partial, and it may be a GSO superframe.
    const SKB: bool;

    /// What the hook is told.
    type Code: Copy;

    /// Counts an outcome and says it as the hook wants it.
    fn verdict(outcome: Result<Action, Reason>, observe: bool) -> Self::Code;

    /// [`Frame::redirect`] in the code of the hook, which is what the helper answers anyway.
    fn forward(self, port_index: u32, ifindex: u32) -> Option<Self::Code>;

    /// The bytes that can be reached directly, afresh.
    fn packet(self) -> Packet;

    /// Bytes of the whole frame, beyond what can be reached directly too.
    fn length(self) -> u32;

    /// The same as a word that needs no cutting.
    fn bytes(self) -> u64;

    /// Index in `ports` of the port the frame came in by (or, at egress, leaves by).
    fn port_index(self) -> Option<u32>;

    /// Whether the port is a constant of the program rather than looked up.
    fn port_is_known(self) -> bool;

    /// Whether the frame is on its way out of the port, not in.
    fn leaving(self) -> bool;

    /// The tag control information of a tag that the kernel keeps beside the frame.
    fn tag_beside(self) -> Tag;

    /// Bytes of payload a segment of a superframe will carry; 0 if the frame is what it seems.
    fn segment_size(self) -> u32;

    /// Makes the first `bytes` directly reachable if the frame has them.
    fn pull(self, bytes: u32) -> bool;

    /// Reads a value at any offset through a helper: slower than [`Packet::read`], but the offset may be
    /// anything and the bytes may lie anywhere.
    fn load<T: AnyBitPattern>(self, offset: u32) -> Option<T>;

    /// Writes a value at any offset through a helper. On an skb the checksum the device gave is adjusted; the
    /// packet's own checksums are not.
    fn store<T: NoUninit>(self, offset: u32, value: &T) -> Option<()>;

    /// Grows (zeroed) or cuts the frame at its end. Stale: every [`Packet`].
    fn set_length(self, bytes: u32) -> Option<()>;

    /// Makes room before the first byte, to be filled by the caller. Stale: every [`Packet`].
    fn prepend(self, bytes: u32) -> Option<()>;

    /// Makes room for the headers of a tunnel, `room.bytes` in front of the IP header of a frame without a tag; the first
    /// 14 bytes are then the Ethernet header as it was, or anything. Stale: every [`Packet`].
    fn open_room(self, room: Room) -> Option<()>;

    /// Takes away `room.bytes`: at XDP the first, at tc those behind the Ethernet header. Stale: every [`Packet`].
    fn close_room(self, room: Room) -> Option<()>;

    /// Takes the outer tag off, wherever it is. Stale: every [`Packet`].
    fn pop_tag(self) -> Option<()>;

    /// Puts an 802.1Q tag on. Stale: every [`Packet`].
    fn push_tag(self, vid: u16) -> Option<()>;

    /// Sends the frame out of a port, past the bridge.
    fn redirect(self, port_index: u32, ifindex: u32) -> Result<Action, Reason>;
    /// Hands the frame to the CPU that puts it into a queue of a tap, where that is another and can be done. `spread`: the
    /// same for all frames of a flow.
    fn hand_over(self, queue: u32, queues: u32, spread: u32) -> Option<Action>;

    /// Sends the frame back to where it came from; `port_index` is that of its own port.
    fn reflect(self, port_index: u32) -> Result<Action, Reason>;

    /// Changes an address and a port, and the checksums that cover them. Stale: every [`Packet`].
    fn translate(self, change: &Change) -> Option<()>;

    /// The same where all offsets are constants and the headers directly reachable.
    fn translate_plain(self, change: &Change) -> Option<()>;

    /// Goes on in the program of a rare path. Returns only if there is none.
    fn continue_at(self, slow: Slow);
}
