//! The address table: from services with indices to lines, overflow rules and ways back.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Result, ensure};
use lbx_common::addr::Ip;
use lbx_common::limits::{ADDRESS_SLOTS, MAX_RULES_PER_ADDRESS};
use lbx_common::service::{AddressEntry, Back, INLINE_RULES, Rule, address_flags, address_slot, rule_flags};
use lbx_common::target::Forward;

use super::desired::ServiceWant;

/// Seeds tried before giving up: a fraction of a second, and enough for about 300 addresses.
const SEEDS: u32 = 1 << 18;

/// A service with the indices the maps know it by.
#[derive(Debug, Clone, Copy)]
pub struct Placed<'a> {
    /// What is wanted.
    pub want: &'a ServiceWant,
    /// Index into `services`.
    pub index: u16,
    /// Number of its switch.
    pub switch: u16,
    /// Index of each of its targets, in their order.
    pub targets: &'a [u16],
}

/// What is known about one address; rules of ways back hold a position in [`Lines::backs`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// [`address_flags`].
    pub flags: u16,
    /// Where it is answered for: switch and VLAN.
    pub answer: (u16, u16),
    /// Its rules in the order of the search.
    pub rules: Vec<Rule>,
}

/// All addresses, independent of where they end up in the maps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lines {
    /// By address.
    pub lines: BTreeMap<IpAddr, Line>,
    /// Ways back; rules with [`rule_flags::BACK`] name them by position.
    pub backs: Vec<Back>,
}

/// Collects the rules of all services by address.
pub fn lines(services: &[Placed<'_>]) -> Result<Lines> {
    let mut all = Lines::default();
    for service in services {
        let want = service.want;
        for vip in &want.vips {
            let line = all.lines.entry(vip.addr).or_default();
            line.flags |= address_flags::VIP;
            if vip.answer {
                line.flags |= address_flags::ANSWER | address_flags::ECHO;
                line.answer = (service.switch, want.vlan);
            }
            line.rules.push(Rule {
                protocol: want.protocol,
                flags: 0,
                vlan: want.vlan,
                port_first: want.ports.0,
                port_last: want.ports.1,
                index: service.index,
                switch: service.switch,
            });
        }
        if want.forward == Forward::Nat {
            back_rules(&mut all, service);
        }
    }
    for (addr, line) in &mut all.lines {
        // An exact port before a range before "all": the search takes the first that matches.
        line.rules.sort_by_key(|rule| rule.port_last - rule.port_first);
        ensure!(
            line.rules.len() <= MAX_RULES_PER_ADDRESS as usize,
            "{addr} has {} rules; at most {MAX_RULES_PER_ADDRESS} services and ways back can share an address",
            line.rules.len(),
        );
    }
    Ok(all)
}

fn back_rules(all: &mut Lines, service: &Placed<'_>) {
    let want = service.want;
    for (target, &index) in want.targets.iter().zip(service.targets) {
        let addresses = [target.addr4.map(IpAddr::V4), target.addr6.map(IpAddr::V6)];
        for addr in addresses.into_iter().flatten() {
            for vip in want.vips.iter().filter(|vip| vip.addr.is_ipv4() == addr.is_ipv4()) {
                // With a port of its own the target's answers come from that port, and the client expects
                // the service's; otherwise the ports are the same on both sides.
                let (from, to) = match target.port {
                    0 => (want.ports, 0),
                    port => ((port, port), want.ports.0.to_be()),
                };
                let position = all.backs.len() as u16;
                all.backs.push(Back {
                    vip: vip.addr.into(),
                    port: to,
                    service: service.index,
                    target: index,
                    vlan: want.vlan,
                });
                let line = all.lines.entry(addr).or_default();
                line.flags |= address_flags::NAT_TARGET;
                line.rules.push(Rule {
                    protocol: want.protocol,
                    flags: rule_flags::BACK,
                    vlan: want.vlan,
                    port_first: from.0,
                    port_last: from.1,
                    index: position,
                    switch: service.switch,
                });
            }
        }
    }
}

/// One generation of the table, ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The seed it was placed with.
    pub seed: u32,
    /// Slot (within the generation) and entry, for every address.
    pub entries: Vec<(u32, AddressEntry)>,
    /// Overflow rules, from [`Image::more_base`] on.
    pub more: Vec<Rule>,
    /// Index of the first of them.
    pub more_base: u16,
}

