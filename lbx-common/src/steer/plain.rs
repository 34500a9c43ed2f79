//! Which packets are plain: nothing about them changes anything but the target's counters and the flow's age.
//!
//! They are nearly all there are. The hot path sends them on by itself and leaves every other packet to the whole
//! engine, before it has changed anything.

use super::vlan::Tag;
use crate::algo::tcp::{TcpBits, packet};
use crate::flow::{FlowEntry, TargetWord, flags};
use crate::target::{Deliver, Forward, State, StateWord, Target, flags as target_flags};
use core::mem::offset_of;

const _: () = assert!(cfg!(target_endian = "little"), "the words below are little-endian");
const _: () = assert!(offset_of!(FlowEntry, epoch) == 12 && offset_of!(FlowEntry, flags) == 14);
const _: () = assert!(offset_of!(Target, state) == 0 && offset_of!(Target, port_index) == 48);
const _: () = assert!(offset_of!(Target, vlan) == 50 && offset_of!(Target, mtu) == 52);
const _: () = assert!(offset_of!(Target, flags) == 54 && offset_of!(Target, forward) == 60);
const _: () = assert!(offset_of!(Target, generation) == 62 && offset_of!(Target, deliver) == 63);

/// Epoch (bits 0-15) and flags (16-31) of a flow entry, as one word.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Age(pub u32);

impl Age {
    /// Epoch of its last packet.
    #[inline(always)]
    pub const fn epoch(self) -> u16 {
        self.0 as u16
    }
    /// Whether a packet from the client leaves the flow's flags as they are: it is confirmed, and if it is TCP
    /// (`tcp_flags` are those of the packet) established, with nothing in the packet that opens or ends it.
    #[inline(always)]
    pub const fn stays(self, tcp: bool, tcp_flags: u8) -> bool {
        const RARE: u8 = packet::SYN | packet::FIN | packet::RST;
        const KNOWN: u32 = (flags::CONFIRMED as u32) << 16;
        const ESTABLISHED: u32 = KNOWN | (TcpBits::ESTABLISHED as u32) << 16;
        if tcp {
            self.0 & ESTABLISHED == ESTABLISHED && tcp_flags & RARE == 0
        } else {
            self.0 & KNOWN == KNOWN
        }
    }
}

/// The three words of a target that decide whether it takes a packet without further question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Its state.
    pub state: u64,
    /// Port index (bits 0-15), VLAN (16-31), MTU (32-47), flags (48-63).
    pub place: u64,
    /// Service (bits 0-15), elsewhere (16-31), forwarding (32-39), queues (40-47), generation (48-55), delivery (56-63).
    pub way: u64,
}

