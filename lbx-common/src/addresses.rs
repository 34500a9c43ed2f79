//! Builds a generation of the address table: a seed under which every address has a slot of its own, and the
//! lists behind it.
//!
//! The lists (`more_rules`, `backs`) are divided in two halves like the table, so that a generation is
//! written in full beside the one in force.

use crate::addr::Ip;
use crate::limits::{ADDRESS_SLOTS, MAX_BACKS, MAX_MORE_RULES, MAX_RULES_PER_ADDRESS};
use crate::service::{AddressEntry, Back, INLINE_RULES, Rule, address_flags, address_slot, rule_flags};
use std::fmt;

/// One address and everything about it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AddressSpec {
    /// The address.
    pub addr: Ip,
    /// [`crate::service::address_flags`].
    pub flags: u16,
    /// What is looked for, in this order: the first rule that matches wins.
    pub rules: Vec<RuleSpec>,
}

impl AddressSpec {
    /// lbx answers for the address on a VLAN of a switch: ARP, neighbour solicitation and echo.
    pub fn answer(&mut self, vlan: u16, switch: u16) {
        self.flags |= address_flags::ANSWER | address_flags::ECHO;
        let rule = RuleSpec::Service(Rule::answer(vlan, switch));
        if !self.rules.contains(&rule) {
            self.rules.push(rule);
        }
    }
}

/// A rule of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RuleSpec {
    /// Matched by the destination; its index is a service, or it says where the address is answered for.
    Service(Rule),
    /// Matched by the source; flag and index are filled in.
    Back(Rule, Back),
}

/// A generation, ready to be written.
#[derive(Clone, Debug)]
pub struct Built {
    /// The seed, odd.
    pub seed: u32,
    /// All [`ADDRESS_SLOTS`] entries.
    pub entries: Vec<AddressEntry>,
    /// Index of the first rule below in `more_rules`.
    pub rules_base: u32,
    /// Rules that did not fit into their entry.
    pub more_rules: Vec<Rule>,
    /// Index of the first way back below in `backs`.
    pub backs_base: u32,
    /// The ways back.
    pub backs: Vec<Back>,
}

/// Why a generation could not be built.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BuildError {
    /// The same address twice.
    Duplicate(Ip),
    /// No seed keeps them apart: there are too many.
    TooMany {
        /// How many there are.
        addresses: usize,
    },
    /// More rules than the search is bounded to.
    TooManyRules(Ip),
    /// The list of further rules is full.
    RulesFull {
        /// Entries of one generation.
        limit: u32,
    },
    /// The list of ways back is full.
    BacksFull {
        /// Entries of one generation.
        limit: u32,
    },
}

impl std::error::Error for BuildError {}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |ip: &Ip| std::net::IpAddr::from(*ip);
        match self {
            Self::Duplicate(ip) => write!(f, "{} is given twice", name(ip)),
            Self::TooMany { addresses } => write!(
                f,
                "{addresses} addresses (VIPs and nat targets together) are more than the table can keep apart; \
                 some 300 are certain to fit"
            ),
            Self::TooManyRules(ip) => {
                write!(f, "{} has more than {MAX_RULES_PER_ADDRESS} rules (services times ports)", name(ip))
            }
            Self::RulesFull { limit } => {
                write!(f, "more than {limit} rules beyond the first {INLINE_RULES} of each address")
            }
            Self::BacksFull { limit } => write!(f, "more than {limit} pairs of VIP and nat target"),
        }
    }
}

/// Seeds tried before giving up. A try ends at the first collision, so most cost some 60 hashes.
const TRIES: u32 = 1 << 20;

