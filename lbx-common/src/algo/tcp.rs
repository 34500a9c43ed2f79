//! What the datapath remembers of a TCP connection, and how long an idle flow may stay.
//!
//! With `dsr` only the client's packets are seen; with `nat` and on tc both directions are. Sequence numbers
//! are not kept, so nothing here decides whether a packet is delivered: the bits only decide how soon an
//! idle entry may be given up. A forged RST can at worst shorten that time.

use crate::flow::IdleClass;
use crate::flow::flags::TCP_MASK;

/// Flags of a TCP packet, the byte at offset 13 of its header (RFC 9293, section 3.1).
pub mod packet {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Aborts it.
    pub const RST: u8 = 0x04;
    /// The acknowledgement number is valid.
    pub const ACK: u8 = 0x10;
}

/// Who sent a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// The client, to the service.
    ToServer,
    /// The target, back to the client.
    ToClient,
}

/// State of a connection, in the low byte of a flow's flags; the high byte is not touched here.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(transparent)]
pub struct TcpBits(u16);

impl TcpBits {
    /// The flow began with the client's SYN (clear: picked up in the middle).
    pub const SYN_SEEN: u16 = 0x01;
    /// The client went on after its SYN. For a flow picked up in the middle: a second packet came.
    pub const ESTABLISHED: u16 = 0x02;
    /// The client sent FIN.
    pub const FIN_CLIENT: u16 = 0x04;
    /// The server sent FIN.
    pub const FIN_SERVER: u16 = 0x08;
    /// RST, from either side.
    pub const CLOSED: u16 = 0x10;
    /// All bits that are ours, with room for more.
    pub const MASK: u16 = TCP_MASK;
    /// Any of these: the connection is on its way out, and a SYN begins a new one.
    pub const ENDING: u16 = Self::FIN_CLIENT | Self::FIN_SERVER | Self::CLOSED;

    /// Our part of a flow's flags.
    #[inline(always)]
    pub const fn of(flags: u16) -> Self {
        Self(flags & Self::MASK)
    }

    /// A flow's flags with our part replaced.
    #[inline(always)]
    pub const fn put(self, flags: u16) -> u16 {
        (flags & !Self::MASK) | self.0
    }

    /// The bits.
    #[inline(always)]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Whether all of these bits are set.
    #[inline(always)]
    pub const fn has(self, bits: u16) -> bool {
        self.0 & bits == bits
    }

    /// Whether a packet of an unknown flow is worth an entry: an RST ends what there is none of.
    #[inline(always)]
    pub const fn records(packet: u8) -> bool {
        packet & packet::RST == 0
    }

    /// Bits of a flow recorded on this packet of the client.
    #[inline(always)]
    pub const fn open(packet: u8) -> Self {
        Self(Self::default_of(packet, Direction::ToServer))
    }

    /// Whether this packet begins a new connection on the entry of an old one (same ports used again). The
    /// new one may go to another target: it is not the flow that was recorded.
    #[inline(always)]
    pub const fn reopens(self, packet: u8, from: Direction) -> bool {
        matches!(from, Direction::ToServer)
            && packet & (packet::SYN | packet::ACK | packet::RST | packet::FIN) == packet::SYN
            && self.0 & Self::ENDING != 0
    }

    /// Bits after a packet of a recorded flow. The caller stores them only if they changed.
    #[must_use]
    #[inline(always)]
    pub const fn step(self, packet: u8, from: Direction) -> Self {
        const RARE: u8 = packet::SYN | packet::FIN | packet::RST;
        // Nearly every packet: data or ACK of a connection that is known to be established.
        if packet & RARE == 0 && self.0 & Self::ESTABLISHED != 0 {
            return self;
        }
        if self.reopens(packet, from) {
            return Self::open(packet);
        }
        let mut bits = self.0 | (Self::default_of(packet, from) & !Self::SYN_SEEN);
        // Only the client confirms: a target answers forged SYNs too. A repeated SYN confirms nothing.
        if matches!(from, Direction::ToServer)
            && packet & (packet::SYN | packet::RST) == 0
            && packet & packet::ACK != 0
        {
            bits |= Self::ESTABLISHED;
        }
        Self(bits)
    }

    /// What a packet says on its own. RST outweighs everything; SYN with FIN is nonsense and says nothing.
    #[inline(always)]
    const fn default_of(packet: u8, from: Direction) -> u16 {
        if packet & packet::RST != 0 {
            return Self::CLOSED;
        }
        match (packet & packet::SYN != 0, packet & packet::FIN != 0, from) {
            (true, false, Direction::ToServer) => Self::SYN_SEEN,
            (false, true, Direction::ToServer) => Self::FIN_CLIENT,
            (false, true, Direction::ToClient) => Self::FIN_SERVER,
            _ => 0,
        }
    }
}

/// Which idle time a flow is subject to. `one_way`: only the client's packets are seen (`dsr`); its FIN is
/// then all there will ever be to see of a close. A client that has half closed and still receives keeps its
/// entry alive by its ACKs, so the idle time of `Closed` must outlast a pause in a download (60 s, as Linux
/// gives FIN_WAIT_2, is a safe choice).
#[inline(always)]
pub const fn idle_class(protocol: u8, bits: TcpBits, one_way: bool) -> IdleClass {
    const TCP: u8 = 6;
    if protocol != TCP {
        return IdleClass::Datagram;
    }
    let both = bits.has(TcpBits::FIN_CLIENT | TcpBits::FIN_SERVER);
    if bits.has(TcpBits::CLOSED) || both || (one_way && bits.has(TcpBits::FIN_CLIENT)) {
        IdleClass::Closed
    } else if bits.has(TcpBits::ESTABLISHED) {
        IdleClass::Established
    } else {
        IdleClass::New
    }
}

