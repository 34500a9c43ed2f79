//! The way back of `nat`: which flow an answer of a target belongs to.

use crate::addr::Ip;
use crate::algo::tcp::packet;
use crate::flow::{IdleClass, class_index};
use crate::key::{FlowKey, scope};
use crate::port::flags;
use crate::service::Back;
use crate::target::Deliver;

/// Rules of a nat target's address that the way back looks at, the inline ones included: user space refuses
/// more.
pub const MAX_BACK_RULES: u32 = 16;

/// Whether an answer that came in by a port with these [`flags`] is translated only where it leaves: the packets
/// it answers went through the bridge with the target's address. What the host itself gets or routes on
/// (`to_switch`) does not leave by a port, and its conntrack knows the connection by the VIP.
#[inline(always)]
pub const fn waits(port_flags: u16, deliver: u8, to_switch: bool) -> bool {
    port_flags & flags::BACK_AT_EGRESS != 0 && deliver == Deliver::Bridge as u8 && !to_switch
}

/// Service port of the flow that an answer from `source_port` belongs to (network order).
#[inline(always)]
pub const fn service_port(back: &Back, source_port: u16) -> u16 {
    if back.port == 0 { source_port } else { back.port }
}

/// Key of the flow that an answer belongs to: to `client` and its port, from `source_port` of the target (ports
/// in network order), on a switch.
#[inline(always)]
pub const fn forward_key(
    back: &Back,
    client: Ip,
    client_port: u16,
    source_port: u16,
    protocol: u8,
    switch: u16,
) -> FlowKey {
    let [a, b] = client_port.to_ne_bytes();
    let [c, d] = service_port(back, source_port).to_ne_bytes();
    FlowKey {
        src: client,
        dst: back.vip,
        ports: u32::from_ne_bytes([a, b, c, d]),
        scope: scope(protocol, back.vlan, switch),
    }
}

/// Whether an answer with these TCP flags shows that a recorded flow (its [`crate::flow::flags`]) is not what it
/// belongs to: the target accepts a connection, but the recorded one is over and no SYN for another came by. A client
/// has used its port again, for a connection straight to the target.
#[inline(always)]
pub const fn is_anothers(flow: u16, tcp_flags: u8) -> bool {
    const ACCEPTS: u8 = packet::SYN | packet::ACK;
    tcp_flags & (ACCEPTS | packet::RST | packet::FIN) == ACCEPTS
        && class_index(flow) == IdleClass::Closed as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algo::tcp::packet::{ACK, FIN, RST, SYN};
    use crate::flow::with_class;
    use crate::key::ports;
    use core::net::IpAddr;

    fn ip(text: &str) -> Ip {
        text.parse::<IpAddr>().expect("an address").into()
    }

    #[test]
    fn an_answer_waits_for_the_bridge_if_the_question_met_it() {
        let (bridge, redirect) = (Deliver::Bridge as u8, Deliver::Redirect as u8);
        assert!(waits(flags::VNIC | flags::BACK_AT_EGRESS, bridge, false));
        assert!(!waits(flags::BACK_AT_EGRESS, bridge, true), "it ends at the host");
        assert!(!waits(flags::BACK_AT_EGRESS, redirect, false), "conntrack did not see the question");
        assert!(!waits(flags::VNIC, bridge, false), "nothing is there to translate it");
    }

    #[test]
    fn only_accepting_on_a_connection_that_is_over_is_anothers() {
        for class in [IdleClass::New, IdleClass::Established, IdleClass::Closed, IdleClass::Datagram] {
            for tcp_flags in [0, SYN, ACK, SYN | ACK, RST | ACK, FIN | ACK, SYN | ACK | RST] {
                let expected = matches!(class, IdleClass::Closed) && tcp_flags == SYN | ACK;
                assert_eq!(
                    is_anothers(with_class(0x17, class), tcp_flags),
                    expected,
                    "{class:?} {tcp_flags:#x}"
                );
            }
        }
    }

    #[test]
    fn an_answer_leads_to_the_key_of_the_question() {
        let back = Back { vip: ip("192.0.2.10"), port: 80_u16.to_be(), service: 3, target: 7, vlan: 10 };
        let key = forward_key(&back, ip("198.51.100.7"), 5555_u16.to_be(), 8080_u16.to_be(), 6, 2);
        let question = FlowKey {
            src: ip("198.51.100.7"),
            dst: ip("192.0.2.10"),
            ports: ports(5555, 80),
            scope: scope(6, 10, 2),
        };
        assert_eq!(key, question);
        let keeping = Back { port: 0, ..back };
        let kept = forward_key(&keeping, ip("198.51.100.7"), 5555_u16.to_be(), 8080_u16.to_be(), 6, 2);
        assert_eq!(kept.service_port(), 8080);
    }
}
