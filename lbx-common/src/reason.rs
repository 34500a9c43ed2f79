//! Why a packet was dropped, answered or treated specially: one name everywhere.

/// Defines the enum, its numbers, names and kinds in one place.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal, $kind:ident;)*) => {
        /// A counter of the datapath. The number is its index in the per-CPU `reasons` map.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum Reason { $($(#[$doc])* $name = $number,)* }

        impl Reason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name in the CLI, the API, Prometheus and the docs.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// By its number.
            pub fn from_u8(number: u8) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| *reason as u8 == number)
            }

            /// What it is a reason for.
            #[inline(always)]
            pub const fn kind(self) -> Kind {
                match self { $(Self::$name => Kind::$kind,)* }
            }
        }
    };
}

/// What a [`Reason`] is a reason for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The packet was dropped.
    Drop,
    /// The packet was answered by the datapath itself.
    Answer,
    /// The packet of a service was passed on purpose.
    Pass,
    /// Something happened to a flow or target; the packet's verdict is counted elsewhere.
    Event,
}

/// Entries of the `reasons` map; numbers below it are reserved for later reasons.
pub const REASONS: u32 = 128;

reasons! {
    /// IP header inconsistent: header length below the minimum or beyond the packet.
    BadIpHeader = 0, "bad_ip_header", Drop;
    /// IP total length beyond the frame or shorter than its headers.
    BadIpLength = 1, "bad_ip_length", Drop;
    /// The frame ends inside the TCP, UDP or ICMP header.
    TruncatedL4 = 2, "truncated_l4", Drop;
    /// TCP data offset or UDP length inconsistent.
    BadL4Length = 3, "bad_l4_length", Drop;
    /// More IPv6 extension headers than are followed.
    TooManyHeaders = 4, "too_many_extension_headers", Drop;
    /// A later fragment whose first fragment was not seen.
    FragmentUnknown = 5, "fragment_unknown", Drop;
    /// A first fragment too short to hold the L4 header.
    FragmentTiny = 6, "fragment_tiny", Drop;
    /// No target takes the flow, and the service drops.
    NoTarget = 7, "no_target", Drop;
    /// The target is blackholed.
    Blackholed = 8, "blackholed", Drop;
    /// The target's port is not a member of the frame's VLAN.
    VlanNotMember = 9, "vlan_not_member", Drop;
    /// The frame came in on a VLAN its port is not a member of.
    VlanIngress = 10, "vlan_ingress", Drop;
    /// The hop limit is used up. Kept for `encap` and `moved`: what there is so far routes nothing, so that hop
    /// limits stay as they are, and this is never counted.
    HopLimit = 11, "hop_limit", Drop;
    /// The flow cannot be translated: no room to record it.
    NatTableFull = 12, "nat_table_full", Drop;
    /// New flows of a nat service above its rate.
    NatRate = 13, "nat_rate", Drop;
    /// The target has no address of the packet's family.
    NatNoAddress = 14, "nat_no_address", Drop;
    /// Client and port are in use on this target through another VIP (or port of it): to the target both
    /// connections would be one.
    NatConflict = 15, "nat_conflict", Drop;
    /// An ICMP error about a flow that is not known.
    IcmpUnknownFlow = 16, "icmp_unknown_flow", Drop;
    /// The helper that redirects refused.
    RedirectFailed = 17, "redirect_failed", Drop;
    /// The only target that takes new flows is the VM that sent the packet.
    SelfTarget = 18, "self_target", Drop;
    /// An answer was due, but the rate is used up.
    AnswerRate = 19, "answer_rate", Drop;
    /// A flow names a target that no longer exists and could not be selected anew.
    StaleTarget = 20, "stale_target", Drop;
    /// The target of a recorded flow is behind the port the frame came in by; or a packet for a VM that moved was
    /// sent there already and came back.
    WouldLoop = 21, "would_loop", Drop;
    /// A map lookup that cannot fail did: a bug, or a foreign hand on the maps.
    Internal = 22, "internal", Drop;
    /// Larger than the target's MTU and it may not be fragmented; the sender could not be told.
    TooBig = 23, "too_big", Drop;
    /// Out of a peer's tunnel came what no tunnel of lbx sends: headers that do not fit, or no IP inside.
    TunnelMalformed = 24, "tunnel_malformed", Drop;
    /// Out of a peer's tunnel came a frame to a MAC that no VM here has.
    TunnelNoVm = 25, "tunnel_no_vm", Drop;
    /// A packet met congestion in the tunnel and cannot be marked with it (RFC 6040).
    TunnelCongested = 26, "tunnel_congested", Drop;
    /// The kernel gave no room for the headers of the tunnel, or did not take them off.
    TunnelRoom = 27, "tunnel_no_room", Drop;

    /// ARP request for a VIP answered.
    ArpAnswered = 40, "arp_answered", Answer;
    /// Neighbour solicitation for a VIP answered.
    NdAnswered = 41, "nd_answered", Answer;
    /// Echo request to a VIP answered.
    EchoAnswered = 42, "echo_answered", Answer;
    /// No target: TCP RST sent.
    RejectedReset = 43, "rejected_reset", Answer;
    /// No target: ICMP unreachable sent.
    RejectedUnreachable = 44, "rejected_unreachable", Answer;
    /// ICMP fragmentation needed or packet too big sent.
    TooBigAnswered = 45, "too_big_answered", Answer;

    /// For a VIP, but no service has this protocol and port.
    NotAService = 56, "not_a_service", Pass;
    /// For a VIP, but not addressed to the switch: steered already, or not ours.
    NotAddressed = 57, "not_addressed", Pass;
    /// The service is suspended by a guard-rail.
    Suspended = 58, "suspended", Pass;
    /// Observing: would have been steered.
    Observed = 59, "observed", Pass;
    /// From a nat target's address, but not part of a recorded flow: a direct connection.
    NotTranslated = 60, "not_translated", Pass;
    /// The bridge takes the frame so that it learns the client's MAC.
    Learned = 61, "learned", Pass;
    /// For this host's end of the tunnels, but not from a peer.
    TunnelNotAPeer = 62, "tunnel_not_a_peer", Pass;
    /// Out of a peer's tunnel, but of another VXLAN network.
    TunnelOtherNetwork = 63, "tunnel_other_network", Pass;

    /// A new flow was recorded.
    FlowRecorded = 72, "flow_recorded", Event;
    /// A new flow was served without a record: no room.
    FlowUnrecorded = 73, "flow_unrecorded", Event;
    /// A new flow was served without a record: above the rate.
    FlowRateLimited = 74, "flow_rate_limited", Event;
    /// An unconfirmed entry gave way to a new flow.
    FlowEvicted = 75, "flow_evicted", Event;
    /// A flow was freed by TCP close.
    FlowClosed = 76, "flow_closed", Event;
    /// A flow was selected anew because its target is down.
    FlowReselected = 77, "flow_reselected", Event;
    /// A packet went through because the deadline of a blackhole had passed.
    BlackholeExpired = 78, "blackhole_expired", Event;
    /// A slot named a target that takes no new flows; another was found.
    SlotRehashed = 79, "slot_rehashed", Event;
    /// Another CPU wrote the entry at the same time; the flow is recorded at a later packet.
    FlowRaced = 80, "flow_raced", Event;
    /// An ICMP error was forwarded with its flow.
    IcmpFollowed = 81, "icmp_followed", Event;
    /// A later fragment followed its first.
    FragmentFollowed = 82, "fragment_followed", Event;
    /// A new flow was served without a record: its service leaves the rest of the flow table to others.
    FlowRoomKept = 83, "flow_room_kept", Event;
    /// Of two choices the second had the shorter queue and got the flow.
    FlowToShorter = 90, "flow_to_shorter_queue", Event;
    /// The address of a queue's ring leads to something else by now; open flows alone were compared.
    RingStale = 91, "ring_stale", Event;
    /// A packet of a known flow went after its VM, which had moved.
    MovedFollowed = 100, "moved_followed", Event;
    /// A frame went into the tunnel to another host.
    TunnelSent = 101, "tunnel_sent", Event;
    /// A frame for a VM here was taken out of the tunnel of another host.
    TunnelReceived = 102, "tunnel_received", Event;
}
