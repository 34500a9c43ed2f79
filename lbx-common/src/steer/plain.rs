//! Which packets are plain: nothing about them changes anything but the target's counters and the flow's age.
//!
//! They are nearly all there are. The hot path sends them on by itself and leaves every other packet to the whole
//! engine, before it has changed anything.

use super::vlan::Tag;
use crate::algo::tcp::{TcpBits, packet};
use crate::flow::{FlowEntry, TargetWord, flags};
use crate::target::{Deliver, State, StateWord, Target, flags as target_flags};

/// A flow entry in two words, as the hot path loads it: the seal, and the rest.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rest(pub u64);

/// Offset of the words in an entry, and that they are what they seem: little-endian.
const _: () = assert!(core::mem::offset_of!(FlowEntry, target) == 8 && cfg!(target_endian = "little"));

impl Rest {
    /// What the flow is bound to.
    #[inline(always)]
    pub const fn word(self) -> TargetWord {
        TargetWord(self.0 as u32)
    }
    /// Epoch of its last packet.
    #[inline(always)]
    pub const fn epoch(self) -> u16 {
        (self.0 >> 32) as u16
    }
    /// Whether a packet from the client leaves the flow's flags as they are: it is confirmed, and if it is TCP
    /// (`tcp_flags` are those of the packet) established, with nothing in the packet that opens or ends it.
    #[inline(always)]
    pub const fn stays(self, tcp: bool, tcp_flags: u8) -> bool {
        const RARE: u8 = packet::SYN | packet::FIN | packet::RST;
        let wanted = if tcp { flags::CONFIRMED | TcpBits::ESTABLISHED } else { flags::CONFIRMED };
        (self.0 >> 48) as u16 & wanted == wanted && tcp_flags & RARE == 0
    }
}

/// Whether a target takes the packet without further question: the one the word names, active, by redirect out of
/// another port than it came in by. `tag`: the frame's. `bytes`: of the largest IP packet
/// that will leave.
#[inline(always)]
pub const fn takes(
    target: &Target,
    word: TargetWord,
    state: StateWord,
    ingress: u32,
    tag: Tag,
    bytes: u32,
) -> bool {
    state.0 == StateWord::new(State::Active).0
        && target.generation == word.generation()
        && target.flags & target_flags::IN_USE != 0
        && target.deliver == Deliver::Redirect as u8
        && target.port_index as u32 != ingress
        && tag.suits(target.vlan)
        && bytes <= target.mtu as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algo::tcp::Direction;
    use crate::algo::tcp::idle_class;
    use crate::flow::{IdleClass, with_class};

    fn rest(entry: &FlowEntry) -> Rest {
        let words: [u64; 2] = bytemuck::cast(*entry);
        assert_eq!(words[0], entry.seal);
        Rest(words[1])
    }

    #[test]
    fn the_words_of_an_entry_are_its_fields() {
        let target = TargetWord::new(0x1234, 5, 6);
        let entry = FlowEntry { seal: 1, target, epoch: 0xfedc, flags: flags::CONFIRMED };
        assert_eq!((rest(&entry).word(), rest(&entry).epoch()), (target, 0xfedc));
        assert!(rest(&entry).stays(false, 0));
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
                    if rest(&entry).stays(tcp, packet) {
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
        assert!(rest(&entry).stays(true, packet::ACK));
        assert!(!rest(&entry).stays(true, packet::ACK | packet::FIN));
    }

    #[test]
    fn a_target_takes_what_needs_no_thought() {
        let active = StateWord::new(State::Active);
        let target =
            Target { state: active, flags: 1, generation: 3, port_index: 4, mtu: 1500, ..Target::default() };
        let (word, none) = (TargetWord::new(9, 0, 3), Tag::NONE);
        assert!(takes(&target, word, active, 0, none, 1500));
        assert!(!takes(&target, word, StateWord::new(State::Draining), 0, none, 1500));
        assert!(!takes(&target, TargetWord::new(9, 0, 2), active, 0, none, 1500));
        assert!(!takes(&Target { flags: 0, ..target }, word, active, 0, none, 1500));
        assert!(!takes(&Target { deliver: Deliver::Bridge as u8, ..target }, word, active, 0, none, 1500));
        assert!(!takes(&target, word, active, 4, none, 1500), "back where it came from");
        assert!(!takes(&target, word, active, 0, Tag::new(5), 1500), "a tag it does not want");
        assert!(!takes(&target, word, active, 0, none, 1501), "too big");
    }
}
