//! What a rule asks of a frame, and what is known about the frames a `dsr` target answers with.

use std::net::IpAddr;

/// The frames of a `dsr` target's answers: from the VIP, by the service's protocol, from its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sender {
    /// The VIP.
    pub address: IpAddr,
    /// Protocol number (IANA).
    pub protocol: u8,
    /// The source port, when the service has only one.
    pub port: Option<u16>,
}

/// What a condition looks at. Numbers are compared in the order of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Source address of an IPv4 packet.
    Source4,
    /// Source address of an IPv6 packet.
    Source6,
    /// EtherType.
    EtherType,
    /// Protocol above IP.
    Protocol,
    /// Source port.
    SourcePort,
    /// Anything else: nothing is known about it.
    Other,
}

/// One condition of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// What it looks at.
    pub field: Field,
    /// It wants none of the values.
    pub negated: bool,
    /// Ranges of values, both ends included. A set that could not be read is empty: it is taken not to hold the
    /// VIP, so a list of the blocked lets it pass and a list of the allowed does not.
    pub values: Vec<(u128, u128)>,
    /// The values are a part of what is compared (`ip saddr . ether saddr`): being among them is not enough.
    pub partial: bool,
}

/// Whether something holds, as far as it can be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holds {
    /// For no frame of the sender.
    Never,
    /// For some, perhaps.
    Perhaps,
    /// For all.
    Always,
}

impl Condition {
    /// One of `values`.
    pub fn is(field: Field, values: Vec<(u128, u128)>) -> Self {
        Self { field, negated: false, values, partial: false }
    }

    /// Something that nothing is known about.
    pub fn unknown() -> Self {
        Self::is(Field::Other, Vec::new())
    }

    /// Whether it looks at an IP source address.
    pub fn is_source(&self) -> bool {
        matches!(self.field, Field::Source4 | Field::Source6)
    }

    /// Whether a source address of the sender's family is what it looks at.
    pub fn is_of_family(&self, sender: &Sender) -> bool {
        matches!(
            (self.field, sender.address),
            (Field::Source4, IpAddr::V4(_)) | (Field::Source6, IpAddr::V6(_))
        )
    }

    /// Whether a frame of the sender meets it.
    pub fn holds(&self, sender: &Sender) -> Holds {
        let value = match (self.field, sender.address) {
            (Field::Source4, IpAddr::V4(own)) => u128::from(u32::from(own)),
            (Field::Source6, IpAddr::V6(own)) => u128::from(own),
            // A packet of the other family has no such field, whatever the rule wants of it.
            (Field::Source4 | Field::Source6, _) => return Holds::Never,
            (Field::EtherType, IpAddr::V4(_)) => 0x0800,
            (Field::EtherType, IpAddr::V6(_)) => 0x86dd,
            (Field::Protocol, _) => sender.protocol.into(),
            (Field::SourcePort, _) => match sender.port {
                Some(port) => port.into(),
                None => return Holds::Perhaps,
            },
            (Field::Other, _) => return Holds::Perhaps,
        };
        let among = self.values.iter().any(|(first, last)| (*first..=*last).contains(&value));
        match (among, self.partial, self.negated) {
            (true, true, _) => Holds::Perhaps,
            (true, _, false) | (false, _, true) => Holds::Always,
            (true, _, true) | (false, _, false) => Holds::Never,
        }
    }
}

/// An address or a prefix (`192.0.2.0/24`) with its field and range.
pub fn prefix(text: &str) -> Option<(Field, (u128, u128))> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let (field, bits, value) = match address.parse().ok()? {
        IpAddr::V4(own) => (Field::Source4, 32, u128::from(u32::from(own))),
        IpAddr::V6(own) => (Field::Source6, 128, u128::from(own)),
    };
    let length: u32 = match length {
        // iptables writes a mask that is no prefix length as an address.
        Some(mask) if mask.contains(['.', ':']) => return None,
        Some(length) => length.parse().ok().filter(|length| *length <= bits)?,
        None => bits,
    };
    let rest = bits - length;
    let host = if rest == 128 { u128::MAX } else { (1 << rest) - 1 };
    Some((field, (value & !host, value | host)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(address: &str) -> Sender {
        Sender { address: address.parse().unwrap(), protocol: 6, port: Some(80) }
    }

    #[test]
    fn a_condition_on_the_other_family_never_holds() {
        let (field, range) = prefix("192.0.2.0/24").unwrap();
        let mut own = Condition::is(field, vec![range]);
        assert_eq!(own.holds(&sender("192.0.2.10")), Holds::Always);
        assert_eq!(own.holds(&sender("192.0.3.10")), Holds::Never);
        assert_eq!(own.holds(&sender("2001:db8::10")), Holds::Never);
        own.negated = true;
        assert_eq!(own.holds(&sender("192.0.2.10")), Holds::Never);
        assert_eq!(own.holds(&sender("192.0.3.10")), Holds::Always);
        assert_eq!(own.holds(&sender("2001:db8::10")), Holds::Never, "not even when it is negated");
        own.partial = true;
        assert_eq!(own.holds(&sender("192.0.2.10")), Holds::Perhaps);
        assert_eq!(own.holds(&sender("192.0.3.10")), Holds::Always);
    }

    #[test]
    fn prefixes() {
        assert_eq!(prefix("0.0.0.0/0").unwrap().1, (0, u128::from(u32::MAX)));
        assert_eq!(prefix("::/0").unwrap().1, (0, u128::MAX));
        assert_eq!(prefix("::1"), Some((Field::Source6, (1, 1))));
        for wrong in ["192.0.2.0/33", "192.0.2.0/255.0.255.0", "web"] {
            assert_eq!(prefix(wrong), None, "{wrong}");
        }
    }
}