impl Facts {
    /// Whether it takes the packet: the target that the word names, active, by redirect out of another port than it
    /// came in by, `dsr` or `nat`. `tag`: the frame's. `bytes`: of the largest IP packet that will leave.
    #[inline(always)]
    pub const fn takes(self, word: TargetWord, ingress: u32, tag: Tag, bytes: u64) -> bool {
        const REDIRECT: u64 = Deliver::Redirect as u64;
        self.state == StateWord::new(State::Active).0
            // The generation, and above it the delivery.
            && self.way >> 48 == (REDIRECT << 8 | (word.0 >> 24) as u64)
            && (self.way >> 32) & 0xff <= Forward::Nat as u64
            && (self.place >> 48) as u16 & (target_flags::IN_USE | target_flags::QUEUES) == target_flags::IN_USE
            && self.place & 0xffff != ingress as u64
            && tag.suits((self.place >> 16) as u16)
            && bytes <= (self.place >> 32) & 0xffff
    }
    /// Whether addresses are translated, of a target that takes the packet.
    #[inline(always)]
    pub const fn is_nat(self) -> bool {
        (self.way >> 32) & 0xff == Forward::Nat as u64
    }
    /// Index of its port.
    #[inline(always)]
    pub const fn port_index(self) -> u32 {
        self.place as u32 & 0xffff
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algo::tcp::Direction;
    use crate::algo::tcp::idle_class;
    use crate::flow::{IdleClass, with_class};

    fn age(entry: &FlowEntry) -> Age {
        let words: [u32; 4] = bytemuck::cast(*entry);
        Age(words[3])
    }

    fn facts(target: &Target) -> Facts {
        let words: [u64; 8] = bytemuck::cast(*target);
        Facts { state: words[0], place: words[6], way: words[7] }
    }

    #[test]
    fn the_words_are_their_fields() {
        let entry = FlowEntry { epoch: 0xfedc, flags: flags::CONFIRMED, ..FlowEntry::default() };
        assert_eq!(age(&entry).epoch(), 0xfedc);
        assert!(age(&entry).stays(false, 0) && !age(&entry).stays(true, 0));
        let target = Target { port_index: 0x1234, forward: Forward::Nat as u8, ..Target::default() };
        assert!(facts(&target).is_nat() && facts(&target).port_index() == 0x1234);
    }

    /// Against the whole rule: whenever a packet is said to leave the flags as they are, it does.
    #[test]
    fn what_stays_is_what_the_state_machine_leaves() {
        for (protocol, tcp) in [(6, true), (17, false)] {
            for old in 0..=u16::MAX {
                for packet in 0..=u8::MAX {
                    let packet = if tcp { packet } else { 0 };
                    let entry = FlowEntry { flags: old, ..FlowEntry::default() };
                    let one_way = old & flags::NAT == 0;
                    let bits = TcpBits::of(old);
                    // Flags as they can be: the class follows the bits.
                    let class = idle_class(protocol, bits, one_way);
                    if crate::flow::class_index(old) != class as usize {
                        continue;
                    }
                    if age(&entry).stays(tcp, packet) {
                        let next = if tcp { bits.step(packet, Direction::ToServer) } else { bits };
                        let class = idle_class(protocol, next, one_way);
                        assert_eq!(
                            with_class(next.put(old), class) | flags::CONFIRMED,
                            old,
                            "{old:#x} {packet:#x}"
                        );
                        assert!(!(tcp && bits.reopens(packet, Direction::ToServer)));
                    }
                    if !tcp {
                        break;
                    }
                }
            }
        }
        let confirmed = with_class(flags::CONFIRMED | TcpBits::ESTABLISHED, IdleClass::Established);
        let entry = FlowEntry { flags: confirmed, ..FlowEntry::default() };
        assert!(age(&entry).stays(true, packet::ACK));
        assert!(!age(&entry).stays(true, packet::ACK | packet::FIN));
    }

    #[test]
    fn a_target_takes_what_needs_no_thought() {
        let state = StateWord::new(State::Active);
        let target = Target { state, flags: 1, generation: 3, port_index: 4, mtu: 1500, ..Target::default() };
        let (word, none) = (TargetWord::new(9, 0, 3), Tag::NONE);
        let takes =
            |target: Target, word, ingress, tag, bytes| facts(&target).takes(word, ingress, tag, bytes);
        assert!(takes(target, word, 0, none, 1500));
        assert!(takes(Target { forward: Forward::Nat as u8, ..target }, word, 0, none, 1500));
        assert!(takes(Target { vlan: 5, ..target }, word, 0, Tag::new(5), 1500), "the tag it wants");
        for state in State::ALL.into_iter().filter(|state| *state != State::Active) {
            assert!(
                !takes(Target { state: StateWord::new(state), ..target }, word, 0, none, 1500),
                "{state:?}"
            );
        }
        assert!(!takes(target, TargetWord::new(9, 0, 2), 0, none, 1500), "another generation");
        assert!(!takes(Target { flags: 0, ..target }, word, 0, none, 1500), "not in use");
        let queues = target_flags::IN_USE | target_flags::QUEUES;
        assert!(!takes(Target { flags: queues, ..target }, word, 0, none, 1500), "its queues are chosen");
        assert!(!takes(Target { deliver: Deliver::Bridge as u8, ..target }, word, 0, none, 1500));
        assert!(!takes(Target { forward: Forward::Encap as u8, ..target }, word, 0, none, 1500));
        assert!(!takes(target, word, 4, none, 1500), "back where it came from");
        assert!(!takes(target, word, 0, Tag::new(5), 1500), "a tag it does not want");
        assert!(!takes(Target { vlan: 5, ..target }, word, 0, none, 1500), "a tag is missing");
        assert!(!takes(target, word, 0, none, 1501), "too big");
        assert!(!takes(Target { mtu: 0, ..target }, word, 0, none, 1500), "no limit: the whole engine knows");
    }
}