#[cfg(test)]
mod tests {
    use super::Direction::{ToClient, ToServer};
    use super::packet::{ACK, FIN, RST, SYN};
    use super::*;

    const PSH: u8 = 0x08;

    fn run(first: u8, rest: &[(u8, Direction)]) -> TcpBits {
        rest.iter().fold(TcpBits::open(first), |b, &(p, d)| b.step(p, d))
    }

    #[test]
    fn connections_step_by_step() {
        type Row = (&'static str, &'static [(u8, Direction)], u16, IdleClass, IdleClass);
        let (s, c, fc, fs, x) = (
            TcpBits::SYN_SEEN,
            TcpBits::ESTABLISHED,
            TcpBits::FIN_CLIENT,
            TcpBits::FIN_SERVER,
            TcpBits::CLOSED,
        );
        // packets after the client's SYN; bits; class seen one way, and both ways
        let rows: &[Row] = &[
            ("syn alone", &[], s, IdleClass::New, IdleClass::New),
            ("syn repeated", &[(SYN, ToServer), (SYN, ToServer)], s, IdleClass::New, IdleClass::New),
            ("answered, not confirmed", &[(SYN | ACK, ToClient)], s, IdleClass::New, IdleClass::New),
            ("dsr handshake", &[(ACK, ToServer)], s | c, IdleClass::Established, IdleClass::Established),
            (
                "syn on an open flow changes nothing",
                &[(ACK, ToServer), (SYN, ToServer)],
                s | c,
                IdleClass::Established,
                IdleClass::Established,
            ),
            (
                "client closes first",
                &[(ACK, ToServer), (FIN | ACK, ToServer)],
                s | c | fc,
                IdleClass::Closed,
                IdleClass::Established,
            ),
            (
                "server closes first",
                &[(ACK, ToServer), (FIN | ACK, ToClient), (ACK, ToServer)],
                s | c | fs,
                IdleClass::Established,
                IdleClass::Established,
            ),
            (
                "both closed",
                &[(ACK, ToServer), (FIN | ACK, ToClient), (FIN | ACK, ToServer), (ACK, ToClient)],
                s | c | fs | fc,
                IdleClass::Closed,
                IdleClass::Closed,
            ),
            ("refused", &[(RST | ACK, ToClient)], s | x, IdleClass::Closed, IdleClass::Closed),
            (
                "data after rst leaves it closed",
                &[(ACK, ToServer), (RST, ToClient), (PSH | ACK, ToServer)],
                s | c | x,
                IdleClass::Closed,
                IdleClass::Closed,
            ),
            (
                "ports used again after rst",
                &[(ACK, ToServer), (RST, ToServer), (SYN, ToServer)],
                s,
                IdleClass::New,
                IdleClass::New,
            ),
            (
                "ports used again after close",
                &[(ACK, ToServer), (FIN | ACK, ToServer), (SYN, ToServer), (ACK, ToServer)],
                s | c,
                IdleClass::Established,
                IdleClass::Established,
            ),
            (
                "a server's syn does not reopen",
                &[(RST, ToServer), (SYN | ACK, ToClient)],
                s | x,
                IdleClass::Closed,
                IdleClass::Closed,
            ),
            ("syn with fin says nothing", &[(SYN | FIN, ToServer)], s, IdleClass::New, IdleClass::New),
            ("syn with rst closes", &[(SYN | RST, ToServer)], s | x, IdleClass::Closed, IdleClass::Closed),
        ];
        for (name, packets, bits, one_way, both) in rows {
            let got = run(SYN, packets);
            assert_eq!(got.bits(), *bits, "{name}");
            assert_eq!(idle_class(6, got, true), *one_way, "{name}, one way");
            assert_eq!(idle_class(6, got, false), *both, "{name}, both ways");
        }
    }

    #[test]
    fn picked_up_in_the_middle_takes_two_packets() {
        let first = TcpBits::open(ACK);
        assert_eq!(idle_class(6, first, true), IdleClass::New);
        assert_eq!(idle_class(6, first.step(ACK, ToServer), true), IdleClass::Established);
        assert_eq!(idle_class(6, first.step(ACK, ToClient), true), IdleClass::New);
        assert!(TcpBits::records(ACK) && TcpBits::records(SYN) && !TcpBits::records(RST | ACK));
    }

    #[test]
    fn every_state_and_packet_keeps_the_rules() {
        for old in 0..=TcpBits::MASK {
            for p in 0..=u8::MAX {
                for from in [ToServer, ToClient] {
                    let b = TcpBits::of(old);
                    let n = b.step(p, from);
                    assert_eq!(n.bits() & !TcpBits::MASK, 0);
                    if b.reopens(p, from) {
                        assert_eq!(n.bits(), TcpBits::SYN_SEEN);
                    } else {
                        assert_eq!(n.bits() & old, old, "bits only come ({old:#x}, {p:#x})");
                        assert_eq!(n.step(p, from), n, "the same packet again says nothing new");
                    }
                    if p & RST != 0 {
                        assert!(n.has(TcpBits::CLOSED));
                    }
                }
            }
        }
    }

    #[test]
    fn the_high_byte_is_the_callers() {
        let flags = 0xab00 | TcpBits::SYN_SEEN;
        assert_eq!(
            TcpBits::of(flags).step(ACK, ToServer).put(flags),
            0xab00 | TcpBits::SYN_SEEN | TcpBits::ESTABLISHED
        );
        assert_eq!(idle_class(17, TcpBits::default(), true), IdleClass::Datagram);
    }
}
