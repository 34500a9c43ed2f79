//! Which rules concern a port: what a frame to it or from it could meet.

use std::collections::BTreeSet;

use super::rules::{Chain, Hook, Match, Rule, Table, Verdict};
use super::{Finding, Source};

/// The port a walk is about.
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    /// Its name.
    pub port: &'a str,
    /// Its bridge's name.
    pub bridge: &'a str,
    /// The ports that clients are behind.
    pub uplinks: &'a [String],
}

/// The direction in which a rule meets the port's traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// From an uplink (or the host) to the port.
    To,
    /// From the port.
    From,
}

impl At<'_> {
    /// Whether packets of a way come to a chain by themselves.
    pub(super) fn reaches(&self, chain: &Chain, way: Way) -> bool {
        let port = || chain.devices.iter().any(|device| device == self.port);
        let uplink = || chain.devices.iter().any(|device| self.uplinks.contains(device));
        match (chain.hook, way) {
            (None, _) | (Some(Hook::Input), Way::To) => false,
            (Some(Hook::Prerouting | Hook::Input | Hook::Forward | Hook::Postrouting), _) => true,
            (Some(Hook::Ingress), Way::From) | (Some(Hook::Egress), Way::To) => port(),
            (Some(Hook::Ingress), Way::To) | (Some(Hook::Egress), Way::From) => uplink(),
        }
    }

    /// Whether a rule's interfaces admit packets of a way.
    pub(super) fn concerns(&self, rule: &Rule, way: Way) -> bool {
        let uplink =
            |wanted: &Match| *wanted == Match::Any || self.uplinks.iter().any(|name| wanted.admits(name));
        let bridge = rule.bridge_in.admits(self.bridge) && rule.bridge_out.admits(self.bridge);
        bridge
            && match way {
                Way::To => rule.output.admits(self.port) && uplink(&rule.input),
                Way::From => rule.input.admits(self.port) && uplink(&rule.output),
            }
    }
}

/// What a frame to or from the port could meet in a table.
pub fn walk(table: &Table, at: &At<'_>) -> Vec<Finding> {
    let mut walk = Walk { table, at, seen: BTreeSet::new(), findings: Vec::new() };
    for chain in &table.chains {
        for way in [Way::To, Way::From] {
            // What the host itself receives does not go from port to port.
            if chain.hook != Some(Hook::Input) && at.reaches(chain, way) {
                walk.chain(chain, way);
            }
        }
    }
    let mut findings = walk.findings;
    findings.sort_by(|a, b| a.rule.cmp(&b.rule));
    findings.dedup_by(|later, earlier| later.rule == earlier.rule);
    findings
}

/// What a finding of a rule is.
pub(super) fn finding(table: &Table, chain: &Chain, text: &str, port: &str) -> Finding {
    let libvirt = ["libvirt-", "i-", "o-", "fi-", "fo-", "hi-"];
    let name = chain.name.to_ascii_lowercase();
    // libvirt appends the protocol to the chains below the first: `I-vnet0-ipv4-ip`.
    let bound = libvirt.iter().any(|start| name.starts_with(start))
        && name.split('-').any(|part| part == port.to_ascii_lowercase());
    Finding {
        port: port.to_owned(),
        source: if bound { Source::Nwfilter } else { table.source },
        rule: table.rule_name(chain, text),
        drops: Vec::new(),
    }
}

struct Walk<'a> {
    table: &'a Table,
    at: &'a At<'a>,
    seen: BTreeSet<(&'a str, Way)>,
    findings: Vec<Finding>,
}

impl<'a> Walk<'a> {
    fn chain(&mut self, chain: &'a Chain, way: Way) {
        if !self.seen.insert((&chain.name, way)) {
            return;
        }
        for rule in chain.rules.iter().filter(|rule| self.at.concerns(rule, way)) {
            match &rule.verdict {
                Verdict::Continues | Verdict::Accepts | Verdict::Returns => {}
                Verdict::Drops | Verdict::Acts => self.found(chain, &rule.text),
                Verdict::Jump(to) | Verdict::Goto(to) => {
                    if let Some(next) = self.table.chain(to) {
                        self.chain(next, way);
                    }
                }
            }
        }
        if chain.policy_drop {
            self.found(chain, POLICY);
        }
    }

    fn found(&mut self, chain: &Chain, text: &str) {
        self.findings.push(finding(self.table, chain, text, self.at.port));
    }
}

