//! Chains and rules, whatever tool they are from, and which of them concern a port.

use std::collections::BTreeSet;

use super::{Finding, Source};

/// A set of chains that jump to one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Shown in front of every rule: `bridge filter`.
    pub name: String,
    /// What its findings are called.
    pub source: Source,
    /// Its chains.
    pub chains: Vec<Chain>,
}

/// A chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// Name.
    pub name: String,
    /// Packets come here by themselves, not only by a jump.
    pub hooked: bool,
    /// The one device it is hooked to (netdev family).
    pub device: Option<String>,
    /// Packets come here before they are forwarded, on their way in from a port.
    pub ingress: bool,
    /// What is left at the end is dropped.
    pub policy_drop: bool,
    /// Rules in order.
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// In the tool's notation.
    pub text: String,
    /// The port frames come in by.
    pub input: Match,
    /// The port frames go out by.
    pub output: Match,
    /// What it does.
    pub verdict: Verdict,
    /// It looks at an IP source address. (Those that look at MACs do not mind a reply from the VIP.)
    pub source_address: bool,
    /// It asks nothing of a packet.
    pub unconditional: bool,
}

/// What a rule asks of an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Match {
    /// Nothing.
    #[default]
    Any,
    /// One of these; a `*` or `+` at the end stands for any rest.
    Only(Vec<String>),
    /// None of these.
    Not(Vec<String>),
}

/// What a rule does with a packet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Lets it go on (accept, return, count, log).
    #[default]
    Harmless,
    /// Drops, rejects, changes or diverts it.
    Acts,
    /// Sends it to another chain.
    Jump(String),
}

impl Match {
    fn admits(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(patterns) => patterns.iter().any(|pattern| matches(pattern, name)),
            Self::Not(patterns) => !patterns.iter().any(|pattern| matches(pattern, name)),
        }
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix(['*', '+']) {
        Some(start) => name.starts_with(start),
        None => pattern == name,
    }
}

/// The direction in which a rule meets the port's traffic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// From an uplink (or the host) to the port.
    To,
    /// From the port.
    From,
}

/// What a frame to or from `port` could meet in a table. `uplinks` are the ports that clients are behind.
pub fn walk(table: &Table, port: &str, uplinks: &[String]) -> Vec<Finding> {
    let mut walk = Walk { table, port, uplinks, seen: BTreeSet::new(), findings: Vec::new() };
    for chain in table.chains.iter().filter(|chain| chain.hooked) {
        match &chain.device {
            Some(device) if device != port => {}
            Some(_) => walk.chain(chain, if chain.ingress { Way::From } else { Way::To }, false),
            None => {
                walk.chain(chain, Way::To, false);
                walk.chain(chain, Way::From, false);
            }
        }
    }
    let mut findings = walk.findings;
    findings.sort_by(|a, b| a.rule.cmp(&b.rule).then(b.filters_source.cmp(&a.filters_source)));
    findings.dedup_by(|later, earlier| later.rule == earlier.rule);
    findings
}

struct Walk<'a> {
    table: &'a Table,
    port: &'a str,
    uplinks: &'a [String],
    seen: BTreeSet<(&'a str, Way, bool)>,
    findings: Vec<Finding>,
}

impl<'a> Walk<'a> {
    /// `source`: a rule on the way here already looked at a source address.
    fn chain(&mut self, chain: &'a Chain, way: Way, source: bool) {
        if !self.seen.insert((&chain.name, way, source)) {
            return;
        }
        let mut judged = source;
        for rule in &chain.rules {
            if !self.concerns(rule, way) {
                continue;
            }
            judged |= rule.source_address;
            match &rule.verdict {
                Verdict::Harmless => {}
                Verdict::Acts => {
                    // "Return if the source is right; drop" judges the source in two rules.
                    let by_source = rule.source_address || source || (rule.unconditional && judged);
                    self.found(chain, &rule.text, way == Way::From && by_source);
                }
                Verdict::Jump(to) => {
                    if let Some(next) = self.table.chains.iter().find(|chain| chain.name == *to) {
                        self.chain(next, way, rule.source_address || source);
                    }
                }
            }
        }
        if chain.policy_drop {
            // What a rule before it admits by source address, the policy takes from everybody else.
            self.found(chain, "policy drop", way == Way::From && judged);
        }
    }