/// Places the lines. `back_index` turns a position in [`Lines::backs`] into an index of the map; the seed in
/// force is tried first, so that an unchanged set of addresses keeps its places.
pub fn place(lines: &Lines, seed: u32, more_base: u16, more_len: u32, back_index: &[u16]) -> Result<Image> {
    let addrs: Vec<Ip> = lines.lines.keys().map(|addr| Ip::from(*addr)).collect();
    let seed = find_seed(&addrs, seed).ok_or_else(|| {
        anyhow::anyhow!(
            "no seed places {} addresses without a collision; use fewer VIPs and nat targets (about 300)",
            addrs.len(),
        )
    })?;
    let mut image = Image { seed, entries: Vec::with_capacity(addrs.len()), more: Vec::new(), more_base };
    for (addr, line) in addrs.iter().zip(lines.lines.values()) {
        let mut rules = line.rules.clone();
        for rule in rules.iter_mut().filter(|rule| rule.flags & rule_flags::BACK != 0) {
            rule.index = back_index[rule.index as usize];
        }
        let mut entry = AddressEntry {
            addr: *addr,
            flags: line.flags,
            answer_switch: line.answer.0,
            answer_vlan: line.answer.1,
            ..AddressEntry::default()
        };
        let inline = rules.len().min(INLINE_RULES);
        entry.rules[..inline].copy_from_slice(&rules[..inline]);
        if rules.len() > inline {
            entry.more_first = more_base + image.more.len() as u16;
            entry.more_count = (rules.len() - inline) as u16;
            image.more.extend_from_slice(&rules[inline..]);
        }
        image.entries.push((address_slot(addr, seed), entry));
    }
    ensure!(
        image.more.len() <= more_len as usize,
        "{} rules do not fit beside their addresses, there is room for {more_len}; use fewer services per VIP",
        image.more.len(),
    );
    Ok(image)
}

fn find_seed(addrs: &[Ip], first: u32) -> Option<u32> {
    let mut taken = vec![0u32; ADDRESS_SLOTS as usize];
    let mut round = 0;
    let mut fits = |seed: u32| {
        round += 1;
        addrs.iter().all(|addr| {
            let slot = &mut taken[address_slot(addr, seed) as usize];
            std::mem::replace(slot, round) != round
        })
    };
    // Odd multiples of a large odd number: well spread and never even.
    std::iter::once(first | 1)
        .chain((0..SEEDS).map(|n| (2 * n + 1).wrapping_mul(0x9E37_79B1) | 1))
        .find(|seed| fits(*seed))
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn any_few_hundred_addresses_find_a_seed() {
        let addrs: Vec<Ip> =
            (0..250u32).map(|n| Ip::from(IpAddr::from([10, 0, (n >> 8) as u8, n as u8]))).collect();
        let seed = find_seed(&addrs, 0).unwrap();
        let mut slots: Vec<_> = addrs.iter().map(|addr| address_slot(addr, seed)).collect();
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), addrs.len());
        assert_eq!(find_seed(&addrs, seed), Some(seed), "the seed in force is kept");
    }

    #[test]
    fn two_copies_of_an_address_have_no_seed() {
        let addr = Ip::from(IpAddr::from([10, 0, 0, 1]));
        assert_eq!(find_seed(&[addr, addr], 1), None);
    }

    #[test]
    fn nat_targets_lead_back_to_every_vip_of_their_family() {
        let mut want = testing::service("web", 80, &["a", "b"]);
        want.forward = Forward::Nat;
        want.targets[0].addr4 = Some([10, 0, 0, 5].into());
        want.targets[0].port = 8080;
        want.targets[1].addr6 = Some("fd00::5".parse().unwrap());
        want.vips.push(super::super::desired::VipWant { addr: "fd00::10".parse().unwrap(), answer: true });
        let placed = [Placed { want: &want, index: 3, switch: 1, targets: &[7, 9] }];
        let all = lines(&placed).unwrap();
        assert_eq!(all.backs.len(), 2);
        let line = &all.lines[&IpAddr::from([10, 0, 0, 5])];
        assert_eq!(line.rules[0].port_first, 8080);
        assert_eq!(all.backs[line.rules[0].index as usize].port, 80u16.to_be());
        assert_eq!(all.backs[line.rules[0].index as usize].target, 7);
        let vip6 = &all.lines[&"fd00::10".parse::<IpAddr>().unwrap()];
        assert_ne!(vip6.flags & address_flags::ANSWER, 0);

        let image = place(&all, 1, 100, 50, &[40, 41]).unwrap();
        assert_eq!(image.entries.len(), all.lines.len());
        let back: Vec<u16> = image
            .entries
            .iter()
            .flat_map(|(_, entry)| entry.rules)
            .filter(|rule| rule.flags & rule_flags::BACK != 0)
            .map(|rule| rule.index)
            .collect();
        assert_eq!(back.len(), 2);
        assert!(back.contains(&40) && back.contains(&41));
    }

    #[test]
    fn rules_beyond_the_line_go_to_the_overflow_in_order() {
        let wants: Vec<_> = (0..6).map(|n| testing::service(&format!("s{n}"), 80 + n, &["a"])).collect();
        let placed: Vec<_> = wants
            .iter()
            .enumerate()
            .map(|(n, want)| Placed { want, index: n as u16, switch: 0, targets: &[0] })
            .collect();
        let all = lines(&placed).unwrap();
        let image = place(&all, 1, 10, 3, &[]).unwrap();
        let entry = image.entries[0].1;
        assert_eq!((entry.more_first, entry.more_count), (10, 3));
        assert!(place(&all, 1, 10, 2, &[]).is_err());
    }
}
