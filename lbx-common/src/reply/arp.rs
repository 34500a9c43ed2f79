//! ARP over Ethernet for IPv4 (RFC 826).

use crate::addr::Mac;

/// Length of the packet behind the Ethernet header.
pub const LEN: usize = 28;
/// Hardware type Ethernet, protocol type IPv4, lengths 6 and 4, operation request.
const REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];

/// The address a request asks for, as it lies in the packet; `None` if this is not such a request, or an
/// announcement of the address by its sender (RFC 5227), which asks nothing.
#[inline(always)]
pub fn requested(packet: &[u8; LEN]) -> Option<[u8; 4]> {
    if packet[..8] != REQUEST || packet[14..18] == packet[24..28] || super::is_group(&sender(packet)) {
        return None;
    }
    Some([packet[24], packet[25], packet[26], packet[27]])
}

/// The sender's MAC.
#[inline(always)]
fn sender(packet: &[u8; LEN]) -> Mac {
    [packet[8], packet[9], packet[10], packet[11], packet[12], packet[13]]
}

/// The answer to a request: its target address is at `own`. A probe (sender 0.0.0.0, RFC 5227) is answered
/// like any other: the address is taken.
#[inline(always)]
pub fn reply(request: &[u8; LEN], own: &Mac) -> [u8; LEN] {
    let mut out = *request;
    out[7] = 2;
    out[8..14].copy_from_slice(own);
    out[14..18].copy_from_slice(&request[24..28]);
    out[18..28].copy_from_slice(&request[8..18]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{ArpOperation, ArpPacketSlice};

    const OWN: Mac = [2, 0, 0, 0, 0, 9];

    fn request(sender: [u8; 4], target: [u8; 4]) -> [u8; LEN] {
        let mut packet = [0; LEN];
        packet[..8].copy_from_slice(&REQUEST);
        packet[8..14].copy_from_slice(&[2, 0, 0, 0, 0, 7]);
        packet[14..18].copy_from_slice(&sender);
        packet[24..28].copy_from_slice(&target);
        packet
    }

    #[test]
    fn answers_a_request() {
        let asked = request([203, 0, 113, 7], [192, 0, 2, 10]);
        assert_eq!(requested(&asked), Some([192, 0, 2, 10]));
        let bytes = reply(&asked, &OWN);
        let parsed = ArpPacketSlice::from_slice(&bytes).unwrap();
        assert_eq!(parsed.operation(), ArpOperation::REPLY);
        assert_eq!(parsed.sender_hw_addr(), OWN);
        assert_eq!(parsed.sender_protocol_addr(), [192, 0, 2, 10]);
        assert_eq!(parsed.target_hw_addr(), [2, 0, 0, 0, 0, 7]);
        assert_eq!(parsed.target_protocol_addr(), [203, 0, 113, 7]);
    }

    #[test]
    fn answers_a_probe_and_ignores_the_rest() {
        assert!(requested(&request([0; 4], [192, 0, 2, 10])).is_some());
        assert!(requested(&request([192, 0, 2, 10], [192, 0, 2, 10])).is_none(), "announcement");
        let asked = request([203, 0, 113, 7], [192, 0, 2, 10]);
        for (at, value) in [(1, 6), (2, 0x86), (4, 8), (5, 16), (7, 2), (8, 0xff)] {
            let mut other = asked;
            other[at] = value;
            assert!(requested(&other).is_none(), "byte {at}");
        }
    }
}
