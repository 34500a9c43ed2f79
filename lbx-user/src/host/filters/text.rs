//! `iptables-save` and `ebtables -L` into chains and rules.

use super::walk::{Chain, Match, Rule, Verdict};

/// The chains of `iptables-save` (or ip6tables), one list per table, with the table's name.
pub fn iptables_chains(save: &str) -> Vec<(String, Vec<Chain>)> {
    let mut tables: Vec<(String, Vec<Chain>)> = Vec::new();
    for line in save.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('*') {
            tables.push((name.to_owned(), Vec::new()));
        }
        let Some((_, chains)) = tables.last_mut() else { continue };
        if let Some(declared) = line.strip_prefix(':') {
            let mut words = declared.split_whitespace();
            let (name, policy) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            chains.push(Chain {
                name: name.to_owned(),
                hooked: matches!(name, "FORWARD" | "PREROUTING" | "POSTROUTING"),
                ingress: name == "PREROUTING",
                policy_drop: policy == "DROP",
                ..Chain::default()
            });
        } else if let Some(added) = line.strip_prefix("-A ") {
            let (name, text) = added.split_once(' ').unwrap_or((added, ""));
            if let Some(chain) = chains.iter_mut().find(|chain| chain.name == name) {
                chain.rules.push(rule(
                    text,
                    &["--physdev-in"],
                    &["--physdev-out"],
                    &["-s", "--source", "--src"],
                ));
            }
        }
    }
    tables
}

/// The chains of `ebtables -t TABLE -L`.
pub fn ebtables_chains(list: &str) -> Vec<Chain> {
    let mut chains: Vec<Chain> = Vec::new();
    for line in list.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix("Bridge chain: ") {
            let name = header.split(',').next().unwrap_or_default();
            chains.push(Chain {
                name: name.to_owned(),
                hooked: matches!(name, "FORWARD" | "PREROUTING" | "POSTROUTING"),
                ingress: name == "PREROUTING",
                // A user's chain also has a policy, but returns by default; DROP drops in either.
                policy_drop: header.contains("policy: DROP"),
                ..Chain::default()
            });
        } else if line.contains("-j ")
            && let Some(chain) = chains.last_mut()
        {
            chain.rules.push(rule(line, &["-i", "--in-if"], &["-o", "--out-if"], &EBTABLES_SOURCE));
        }
    }
    chains
}

/// ebtables' `-s` is a MAC.
const EBTABLES_SOURCE: [&str; 4] = ["--ip-src", "--ip-source", "--ip6-src", "--ip6-source"];

fn rule(text: &str, input: &[&str], output: &[&str], source: &[&str]) -> Rule {
    let words: Vec<&str> = text.split_whitespace().collect();
    let unconditional = words.first().is_some_and(|word| matches!(*word, "-j" | "-g"));
    let mut rule = Rule { text: text.to_owned(), unconditional, ..Rule::default() };
    for (n, word) in words.iter().enumerate() {
        // The exclamation mark stands before the option (iptables) or after it (ebtables).
        let after = words.get(n + 1) == Some(&"!");
        let negated = after || (n > 0 && words[n - 1] == "!");
        let value = words.get(n + 1 + usize::from(after)).copied().unwrap_or_default().to_owned();
        let matched =
            || if negated { Match::Not(vec![value.clone()]) } else { Match::Only(vec![value.clone()]) };
        if input.contains(word) {
            rule.input = matched();
        } else if output.contains(word) {
            rule.output = matched();
        } else if matches!(*word, "-j" | "-g" | "--jump" | "--goto") {
            rule.verdict = match value.as_str() {
                "ACCEPT" | "RETURN" | "CONTINUE" | "LOG" | "NFLOG" | "ULOG" | "CHECKSUM" => Verdict::Harmless,
                // Targets of xtables are written in capitals; user's chains usually are not, and are looked up
                // by name, so a chain in capitals that exists is found below.
                "DROP" | "REJECT" | "DNAT" | "SNAT" | "MASQUERADE" | "QUEUE" | "NFQUEUE" | "TPROXY"
                | "REDIRECT" | "TARPIT" | "dnat" | "snat" | "redirect" | "arpreply" | "MARK" | "mark" => {
                    Verdict::Acts
                }
                chain => Verdict::Jump(chain.to_owned()),
            };
        } else if source.contains(word) {
            rule.source_address = true;
        }
    }
    rule
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::filters::{Source, Table, walk};

    #[test]
    fn conntrack_invalid_drop_concerns_every_port() {
        let save = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n\
                    -A INPUT -j DROP\n-A FORWARD -m conntrack --ctstate INVALID -j DROP\n\
                    -A FORWARD -m physdev --physdev-out tap1 -j DROP\nCOMMIT\n";
        let tables = iptables_chains(save);
        assert_eq!(tables[0].0, "filter");
        let table = Table {
            name: "iptables filter".to_owned(),
            source: Source::Iptables,
            chains: tables[0].1.clone(),
        };
        let found = walk(&table, "tap0", &[]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].rule, "iptables filter FORWARD: -m conntrack --ctstate INVALID -j DROP");
        assert_eq!(walk(&table, "tap1", &[]).len(), 2);
    }

    #[test]
    fn libvirts_ebtables_chains_are_followed() {
        let list = "Bridge table: nat\n\n\
            Bridge chain: PREROUTING, entries: 1, policy: ACCEPT\n-i vnet0 -j libvirt-I-vnet0\n\n\
            Bridge chain: libvirt-I-vnet0, entries: 2, policy: ACCEPT\n\
            -p IPv4 --ip-src ! 192.0.2.21 -j DROP\n-p IPv4 -j ACCEPT\n";
        let table = Table {
            name: "ebtables nat".to_owned(),
            source: Source::Ebtables,
            chains: ebtables_chains(list),
        };
        let found = walk(&table, "vnet0", &[]);
        assert_eq!((found.len(), found[0].source, found[0].filters_source), (1, Source::Nwfilter, true));
        assert_eq!(walk(&table, "vnet1", &[]), []);
    }
}