/// Builds the generation for one half (0 or 1) of the lists.
pub fn build(specs: &[AddressSpec], half: u32) -> Result<Built, BuildError> {
    let mut sorted: Vec<&AddressSpec> = specs.iter().collect();
    sorted.sort_by_key(|s| s.addr.octets());
    if let Some(twice) = sorted.windows(2).find(|w| w[0].addr == w[1].addr) {
        return Err(BuildError::Duplicate(twice[0].addr));
    }
    let seed = find_seed(&sorted).ok_or(BuildError::TooMany { addresses: specs.len() })?;
    let mut built = Built {
        seed,
        entries: vec![AddressEntry::default(); ADDRESS_SLOTS as usize],
        rules_base: half * (MAX_MORE_RULES / 2),
        more_rules: Vec::new(),
        backs_base: half * (MAX_BACKS / 2),
        backs: Vec::new(),
    };
    for spec in sorted {
        let entry = built.entry(spec)?;
        built.entries[address_slot(&spec.addr, seed) as usize] = entry;
    }
    Ok(built)
}

impl Built {
    fn entry(&mut self, spec: &AddressSpec) -> Result<AddressEntry, BuildError> {
        if spec.rules.len() > MAX_RULES_PER_ADDRESS as usize {
            return Err(BuildError::TooManyRules(spec.addr));
        }
        let mut entry = AddressEntry {
            addr: spec.addr,
            flags: spec.flags,
            more_first: (self.rules_base as usize + self.more_rules.len()) as u16,
            more_count: spec.rules.len().saturating_sub(INLINE_RULES) as u16,
            ..AddressEntry::default()
        };
        for (n, spec) in spec.rules.iter().enumerate() {
            let rule = match spec {
                RuleSpec::Service(rule) => *rule,
                RuleSpec::Back(rule, back) => {
                    Rule { flags: rule.flags | rule_flags::BACK, index: self.back(*back)?, ..*rule }
                }
            };
            match entry.rules.get_mut(n) {
                Some(place) => *place = rule,
                None => self.more_rules.push(rule),
            }
        }
        let limit = MAX_MORE_RULES / 2;
        if self.more_rules.len() > limit as usize {
            return Err(BuildError::RulesFull { limit });
        }
        Ok(entry)
    }

    fn back(&mut self, back: Back) -> Result<u16, BuildError> {
        let limit = MAX_BACKS / 2;
        if self.backs.len() >= limit as usize {
            return Err(BuildError::BacksFull { limit });
        }
        self.backs.push(back);
        Ok((self.backs_base as usize + self.backs.len() - 1) as u16)
    }
}

