//! Both ends of a line: frames that the wrapper made go out here, and are counted where they arrive.

use crate::cursor::Packet;
use crate::maps::{ARRIVED, SEND};
use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP};

/// Sends a frame as it is, behind the wrapper.
#[inline(always)]
pub fn send() -> u32 {
    SEND.redirect(0, 0).unwrap_or(XDP_ABORTED)
}

/// Sends an IPv4 frame with its header's checksum made right (RFC 1071), for receivers that look at it.
#[inline(always)]
pub fn send_whole(packet: Packet) -> u32 {
    const HEADER: usize = 14;
    const CHECKSUM: usize = 5;
    let mut sum = 0_u32;
    let mut word = 0;
    while word < 10 {
        if word != CHECKSUM {
            let Some(value) = packet.read::<u16>(HEADER + 2 * word) else { return XDP_ABORTED };
            sum += value as u32;
        }
        word += 1;
    }
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    if packet.write(HEADER + 2 * CHECKSUM, !(sum as u16)).is_none() {
        return XDP_ABORTED;
    }
    send()
}

/// Counts a frame and lets go of it.
#[inline(always)]
pub fn arrive() -> u32 {
    if let Some(count) = ARRIVED.get_ptr_mut(0) {
        // SAFETY: a non-null value pointer, of this CPU's own counter.
        unsafe { *count += 1 };
    }
    XDP_DROP
}
