//! Whether a port lets a `dsr` target answer: would a rule drop a frame from the port because of its source
//! address, the VIP?
//!
//! The chains are gone through as the kernel would for that frame, with its source, protocol and port. What is not
//! known of it (its destination, the state of its connection) may hold or not. A drop counts if the source had a
//! part in it: the rule asks for it, or one that asks led here, or the frame would have been let go before if it had
//! come from somebody else.

use std::collections::BTreeSet;

use super::Finding;
use super::condition::{Holds, Sender};
use super::rules::{Chain, Rule, Table, Verdict};
use super::walk::{At, POLICY, Way, finding};

/// The rules of a table that drop what `sender` sends from the port, because of its source address.
pub fn source_drops(table: &Table, at: &At<'_>, sender: &Sender) -> Vec<Finding> {
    let mut found = Vec::new();
    for chain in table.chains.iter().filter(|chain| at.reaches(chain, Way::From)) {
        let mut judge =
            Judge { table, at, sender, passed_over: false, path: BTreeSet::new(), found: &mut found };
        judge.chain(chain, false);
    }
    found
}

struct Judge<'a> {
    table: &'a Table,
    at: &'a At<'a>,
    sender: &'a Sender,
    /// A rule would have let the frame go, but for its source.
    passed_over: bool,
    /// The chains on the way here: one that calls itself ends.
    path: BTreeSet<&'a str>,
    found: &'a mut Vec<Finding>,
}

/// How a frame leaves a chain.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Back to the caller, for all that is known.
    Returns,
    /// Accepted or dropped for sure.
    Final,
}

impl<'a> Judge<'a> {
    /// `chosen`: a rule on the way here wanted this source.
    fn chain(&mut self, chain: &'a Chain, chosen: bool) -> End {
        if !self.path.insert(&chain.name) {
            return End::Returns;
        }
        let end = self.rules(chain, chosen);
        self.path.remove(chain.name.as_str());
        end
    }

    fn rules(&mut self, chain: &'a Chain, chosen: bool) -> End {
        for rule in chain.rules.iter().filter(|rule| self.at.concerns(rule, Way::From)) {
            let (by_source, rest) = self.meets(rule);
            if rest == Holds::Never {
                continue;
            }
            if by_source == Some(Holds::Never) {
                // A list of the blocked that does not hold the VIP says nothing against it.
                self.passed_over |=
                    !matches!(rule.verdict, Verdict::Drops | Verdict::Acts | Verdict::Continues);
                continue;
            }
            let sure = rest == Holds::Always && by_source.is_none_or(|holds| holds == Holds::Always);
            match &rule.verdict {
                Verdict::Accepts if sure => return End::Final,
                Verdict::Returns if sure => return End::Returns,
                Verdict::Accepts | Verdict::Returns | Verdict::Continues | Verdict::Acts => {}
                Verdict::Drops => {
                    if by_source.is_some() || chosen || (self.passed_over && sure) {
                        self.drops(chain, &rule.text);
                    }
                    if sure {
                        return End::Final;
                    }
                }
                Verdict::Jump(to) | Verdict::Goto(to) => {
                    let Some(next) = self.table.chain(to) else { continue };
                    let end = self.chain(next, chosen || by_source.is_some());
                    match (end, &rule.verdict) {
                        (End::Final, _) if sure => return End::Final,
                        (End::Returns, Verdict::Goto(_)) if sure => return End::Returns,
                        _ => {}
                    }
                }
            }
        }
        if chain.policy_drop {
            if chosen || self.passed_over {
                self.drops(chain, POLICY);
            }
            return End::Final;
        }
        End::Returns
    }

    /// What the rule asks of the source, if anything, and what it asks of the rest.
    fn meets(&self, rule: &Rule) -> (Option<Holds>, Holds) {
        let (mut source, mut rest) = (None, Holds::Always);
        for condition in &rule.conditions {
            let holds = condition.holds(self.sender);
            if condition.is_source() && !condition.is_of_family(self.sender) {
                rest = Holds::Never;
            } else if condition.is_source() {
                source = Some(source.map_or(holds, |before: Holds| before.min(holds)));
            } else {
                rest = rest.min(holds);
            }
        }
        (source, rest)
    }

