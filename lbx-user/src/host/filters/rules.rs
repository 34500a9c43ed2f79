//! Chains and rules, whatever tool they are from.

use super::Source;
use super::condition::Condition;

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

/// Where packets come to a chain by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// On their way in, before the bridge has decided anything.
    Prerouting,
    /// For the host itself.
    Input,
    /// From port to port.
    Forward,
    /// On their way out.
    Postrouting,
    /// In by one device (netdev family).
    Ingress,
    /// Out by one device (netdev family).
    Egress,
}

/// A chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// Name.
    pub name: String,
    /// Where packets come here by themselves; `None`: only by a jump.
    pub hook: Option<Hook>,
    /// The devices it is hooked to (netdev family).
    pub devices: Vec<String>,
    /// What is left at the end is dropped.
    pub policy_drop: bool,
    /// Rules in order.
    pub rules: Vec<Rule>,
}

impl Table {
    /// The chain of that name.
    pub fn chain(&self, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.name == name)
    }

    /// A rule as findings name it.
    pub fn rule_name(&self, chain: &Chain, text: &str) -> String {
        format!("{} {}: {text}", self.name, chain.name)
    }
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
    /// The bridge they come in by. (To the IP families a bridged packet comes in by its bridge, not by its port:
    /// net/bridge/br_netfilter_hooks.c.)
    pub bridge_in: Match,
    /// The bridge they go out by.
    pub bridge_out: Match,
    /// What it does.
    pub verdict: Verdict,
    /// What else it asks of a packet; all of it.
    pub conditions: Vec<Condition>,
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
    /// Lets it go on to the next rule (count, log).
    #[default]
    Continues,
    /// Lets it pass.
    Accepts,
    /// Sends it back to where the chain was called.
    Returns,
    /// Drops or rejects it.
    Drops,
    /// Changes or diverts it, or what it does is not known.
    Acts,
    /// Sends it to another chain, and on from here if that returns.
    Jump(String),
    /// Sends it to another chain for good.
    Goto(String),
}

impl Match {
    /// Whether an interface of that name meets it.
    pub fn admits(&self, name: &str) -> bool {
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
