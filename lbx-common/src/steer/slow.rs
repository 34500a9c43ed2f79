//! The whole engine, its rare paths, and the way back of nat: each a program of its own behind a tail call.

/// A path of its own. The number is the index in the `xdp_tail` and `tc_tail` program arrays.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Slow {
    /// ARP request, neighbour solicitation or echo request for a VIP.
    Answer = 0,
    /// IPv4 options, IPv6 extension headers, fragments: the transport header is not where it usually is.
    Headers = 1,
    /// ICMP or ICMPv6 to a VIP, or from a nat target, that is not an echo request.
    Icmp = 2,
    /// No target takes the packet and the service rejects.
    Reject = 3,
    /// Larger than the target's MTU.
    TooBig = 4,
    /// From the address of a nat target: it may be the answer of a flow.
    Back = 5,
    /// A later fragment: after the first.
    Later = 6,
    /// Whatever is not plain: the whole engine.
    Whole = 7,
    /// A packet of a flow whose target moved: after it.
    Moved = 8,
    /// A frame to another host: into the tunnel.
    Encap = 9,
    /// A packet to this host's end of the tunnels: out of it, if it is a peer's.
    Decap = 10,
}

/// Entries of the program arrays.
pub const SLOW_PROGRAMS: u32 = 16;

impl Slow {
    /// All, by number.
    pub const ALL: [Self; 11] = [
        Self::Answer,
        Self::Headers,
        Self::Icmp,
        Self::Reject,
        Self::TooBig,
        Self::Back,
        Self::Later,
        Self::Whole,
        Self::Moved,
        Self::Encap,
        Self::Decap,
    ];

    /// Name of the program that goes into `xdp_tail` at this index.
    pub const fn xdp_program(self) -> &'static str {
        match self {
            Self::Answer => "lbx_xdp_answer",
            Self::Headers => "lbx_xdp_headers",
            Self::Icmp => "lbx_xdp_icmp",
            Self::Reject => "lbx_xdp_reject",
            Self::TooBig => "lbx_xdp_too_big",
            Self::Back => "lbx_xdp_back",
            Self::Later => "lbx_xdp_later",
            Self::Whole => "lbx_xdp_whole",
            Self::Moved => "lbx_xdp_moved",
            Self::Encap => "lbx_xdp_encap",
            Self::Decap => "lbx_xdp_decap",
        }
    }

    /// Name of the program that goes into `tc_tail` at this index.
    pub const fn tc_program(self) -> &'static str {
        match self {
            Self::Answer => "lbx_tc_answer",
            Self::Headers => "lbx_tc_headers",
            Self::Icmp => "lbx_tc_icmp",
            Self::Reject => "lbx_tc_reject",
            Self::TooBig => "lbx_tc_too_big",
            Self::Back => "lbx_tc_back",
            Self::Later => "lbx_tc_later",
            Self::Whole => "lbx_tc_whole",
            Self::Moved => "lbx_tc_moved",
            Self::Encap => "lbx_tc_encap",
            Self::Decap => "lbx_tc_decap",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_the_positions_and_the_names_fit_the_kernel() {
        for (n, slow) in Slow::ALL.into_iter().enumerate() {
            assert_eq!(slow as usize, n);
            assert!(slow.xdp_program().len() < 16 && slow.tc_program().len() < 16);
        }
        assert!(Slow::ALL.len() <= SLOW_PROGRAMS as usize);
    }
}