    fn drops(&mut self, chain: &Chain, text: &str) {
        let mut finding = finding(self.table, chain, text, self.at.port);
        finding.drops.push(*self.sender);
        self.found.push(finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::filters::{Source, ebtables_chains, iptables_chains, nft_tables};

    const VIP: &str = "192.0.2.10";

    /// Whether what a TCP service on port 80 sends from behind `tap0` is dropped because of its source.
    fn drops(table: &Table, vip: &str) -> bool {
        let uplinks = ["eth0".to_owned()];
        let at = At { port: "tap0", bridge: "br0", uplinks: &uplinks };
        let sender = Sender { address: vip.parse().unwrap(), protocol: 6, port: Some(80) };
        !source_drops(table, &at, &sender).is_empty()
    }

    /// Rules of one forward chain, in the notation of iptables; `own` is a chain for jumps.
    fn iptables(policy: &str, rules: &[&str]) -> Table {
        let rules = rules.join("\n-A ");
        let save = format!("*filter\n:FORWARD {policy} [0:0]\n:own - [0:0]\n-A {rules}\nCOMMIT\n");
        let (name, chains) = iptables_chains(&save).remove(0);
        Table { name, source: Source::Iptables, chains }
    }

    #[test]
    fn a_rule_drops_the_vip_only_if_it_is_about_the_vip_and_this_port() {
        let cases: &[(bool, &[&str])] = &[
            // Who is blocked by name is not the VIP.
            (false, &["FORWARD -s 203.0.113.9/32 -j DROP"]),
            (false, &["FORWARD -s 192.0.2.11/32 -j DROP"]),
            (true, &["FORWARD -s 192.0.2.10/32 -j DROP"]),
            (true, &["FORWARD -s 192.0.2.0/24 -j DROP"]),
            // The port's own address and no other.
            (true, &["FORWARD ! -s 192.0.2.11/32 -j DROP"]),
            (true, &["FORWARD ! -s 192.0.2.11/32 -m physdev --physdev-in tap0 -j DROP"]),
            (false, &["FORWARD ! -s 192.0.2.11/32 -m physdev --physdev-in tap1 -j DROP"]),
            (false, &["FORWARD ! -s 192.0.2.11/32 -m physdev --physdev-in eth0 -j DROP"]),
            (false, &["FORWARD ! -s 192.0.2.11/32 -m physdev --physdev-out tap0 -j DROP"]),
            (true, &["FORWARD ! -s 192.0.2.11/32 -m physdev --physdev-out eth0 -j DROP"]),
            (false, &["FORWARD ! -s 192.0.2.11/32 -i eth1 -j DROP"]),
            (true, &["FORWARD ! -s 192.0.2.11/32 -i br0 -j DROP"]),
            (false, &["FORWARD ! -s 192.0.2.0/24 -j DROP"]),
            // Not what the service sends.
            (false, &["FORWARD ! -s 192.0.2.11/32 -p udp -j DROP"]),
            (false, &["FORWARD ! -s 192.0.2.11/32 -p tcp -m tcp --sport 25 -j DROP"]),
            (true, &["FORWARD ! -s 192.0.2.11/32 -p tcp -m tcp --sport 1:1024 -j DROP"]),
            (true, &["FORWARD ! -s 192.0.2.11/32 -p tcp -m tcp --dport 5000 -j DROP"]),
            // A drop that asks for no source.
            (false, &["FORWARD -m conntrack --ctstate INVALID -j DROP"]),
            (false, &["FORWARD -p tcp -m tcp --dport 25 -j DROP"]),
            // In two rules.
            (true, &["FORWARD -s 192.0.2.11/32 -j ACCEPT", "FORWARD -j DROP"]),
            (
                false,
                &["FORWARD -s 192.0.2.11/32 -j ACCEPT", "FORWARD -m conntrack --ctstate INVALID -j DROP"],
            ),
            (false, &["FORWARD -s 192.0.2.10/32 -j ACCEPT", "FORWARD ! -s 192.0.2.11/32 -j DROP"]),
            (true, &["FORWARD -s 192.0.2.10/32 -p udp -j ACCEPT", "FORWARD ! -s 192.0.2.11/32 -j DROP"]),
            (false, &["FORWARD -m physdev --physdev-in eth0 -j ACCEPT", "FORWARD -j DROP"]),
            // By a chain of their own.
            (
                true,
                &[
                    "FORWARD -m physdev --physdev-in tap0 -j own",
                    "own -s 192.0.2.11/32 -j RETURN",
                    "own -j DROP",
                ],
            ),
            (
                false,
                &[
                    "FORWARD -m physdev --physdev-in tap0 -j own",
                    "own -s 192.0.2.11/32 -j RETURN",
                    "own -s 192.0.2.10/32 -j RETURN",
                    "own -j DROP",
                ],
            ),
            (true, &["FORWARD ! -s 192.0.2.11/32 -j own", "own -m limit --limit 1/s -j LOG", "own -j DROP"]),
            (false, &["FORWARD -s 192.0.2.11/32 -j own", "own -j DROP"]),
            (true, &["FORWARD -j own", "own -s 192.0.2.11/32 -j ACCEPT", "FORWARD -j DROP"]),
            (false, &["FORWARD -g own", "FORWARD ! -s 192.0.2.11/32 -j DROP"]),
        ];
        for (expected, rules) in cases {
            assert_eq!(drops(&iptables("ACCEPT", rules), VIP), *expected, "{rules:#?}");
        }
        let allowed = |rules| drops(&iptables("DROP", rules), VIP);
        assert!(allowed(&["FORWARD -s 192.0.2.11/32 -j ACCEPT"]));
        assert!(!allowed(&["FORWARD -s 192.0.2.0/24 -j ACCEPT"]));
        assert!(!allowed(&[]), "nobody gets through, whoever they are");
    }

    #[test]
    fn the_other_family_is_not_concerned() {
        let table = iptables("ACCEPT", &["FORWARD ! -s 192.0.2.11/32 -j DROP"]);
        assert!(!drops(&table, "2001:db8::10"));
        let table = iptables("DROP", &["FORWARD -s 192.0.2.11/32 -j ACCEPT"]);
        assert!(!drops(&table, "2001:db8::10"));
    }

    #[test]
    fn libvirts_clean_traffic_drops_until_the_vip_is_in_its_list() {
        let chains = |more: &str| {
            ebtables_chains(&format!(
                "Bridge chain: PREROUTING, entries: 1, policy: ACCEPT\n-i tap0 -j libvirt-I-tap0\n\n\
                 Bridge chain: libvirt-I-tap0, entries: 2, policy: ACCEPT\n\
                 -p IPv4 -j I-tap0-ipv4-ip\n-p ARP -j ACCEPT\n\n\
                 Bridge chain: I-tap0-ipv4-ip, entries: 3, policy: ACCEPT\n\
                 -p IPv4 --ip-src 0.0.0.0 --ip-proto udp -j RETURN\n-p IPv4 --ip-src 192.0.2.11 -j RETURN\n\
                 {more}-j DROP\n"
            ))
        };
        let table = |more| Table { name: "nat".to_owned(), source: Source::Ebtables, chains: chains(more) };
        assert!(drops(&table(""), VIP));
        assert!(!drops(&table("-p IPv4 --ip-src 192.0.2.10 -j RETURN\n"), VIP));
    }

    /// As nft 1.0.6 prints it.
    #[test]
    fn nft_in_its_own_words() {
        let saddr = || serde_json::json!({"payload": {"protocol": "ip", "field": "saddr"}});
        let pinned = |op: &str, left: serde_json::Value, right: serde_json::Value| {
            let ruleset = serde_json::json!({"nftables": [
                {"set": {"family": "bridge", "table": "t", "name": "own", "type": "ipv4_addr", "elem": [
                    {"prefix": {"addr": "10.0.0.0", "len": 24}}, {"range": ["192.0.2.8", "192.0.2.12"]},
                    {"elem": {"val": "10.2.0.1", "timeout": 60}}]}},
                {"chain": {"family": "bridge", "table": "t", "name": "f", "hook": "forward", "policy": "accept"}},
                {"rule": {"family": "bridge", "table": "t", "chain": "f", "expr": [
                    {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": {"set": ["tap0", "tap1"]}}},
                    {"match": {"op": op, "left": left, "right": right}}, {"counter": null}, {"drop": null}]}}
            ]});
            drops(&nft_tables(&ruleset, false)[0], VIP)
        };
        assert!(pinned("!=", saddr(), "192.0.2.11".into()));
        assert!(!pinned("!=", saddr(), serde_json::json!({"set": ["192.0.2.11", VIP]})));
        assert!(!pinned("!=", saddr(), "@own".into()));
        assert!(pinned("==", saddr(), "@own".into()));
        assert!(!pinned("==", saddr(), "@unknown".into()), "a list of the blocked");
        assert!(pinned("!=", saddr(), "@unknown".into()), "a list of the allowed");
        assert!(pinned(">=", saddr(), "192.0.2.0".into()));
        assert!(!pinned("<", saddr(), VIP.into()));
        let mac = serde_json::json!({"payload": {"protocol": "ether", "field": "saddr"}});
        assert!(!pinned("!=", mac.clone(), "52:54:00:00:00:01".into()), "it may have any address");
        let pair = serde_json::json!({"concat": [mac, saddr()]});
        let own = serde_json::json!({"set": [{"concat": ["52:54:00:00:00:01", "192.0.2.11"]}]});
        assert!(pinned("!=", pair, own));
        let arp = serde_json::json!({"payload": {"protocol": "arp", "field": "saddr ip"}});
        assert!(!pinned("!=", arp, "192.0.2.11".into()), "a VM answers no ARP for the VIP");
    }

    #[test]
    fn to_the_ip_families_a_bridged_frame_comes_in_by_its_bridge() {
        let drops_by = |name: &str| {
            let ruleset = serde_json::json!({"nftables": [
                {"chain": {"family": "inet", "table": "t", "name": "f", "hook": "forward", "policy": "accept"}},
                {"rule": {"family": "inet", "table": "t", "chain": "f", "expr": [
                    {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": name}},
                    {"match": {"op": "!=", "left": {"payload": {"protocol": "ip", "field": "saddr"}},
                               "right": "192.0.2.11"}},
                    {"drop": null}]}}
            ]});
            drops(&nft_tables(&ruleset, true)[0], VIP)
        };
        assert!(!drops_by("tap0"));
        assert!(drops_by("br0"));
        assert!(!drops_by("eth1"));
    }
}