/// What the end of a chain is called.
pub(super) const POLICY: &str = "policy drop";

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str, input: &[&str], output: &[&str], verdict: Verdict) -> Rule {
        let list = |names: &[&str]| match names {
            [] => Match::Any,
            names => Match::Only(names.iter().map(ToString::to_string).collect()),
        };
        Rule { text: text.to_owned(), input: list(input), output: list(output), verdict, ..Rule::default() }
    }

    fn table(chains: Vec<Chain>) -> Table {
        Table { name: "bridge filter".to_owned(), source: Source::NftBridge, chains }
    }

    fn chain(name: &str, hook: Option<Hook>, rules: Vec<Rule>) -> Chain {
        Chain { name: name.to_owned(), hook, rules, ..Chain::default() }
    }

    fn rules_for(table: &Table, port: &str) -> Vec<String> {
        let uplinks = ["eth0".to_owned()];
        let at = At { port, bridge: "br0", uplinks: &uplinks };
        walk(table, &at).into_iter().map(|found| found.rule).collect()
    }

    #[test]
    fn only_rules_that_a_frame_could_meet() {
        let elsewhere = Rule {
            bridge_in: Match::Only(vec!["br1".to_owned()]),
            ..rule("another bridge", &[], &[], Verdict::Drops)
        };
        let forward = chain(
            "forward",
            Some(Hook::Forward),
            vec![
                rule("all", &[], &[], Verdict::Acts),
                rule("to tap0", &[], &["tap0"], Verdict::Acts),
                rule("from the uplink", &["eth*"], &[], Verdict::Drops),
                rule("between taps", &["tap1"], &["tap0"], Verdict::Acts),
                rule("from tap1", &["tap1"], &[], Verdict::Acts),
                rule("accepted", &[], &[], Verdict::Accepts),
                elsewhere,
            ],
        );
        let input = chain("input", Some(Hook::Input), vec![rule("for the host", &[], &[], Verdict::Drops)]);
        let table = table(vec![forward, input]);
        let named = |names: &[&str]| -> Vec<String> {
            names.iter().map(|name| format!("bridge filter forward: {name}")).collect()
        };
        assert_eq!(rules_for(&table, "tap0"), named(&["all", "from the uplink", "to tap0"]));
        assert_eq!(rules_for(&table, "tap1"), named(&["all", "from tap1", "from the uplink"]));
    }

    #[test]
    fn chains_of_one_device_concern_that_port_and_the_uplinks() {
        let on = |name: &str, hook, device: &str| Chain {
            devices: vec![device.to_owned()],
            ..chain(name, Some(hook), vec![rule("drop", &[], &[], Verdict::Drops)])
        };
        let table = table(vec![
            on("in of tap0", Hook::Ingress, "tap0"),
            on("in of eth0", Hook::Ingress, "eth0"),
            on("in of eth1", Hook::Ingress, "eth1"),
        ]);
        let found = rules_for(&table, "tap0");
        assert_eq!(found, ["bridge filter in of eth0: drop", "bridge filter in of tap0: drop"]);
        assert_eq!(rules_for(&table, "tap1"), ["bridge filter in of eth0: drop"]);
    }

    #[test]
    fn libvirt_chains_are_followed_and_named() {
        let jump = |to: &str| rule("jump", &["vnet0"], &[], Verdict::Jump(to.to_owned()));
        let table = table(vec![
            chain("PREROUTING", Some(Hook::Prerouting), vec![jump("libvirt-I-vnet0"), jump("I-vnet0-mac")]),
            chain("libvirt-I-vnet0", None, vec![rule("drop", &[], &[], Verdict::Drops)]),
            chain("I-vnet0-mac", None, vec![rule("drop", &[], &[], Verdict::Drops)]),
        ]);
        let found = walk(&table, &At { port: "vnet0", bridge: "br0", uplinks: &[] });
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|one| one.source == Source::Nwfilter), "{found:?}");
        assert_eq!(rules_for(&table, "vnet1"), [""; 0]);
    }

    #[test]
    fn chains_that_jump_in_a_circle_end() {
        let jump = |to: &str| rule("j", &[], &[], Verdict::Jump(to.to_owned()));
        let table =
            table(vec![chain("a", Some(Hook::Forward), vec![jump("b")]), chain("b", None, vec![jump("a")])]);
        assert_eq!(rules_for(&table, "tap0"), [""; 0]);
    }

    #[test]
    fn a_policy_of_drop_is_a_finding() {
        let mut only =
            chain("forward", Some(Hook::Forward), vec![rule("allow", &["tap0"], &[], Verdict::Accepts)]);
        only.policy_drop = true;
        assert_eq!(rules_for(&table(vec![only]), "tap0"), ["bridge filter forward: policy drop"]);
    }
}