    fn concerns(&self, rule: &Rule, way: Way) -> bool {
        match way {
            Way::To => {
                rule.output.admits(self.port)
                    && (rule.input == Match::Any || self.uplinks.iter().any(|name| rule.input.admits(name)))
            }
            Way::From => {
                rule.input.admits(self.port)
                    && (rule.output == Match::Any || self.uplinks.iter().any(|name| rule.output.admits(name)))
            }
        }
    }

    fn found(&mut self, chain: &Chain, text: &str, filters_source: bool) {
        let libvirt = ["libvirt-", "I-", "O-", "FI-", "FO-", "HI-"];
        let bound = chain.name.ends_with(self.port)
            && libvirt.iter().any(|start| chain.name.to_ascii_lowercase().starts_with(&start.to_lowercase()));
        self.findings.push(Finding {
            port: self.port.to_owned(),
            source: if bound { Source::Nwfilter } else { self.table.source },
            rule: format!("{} {}: {text}", self.table.name, chain.name),
            filters_source,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str, input: &[&str], output: &[&str], verdict: Verdict, source_address: bool) -> Rule {
        let list = |names: &[&str]| match names {
            [] => Match::Any,
            names => Match::Only(names.iter().map(ToString::to_string).collect()),
        };
        Rule {
            text: text.to_owned(),
            input: list(input),
            output: list(output),
            verdict,
            source_address,
            unconditional: false,
        }
    }

    fn table(chains: Vec<Chain>) -> Table {
        Table { name: "bridge filter".to_owned(), source: Source::NftBridge, chains }
    }

    fn chain(name: &str, hooked: bool, rules: Vec<Rule>) -> Chain {
        Chain { name: name.to_owned(), hooked, rules, ..Chain::default() }
    }

    fn rules_for(table: &Table, port: &str) -> Vec<(String, bool)> {
        let uplinks = ["eth0".to_owned()];
        walk(table, port, &uplinks).into_iter().map(|found| (found.rule, found.filters_source)).collect()
    }

    #[test]
    fn only_rules_that_a_frame_could_meet() {
        let forward = chain(
            "forward",
            true,
            vec![
                rule("all", &[], &[], Verdict::Acts, false),
                rule("to tap0", &[], &["tap0"], Verdict::Acts, false),
                rule("from the uplink", &["eth*"], &[], Verdict::Acts, true),
                rule("between taps", &["tap1"], &["tap0"], Verdict::Acts, false),
                rule("from tap1", &["tap1"], &[], Verdict::Acts, true),
                rule("accepted", &[], &[], Verdict::Harmless, false),
            ],
        );
        let table = table(vec![forward]);
        let found =
            |port| -> Vec<String> { rules_for(&table, port).into_iter().map(|(rule, _)| rule).collect() };
        let named = |names: &[&str]| -> Vec<String> {
            names.iter().map(|name| format!("bridge filter forward: {name}")).collect()
        };
        assert_eq!(found("tap0"), named(&["all", "from the uplink", "to tap0"]));
        assert_eq!(found("tap1"), named(&["all", "from tap1", "from the uplink"]));
    }

    #[test]
    fn libvirt_chains_are_followed_and_named() {
        let table = table(vec![
            chain(
                "PREROUTING",
                true,
                vec![rule("jump", &["vnet0"], &[], Verdict::Jump("libvirt-I-vnet0".to_owned()), false)],
            ),
            chain("libvirt-I-vnet0", false, vec![rule("saddr drop", &[], &[], Verdict::Acts, true)]),
        ]);
        let found = walk(&table, "vnet0", &[]);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].source, found[0].filters_source), (Source::Nwfilter, true));
        assert_eq!(walk(&table, "vnet1", &[]), []);
    }

    #[test]
    fn chains_that_jump_in_a_circle_end() {
        let table = table(vec![
            chain("a", true, vec![rule("j", &[], &[], Verdict::Jump("b".to_owned()), false)]),
            chain("b", false, vec![rule("j", &[], &[], Verdict::Jump("a".to_owned()), false)]),
        ]);
        assert_eq!(walk(&table, "tap0", &[]), []);
    }

    #[test]
    fn a_policy_of_drop_is_a_finding() {
        let mut only = chain("forward", true, vec![rule("allow", &["tap0"], &[], Verdict::Harmless, true)]);
        only.policy_drop = true;
        let found = rules_for(&table(vec![only]), "tap0");
        assert_eq!(found, [("bridge filter forward: policy drop".to_owned(), true)]);
    }
}
