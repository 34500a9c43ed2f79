//! VLANs of frames: which one a frame belongs to, and what its tag has to become.

use crate::port::{Port, flags};

/// The VLAN id in a tag (IEEE 802.1Q, 9.6: the low 12 bits; 0 carries a priority only).
#[inline(always)]
pub const fn vid(tci: u16) -> u16 {
    tci & 0xfff
}

/// The VLAN a frame belongs to on a port: of its tag, or the port's own. Without VLAN filtering an untagged
/// frame belongs to 0.
#[inline(always)]
pub const fn of_frame(port: &Port, tag: Option<u16>) -> u16 {
    let tagged = match tag {
        Some(tci) => vid(tci),
        None => 0,
    };
    if tagged == 0 && port.flags & flags::VLAN_FILTERING != 0 { port.pvid } else { tagged }
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
pub const fn retag(tag: Option<u16>, wanted: u16) -> Retag {
    match tag {
        None => Retag { pop: false, push: wanted != 0 },
        Some(tci) if wanted != 0 && vid(tci) == wanted => Retag { pop: false, push: false },
        Some(_) => Retag { pop: true, push: wanted != 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_belongs_to_its_tag_or_to_the_pvid() {
        let plain = Port { pvid: 7, ..Port::default() };
        let filtering = Port { flags: flags::VLAN_FILTERING, ..plain };
        assert_eq!(of_frame(&plain, None), 0);
        assert_eq!(of_frame(&plain, Some(0xe00a)), 10);
        assert_eq!(of_frame(&filtering, None), 7);
        assert_eq!(of_frame(&filtering, Some(0x2000)), 7, "a priority tag is no VLAN");
        assert_eq!(of_frame(&filtering, Some(0xffff)), 0xfff);
    }

    #[test]
    fn the_tag_becomes_what_is_wanted() {
        let [none, pop, push, both] = [(false, false), (true, false), (false, true), (true, true)]
            .map(|(pop, push)| Retag { pop, push });
        assert_eq!(retag(None, 0), none);
        assert_eq!(retag(None, 5), push);
        assert_eq!(retag(Some(5), 5), none);
        assert_eq!(retag(Some(0xe005), 5), none, "the priority stays");
        assert_eq!(retag(Some(5), 6), both);
        assert_eq!(retag(Some(5), 0), pop);
        assert_eq!(retag(Some(0xe000), 0), pop, "a priority tag is one too");
    }
}
