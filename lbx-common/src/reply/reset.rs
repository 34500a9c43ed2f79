//! The RST for a segment nobody takes (RFC 9293, section 3.10.7.1: the connection is CLOSED).

use super::sum::Sum;

/// Length of a TCP header without options.
pub const LEN: usize = 20;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// How the checksum of the RST will be treated on its way out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Completion {
    /// Not at all: it is final.
    Never,
    /// The buffer may still carry the order to complete the checksum of the segment it held, at the same
    /// place, and nothing tells. The window, without meaning in a RST, is then chosen such that the sum of
    /// the pseudo-header *is* the checksum: completing it changes nothing.
    Perhaps,
}

/// The RST that answers a segment; `None` for a RST, which is never answered.
///
/// `segment` is the fixed part of its header, `payload` the bytes of data it carries, `pseudo` the sum of
/// the pseudo-header of the *answer* (length [`LEN`]).
#[inline(always)]
pub fn reset(segment: &[u8; LEN], payload: u32, pseudo: Sum, completion: Completion) -> Option<[u8; LEN]> {
    let flags = segment[13];
    if flags & RST != 0 {
        return None;
    }
    let mut out = [0; LEN];
    out[..2].copy_from_slice(&segment[2..4]);
    out[2..4].copy_from_slice(&segment[..2]);
    if flags & ACK != 0 {
        // <SEQ=SEG.ACK><CTL=RST>
        out[4..8].copy_from_slice(&segment[8..12]);
        out[13] = RST;
    } else {
        // <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>; SYN and FIN take a number each.
        let length = payload + (flags & SYN != 0) as u32 + (flags & FIN != 0) as u32;
        let seq = u32::from_be_bytes([segment[4], segment[5], segment[6], segment[7]]);
        out[8..12].copy_from_slice(&seq.wrapping_add(length).to_be_bytes());
        out[13] = RST | ACK;
    }
    out[12] = (LEN as u8 / 4) << 4;
    if completion == Completion::Perhaps {
        let window = Sum::ZERO.add_bytes(&out).add_sum(pseudo).add_sum(pseudo).checksum();
        out[14..16].copy_from_slice(&window);
    }
    let check = Sum::ZERO.add_bytes(&out).add_sum(pseudo).checksum();
    out[16..18].copy_from_slice(&check);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{Ipv4Header, TcpHeader, TcpHeaderSlice};
    use proptest::prelude::*;

    const CLIENT: [u8; 4] = [203, 0, 113, 7];
    const VIP: [u8; 4] = [192, 0, 2, 10];

    fn segment(seq: u32, ack: u32, flags: u8) -> [u8; LEN] {
        let mut header = TcpHeader::new(5555, 80, seq, 1000);
        header.acknowledgment_number = ack;
        let mut bytes: [u8; LEN] = header.to_bytes().as_slice().try_into().unwrap();
        bytes[13] = flags;
        bytes
    }

    fn answer(segment: &[u8; LEN], payload: u32, completion: Completion) -> Option<TcpHeader> {
        let pseudo = Sum::pseudo_v4(&VIP, &CLIENT, 6, LEN as u32);
        let bytes = reset(segment, payload, pseudo, completion)?;
        let parsed = TcpHeaderSlice::from_slice(&bytes).unwrap().to_header();
        let ip = Ipv4Header::new(20, 64, etherparse::ip_number::TCP, VIP, CLIENT).unwrap();
        assert_eq!(parsed.checksum, parsed.calc_checksum_ipv4(&ip, &[]).unwrap());
        assert_eq!((parsed.source_port, parsed.destination_port), (80, 5555));
        Some(parsed)
    }

    #[test]
    fn by_the_rules() {
        let syn = answer(&segment(100, 0, SYN), 0, Completion::Never).unwrap();
        assert!(syn.rst && syn.ack && syn.sequence_number == 0 && syn.acknowledgment_number == 101);
        let data = answer(&segment(u32::MAX, 0, FIN), 10, Completion::Never).unwrap();
        assert_eq!(data.acknowledgment_number, 10);
        let ack = answer(&segment(100, 777, ACK), 5, Completion::Never).unwrap();
        assert!(ack.rst && !ack.ack && ack.sequence_number == 777 && ack.acknowledgment_number == 0);
        assert_eq!(ack.window_size, 0);
        assert_eq!(answer(&segment(100, 0, RST), 0, Completion::Never), None);
        assert_eq!(answer(&segment(100, 0, RST | ACK), 0, Completion::Perhaps), None);
    }

    proptest! {
        #[test]
        fn completing_it_again_changes_nothing(seq: u32, ack: u32, with_ack: bool, client: [u8; 4]) {
            let segment = segment(seq, ack, if with_ack { ACK } else { SYN });
            let pseudo = Sum::pseudo_v4(&VIP, &client, 6, LEN as u32);
            let bytes = reset(&segment, 0, pseudo, Completion::Perhaps).unwrap();
            // What skb_checksum_help and virtio do: sum from the TCP header on, the field included.
            let completed = Sum::ZERO.add_bytes(&bytes).checksum();
            let field = [bytes[16], bytes[17]];
            prop_assert_eq!(u16::from_ne_bytes(completed) % 0xffff, u16::from_ne_bytes(field) % 0xffff);
        }
    }
}
