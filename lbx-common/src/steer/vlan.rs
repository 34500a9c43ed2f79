//! VLANs of frames: which one a frame belongs to, and what its tag has to become.

use crate::port::{Port, flags};

/// The tag of a frame, or none. One word that is always wholly defined: of an `Option` the compiler leaves what is
/// in the register of a `None` open, and the verifier refuses programs that copy such a register.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tag(u32);

impl Tag {
    /// An untagged frame.
    pub const NONE: Self = Self(0);
    const PRESENT: u32 = 1 << 16;

    /// From its tag control information.
    #[inline(always)]
    pub const fn new(tci: u16) -> Self {
        Self(Self::PRESENT | tci as u32)
    }
    /// Whether there is one.
    #[inline(always)]
    pub const fn is_some(self) -> bool {
        self.0 != 0
    }
    /// The VLAN id (IEEE 802.1Q, 9.6: the low 12 bits); 0 for a tag that carries a priority only, or none.
    #[inline(always)]
    pub const fn vid(self) -> u16 {
        self.0 as u16 & 0xfff
    }
    /// Whether the frame can go as it is to a port that wants to see the VLAN `wanted` (0: no tag).
    #[inline(always)]
    pub const fn suits(self, wanted: u16) -> bool {
        let Retag { pop, push } = retag(self, wanted);
        !pop && !push
    }
}

/// The VLAN a frame belongs to on a port: of its tag, or the port's own. Without VLAN filtering an untagged
/// frame belongs to 0.
#[inline(always)]
pub const fn of_frame(port: &Port, tag: Tag) -> u16 {
    if tag.vid() == 0 && port.flags & flags::VLAN_FILTERING != 0 { port.pvid } else { tag.vid() }
}

/// What to do with the tag of a frame so that it carries `wanted` (0: none).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retag {
    /// Take the tag off.
    pub pop: bool,
    /// Put the wanted one on.
    pub push: bool,
}

/// From the tag the frame has to the VLAN id the port wants to see.
#[inline(always)]
pub const fn retag(tag: Tag, wanted: u16) -> Retag {
    let has = tag.is_some();
    let right = has && wanted != 0 && tag.vid() == wanted;
    Retag { pop: has && !right, push: wanted != 0 && !right }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_belongs_to_its_tag_or_to_the_pvid() {
        let plain = Port { pvid: 7, ..Port::default() };
        let filtering = Port { flags: flags::VLAN_FILTERING, ..plain };
        assert_eq!(of_frame(&plain, Tag::NONE), 0);
        assert_eq!(of_frame(&plain, Tag::new(0xe00a)), 10);
        assert_eq!(of_frame(&filtering, Tag::NONE), 7);
        assert_eq!(of_frame(&filtering, Tag::new(0x2000)), 7, "a priority tag is no VLAN");
        assert_eq!(of_frame(&filtering, Tag::new(0xffff)), 0xfff);
    }

    #[test]
    fn the_tag_becomes_what_is_wanted() {
        let [none, pop, push, both] = [(false, false), (true, false), (false, true), (true, true)]
            .map(|(pop, push)| Retag { pop, push });
        assert_eq!(retag(Tag::NONE, 0), none);
        assert_eq!(retag(Tag::NONE, 5), push);
        assert_eq!(retag(Tag::new(5), 5), none);
        assert_eq!(retag(Tag::new(0xe005), 5), none, "the priority stays");
        assert_eq!(retag(Tag::new(5), 6), both);
        assert_eq!(retag(Tag::new(5), 0), pop);
        assert_eq!(retag(Tag::new(0xe000), 0), pop, "a priority tag is one too");
    }
}