/// An odd seed under which no two addresses share a slot.
fn find_seed(specs: &[&AddressSpec]) -> Option<u32> {
    if specs.len() > ADDRESS_SLOTS as usize {
        return None;
    }
    // The number of the try that took a slot last: nothing has to be cleared between tries.
    let mut taken = vec![0u32; ADDRESS_SLOTS as usize];
    (1..=TRIES).find_map(|attempt| {
        let seed = attempt.wrapping_mul(0x9E37_79B9) | 1;
        let apart = specs.iter().all(|spec| {
            let slot = &mut taken[address_slot(&spec.addr, seed) as usize];
            std::mem::replace(slot, attempt) != attempt
        });
        apart.then_some(seed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    fn spec(addr: impl Into<IpAddr>, rules: usize) -> AddressSpec {
        let rule = |n| {
            RuleSpec::Service(Rule { protocol: 6, port_first: n, port_last: n, index: n, ..Rule::default() })
        };
        AddressSpec {
            addr: Ip::from(addr.into()),
            rules: (0..rules as u16).map(rule).collect(),
            ..AddressSpec::default()
        }
    }

    /// What the datapath does.
    fn look(built: &Built, addr: Ip) -> Option<Vec<Rule>> {
        let entry = built.entries[address_slot(&addr, built.seed) as usize];
        if entry.addr != addr {
            return None;
        }
        let mut rules: Vec<Rule> = entry.rules.into_iter().take_while(|r| r.protocol != 0).collect();
        let first = usize::from(entry.more_first) - built.rules_base as usize;
        rules.extend(&built.more_rules[first..first + usize::from(entry.more_count)]);
        Some(rules)
    }

    #[test]
    fn three_hundred_consecutive_addresses_have_a_slot_each() {
        let v4 = (0..150u32).map(|n| spec(Ipv4Addr::from(0xc000_0200 + n), 1));
        let v6 = (0..150u128).map(|n| spec(Ipv6Addr::from((0x2001_0db8 << 96) + n), 1));
        let specs: Vec<_> = v4.chain(v6).collect();
        let built = build(&specs, 0).unwrap();
        assert_eq!(built.seed & 1, 1);
        for spec in &specs {
            assert_eq!(look(&built, spec.addr).unwrap().len(), 1);
        }
        let stranger = Ip::from(IpAddr::from(Ipv4Addr::new(203, 0, 113, 1)));
        assert!(look(&built, stranger).is_none());
    }

    #[test]
    fn rules_keep_their_order_across_the_line() {
        for half in [0, 1] {
            let specs = [spec([10, 0, 0, 1], 7), spec([10, 0, 0, 2], 3), spec([10, 0, 0, 3], 5)];
            let built = build(&specs, half).unwrap();
            for spec in &specs {
                let found = look(&built, spec.addr).unwrap();
                let ports: Vec<u16> = found.iter().map(|r| r.port_first).collect();
                assert_eq!(ports, (0..spec.rules.len() as u16).collect::<Vec<_>>());
            }
            assert_eq!(built.more_rules.len(), 6);
            assert_eq!(built.rules_base, half * MAX_MORE_RULES / 2);
        }
    }

    #[test]
    fn ways_back_are_numbered_within_their_half() {
        let rule = Rule { protocol: 6, port_last: 65535, ..Rule::default() };
        let back = |service| Back { service, ..Back::default() };
        let mut specs = [spec([10, 0, 0, 1], 0), spec([10, 0, 0, 2], 0)];
        specs[0].rules = vec![RuleSpec::Back(rule, back(1)), RuleSpec::Back(rule, back(2))];
        specs[1].rules = vec![RuleSpec::Back(rule, back(3))];
        let built = build(&specs, 1).unwrap();
        assert_eq!(built.backs_base, MAX_BACKS / 2);
        let of = |n: usize| look(&built, specs[n].addr).unwrap();
        for (rule, service) in [(of(0)[0], 1), (of(0)[1], 2), (of(1)[0], 3)] {
            assert_eq!(rule.flags, rule_flags::BACK);
            assert_eq!(built.backs[usize::from(rule.index) - built.backs_base as usize].service, service);
        }
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let twice = build(&[spec([10, 0, 0, 1], 1), spec([10, 0, 0, 1], 2)], 0).unwrap_err();
        assert_eq!(twice.to_string(), "10.0.0.1 is given twice");
        let rules = build(&[spec([10, 0, 0, 1], 65)], 0).unwrap_err();
        assert!(rules.to_string().contains("10.0.0.1"), "{rules}");
        let many: Vec<_> = (0..5000u32).map(|n| spec(Ipv4Addr::from(n << 8), 1)).collect();
        assert_eq!(build(&many, 0).unwrap_err(), BuildError::TooMany { addresses: 5000 });
        let full: Vec<_> = (0..40u32).map(|n| spec(Ipv4Addr::from(n), 64)).collect();
        assert!(matches!(build(&full, 0), Err(BuildError::RulesFull { .. })));
    }

    proptest! {
        #[test]
        fn any_hundred_addresses_fit(words in proptest::collection::hash_set(any::<u32>(), 0..100)) {
            let specs: Vec<_> = words.iter().map(|w| spec(Ipv4Addr::from(*w), 1)).collect();
            let built = build(&specs, 1).unwrap();
            for spec in &specs {
                prop_assert!(look(&built, spec.addr).is_some());
            }
            let filled = built.entries.iter().filter(|e| !e.rules[0].eq(&Rule::default())).count();
            prop_assert_eq!(filled, specs.len());
        }
    }
}
